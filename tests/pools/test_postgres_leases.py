"""What one lease of a PostgreSQL pool leaves to the next, and how its calls and transactions end."""

from __future__ import annotations

import asyncio
import base64
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import actorpool
from actorpool import CallTimeout, LeaseExpired
from actorpool.workers import Rollback
from tests.pools.conftest import StartPool
from tests.pools.kit import backend, backends
from tests.workers.pgserver import PgServer
from tests.workers.proxy import Proxy

Eventually = Callable[..., Any]


def insert(conn: psycopg.Connection[Any], number: int, then: BaseException | None = None) -> int:
    conn.execute("INSERT INTO t VALUES (%s)", [number])
    if then is not None:
        raise then
    return number


def levels(conn: psycopg.Connection[Any]) -> tuple[str, str]:
    """The isolation level and `on` or `off` for read-only, as the server has them now."""
    row = conn.execute("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")
    found: tuple[str, str] = row.fetchone()  # type: ignore[assignment]
    return found


@pytest.fixture
def table(pg: PgServer) -> Callable[[], list[int]]:
    """Make the table `t`; what is committed in it."""
    pg.query("CREATE TABLE t (x int)")
    return lambda: [row[0] for row in pg.query("SELECT x FROM t ORDER BY x")]


# -- between two leases --------------------------------------------------------------------------------------


def test_what_a_lease_leaves_is_gone_for_the_next_and_what_belongs_to_the_worker_stays(postgres: StartPool) -> None:
    def configure(conn: psycopg.Connection[Any]) -> None:
        conn.execute("SET search_path = pg_catalog")

    worker_args = {"configure": configure, "statement_timeout": 7.5, "prepare_threshold": 0}
    pool = postgres(worker_args=worker_args, size=1)
    session = pool.run(backend)
    with pool.checkout() as lease:
        lease.execute("SELECT 1 AS mine")
        lease.execute("SET work_mem = '7MB'")
        lease.execute("SET search_path = public")
        lease.execute("SET statement_timeout = 0")
        lease.execute("CREATE TEMP TABLE mine (x int)")
        lease.execute("SELECT pg_advisory_lock(42)")
        lease.begin()
        lease.execute("SELECT 1")
    with pool.checkout() as lease:
        assert lease.run(backend) == session
        assert lease.execute("SHOW work_mem").scalar() != "7MB"
        assert lease.execute("SELECT to_regclass('pg_temp.mine')").scalar() is None
        assert lease.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").scalar() == 0
        assert not lease.run(lambda conn: conn.info.transaction_status)
        assert lease.execute("SHOW search_path").scalar() == "pg_catalog"
        assert lease.execute("SHOW statement_timeout").scalar() == "7500ms"
        query = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT 1 AS mine%'"
        assert lease.execute(query).scalar() == 1


def test_a_transaction_that_is_left_open_is_rolled_back_with_a_warning(
    pg: PgServer, table: Callable[[], list[int]], tmp_path: Path, eventually: Eventually
) -> None:
    log = tmp_path / "node.log"
    with actorpool.start(log_file=str(log), log_level="CRITICAL") as system:
        args = {"conninfo": pg.dsn}
        pool = system.start_pool("db", worker="actorpool.workers:PostgresWorker", worker_args=args, size=1)
        with pool.checkout() as lease:
            lease.begin()
            lease.execute("INSERT INTO t VALUES (1)")
        assert pool.execute("SELECT count(*) FROM t").scalar() == 0
        eventually(lambda: "rolled back a transaction that its lease left open" in log.read_text())
    assert table() == []


def test_a_clean_hand_over_costs_no_round_trip(proxy: Proxy, through: StartPool, eventually: Eventually) -> None:
    pool = through(worker_args={"prepare_threshold": None}, size=1, check_on_checkout=None)
    with pool.checkout() as lease:
        lease.execute("SELECT 1")
        carried = proxy.carried
        lease.execute("SELECT 1")
        one_call = proxy.carried - carried
    carried = proxy.carried
    for _ in range(10):
        with pool.checkout() as lease:
            lease.execute("SELECT 1")
    eventually(lambda: pool.status().checkins == 11)
    assert proxy.carried - carried == 10 * one_call, "nothing but the calls themselves"


def test_clear_cache_reaches_every_worker_and_those_in_a_lease_before_their_next_call(postgres: StartPool) -> None:
    pool = postgres(worker_args={"prepare_threshold": 0}, size=3)
    # The protocol's own statements are listed as well; what is asked is not prepared itself.
    count = "SELECT count(*) FROM pg_prepared_statements"

    def prepared(conn: psycopg.Connection[Any]) -> int:
        with psycopg.ClientCursor(conn) as cursor:
            return int(cursor.execute(count).fetchone()[0])  # type: ignore[index]

    leases = [pool.checkout() for _ in range(3)]
    for lease in leases:
        lease.execute("SELECT 1")
        assert lease.run(prepared) == 1
    leases.pop().checkin()
    pool.clear_cache()
    assert [lease.run(prepared) for lease in leases] == [0, 0]
    leases.append(pool.checkout())
    assert leases[-1].run(prepared) == 0
    assert [lease.stats()["cache_size"] for lease in leases] == [0, 0, 0]
    assert leases[0].execute("SELECT 1").scalar() == 1
    for lease in leases:
        lease.checkin()


def test_a_lease_in_the_middle_of_a_call_clears_its_cache_after_it(
    pg: PgServer, postgres: StartPool, eventually: Eventually
) -> None:
    pool = postgres(worker_args={"prepare_threshold": 0}, size=1)
    with pool.checkout() as lease:
        thread = threading.Thread(target=lease.execute, args=("SELECT pg_sleep(0.3)",))
        thread.start()
        eventually(pg.running)
        pool.clear_cache()
        thread.join()
        assert lease.stats()["cache_size"] == 0


def test_figures_of_every_worker_are_gathered(postgres: StartPool) -> None:
    pool = postgres(worker_args={"prepare_threshold": 0}, size=2)
    with pool.checkout() as one, pool.checkout() as other:
        for _ in range(3):
            one.execute("SELECT 1")
        with pytest.raises(psycopg.errors.UndefinedTable):
            other.execute("SELECT * FROM nowhere")
        found = pool.worker_stats()
        assert set(found) == {one.worker_id, other.worker_id}
        first = found[one.worker_id]
    assert (first["queries_executed"], first["cache_hits"], first["cache_misses"], first["errors"]) == (3, 2, 1, 0)
    assert found[other.worker_id]["errors"] == 1
    assert first["connections_created"] == 1
    assert 0 < first["uptime"] < 60


# -- calls that are ended --------------------------------------------------------------------------------------


def test_a_call_that_times_out_leaves_no_statement_running_on_the_server(
    pg: PgServer, postgres: StartPool, eventually: Eventually
) -> None:
    pool = postgres(size=1)
    session, process = pool.run(backend), pool.workers()[0].pid
    with pytest.raises(CallTimeout):
        pool.call("execute", "SELECT pg_sleep(60)", call_timeout=0.2)
    eventually(lambda: not [text for text in pg.running() if "pg_sleep" in text], timeout=2)
    assert pool.run(backend) == session, "cancelled, not replaced"
    assert pool.workers()[0].pid == process


def test_a_lease_whose_call_timed_out_is_over(postgres: StartPool) -> None:
    pool = postgres(size=1)
    with pool.checkout() as lease:
        lease.execute("CREATE TEMP TABLE mine (x int)")
        with pytest.raises(CallTimeout):
            lease.call("execute", "SELECT pg_sleep(60)", call_timeout=0.2)
        with pytest.raises(LeaseExpired):
            lease.execute("SELECT 1")
    assert pool.execute("SELECT to_regclass('pg_temp.mine')").scalar() is None


def test_a_cancelled_task_leaves_no_statement_running_on_the_server(
    pg: PgServer, postgres: StartPool, eventually: Eventually
) -> None:
    pool = postgres(size=1)
    session = pool.run(backend)

    async def main() -> None:
        task = asyncio.create_task(pool.aio.execute("SELECT pg_sleep(60)"))
        while not pg.running():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    eventually(lambda: not pg.running(), timeout=2)
    assert pool.run(backend) == session


# -- transactions ------------------------------------------------------------------------------------------------


def test_a_transaction_commits_at_its_end_and_rolls_back_on_any_exception(
    postgres: StartPool, table: Callable[[], list[int]]
) -> None:
    pool = postgres()
    assert pool.transaction(insert, 1) == 1
    with pool.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (2)")
        assert table() == [1], "not before its end"
    for error in (ZeroDivisionError(), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)):
            pool.transaction(insert, 3, then=error)
        with pytest.raises(type(error)), pool.transaction() as tx:
            tx.run(insert, 3)
            raise error
    with pytest.raises(psycopg.errors.DivisionByZero), pool.transaction() as tx:
        tx.run(insert, 3)
        tx.execute("SELECT 1/0")
    assert pool.transaction(insert, 3, then=Rollback("no more")) == "no more"
    assert table() == [1, 2]
    assert pool.status().monitors == 0


def test_a_transaction_that_failed_and_was_swallowed_is_not_committed_in_silence(
    postgres: StartPool, table: Callable[[], list[int]]
) -> None:
    pool = postgres()
    with pytest.raises(psycopg.errors.InFailedSqlTransaction, match="rolled back instead"), pool.transaction() as tx:
        tx.run(insert, 1)
        with pytest.raises(psycopg.errors.DivisionByZero):
            tx.execute("SELECT 1/0")
    assert table() == []
    assert pool.execute("SELECT 1").scalar() == 1


def test_isolation_and_read_only_are_options_of_both_forms(postgres: StartPool, table: Callable[[], list[int]]) -> None:
    pool = postgres()
    assert pool.transaction(levels) == ("read committed", "off")
    assert pool.transaction(levels, isolation="serializable") == ("serializable", "off")
    assert pool.transaction(levels, isolation="repeatable read", read_only=True) == ("repeatable read", "on")
    with pool.transaction(isolation="serializable", read_only=True, deferrable=True) as tx:
        assert tx.run(levels) == ("serializable", "on")
        assert tx.execute("SHOW transaction_deferrable").scalar() == "on"
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        pool.transaction(insert, 1, read_only=True)
    with pytest.raises(ValueError, match="isolation must be one of"):
        pool.transaction(insert, 1, isolation="perfect")
    with pytest.raises(ValueError, match="isolation must be one of"), pool.transaction(isolation="perfect"):
        pass
    assert pool.run(levels) == ("read committed", "off"), "nothing of it is left"
    assert table() == []
    assert pool.status().monitors == 0

    async def main() -> None:
        assert await pool.aio.transaction(levels, isolation="serializable") == ("serializable", "off")
        async with pool.aio.transaction(isolation="repeatable read", read_only=True) as tx:
            assert await tx.run(levels) == ("repeatable read", "on")

    asyncio.run(main())


def test_a_serialization_failure_arrives_as_such_and_nothing_is_run_twice(
    postgres: StartPool, table: Callable[[], list[int]]
) -> None:
    pool = postgres()
    pool.execute("INSERT INTO t VALUES (1)")
    with pool.transaction(isolation="serializable") as one, pool.transaction(isolation="serializable") as other:
        for tx in (one, other):
            tx.execute("SELECT sum(x) FROM t")
        one.execute("INSERT INTO t VALUES (2)")
        one.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("INSERT INTO t VALUES (3)")
        other.rollback()
    assert table() == [1, 2]


def test_transactions_nest_as_savepoints(postgres: StartPool, table: Callable[[], list[int]]) -> None:
    pool = postgres()
    with pool.transaction() as tx:
        tx.run(insert, 1)
        tx.begin()
        tx.run(insert, 2)
        tx.begin()
        tx.run(insert, 3)
        tx.rollback()
        tx.commit()
        with pytest.raises(ZeroDivisionError):
            tx.transact(insert, (4, ZeroDivisionError()))
        tx.transact(insert, (5,))
    assert table() == [1, 2, 5]


def test_a_cancelled_task_rolls_its_transaction_back(
    postgres: StartPool, table: Callable[[], list[int]], eventually: Eventually
) -> None:
    pool = postgres(size=1)

    async def inside(entered: asyncio.Event, forever: Callable[[Any], Any]) -> None:
        async with pool.aio.transaction() as tx:
            await tx.run(insert, 1)
            entered.set()
            await forever(tx)

    async def cancelled(forever: Callable[[Any], Any]) -> None:
        entered = asyncio.Event()
        task = asyncio.create_task(inside(entered, forever))
        await entered.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled(lambda tx: asyncio.sleep(60)))
    asyncio.run(cancelled(lambda tx: tx.execute("SELECT pg_sleep(60)")))
    assert pool.execute("SELECT count(*) FROM t").scalar() == 0
    assert table() == []
    eventually(lambda: pool.status().monitors == 0)


CALLER = """
import base64, pickle, sys, time
pool = pickle.loads(base64.b64decode(sys.argv[1]))
with pool.transaction() as tx:
    tx.execute("INSERT INTO t VALUES (1)")
    print("in", flush=True)
    if sys.argv[2] == "busy":
        tx.execute("SELECT pg_sleep(60)")
    time.sleep(60)
"""


@pytest.fixture
def caller() -> Iterator[Callable[[actorpool.Pool, str], subprocess.Popen[str]]]:
    """Start a process that is in a transaction, `"idle"` or `"busy"` with a statement."""
    started: list[subprocess.Popen[str]] = []

    def begin(pool: actorpool.Pool, how: str) -> subprocess.Popen[str]:
        packed = base64.b64encode(pickle.dumps(pool)).decode()
        process = subprocess.Popen([sys.executable, "-c", CALLER, packed, how], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", ["idle", "busy"])
def test_the_transaction_of_a_killed_caller_is_rolled_back_on_the_server_at_once(
    how: str, pg: PgServer, postgres: StartPool, table: Callable[[], list[int]], caller: Any, eventually: Eventually
) -> None:
    pool = postgres(size=1)
    session = pool.run(backend)
    process = caller(pool, how)
    state = "SELECT state, query FROM pg_stat_activity WHERE pid = %s"
    with psycopg.connect(pg.dsn, autocommit=True) as watch:
        wanted = {"idle": "idle in transaction", "busy": "active"}[how]
        eventually(lambda: watch.execute(state, [session]).fetchone()[0] == wanted)  # type: ignore[index]
        process.kill()
        killed = time.perf_counter()
        eventually(lambda: watch.execute(state, [session]).fetchone()[0] == "idle", every=0.001)  # type: ignore[index]
        took = time.perf_counter() - killed
    print(f"caller killed, {how} in a transaction: rolled back on the server after {took * 1e3:.1f} ms (goal 200)")
    assert took < 1.0, "the machine may be busy"
    assert table() == []
    assert pool.run(backend) == session
    assert pool.status().restarts == 0


# -- size, passwords -----------------------------------------------------------------------------------------------


def test_auto_size_is_the_share_of_the_server(pg: PgServer, postgres: StartPool) -> None:
    most, *reserved = (
        int(pg.query(f"SHOW {name}")[0][0])
        for name in ("max_connections", "superuser_reserved_connections", "reserved_connections")
    )
    pool = postgres(worker_args={"nodes": 32}, size="auto", checkout_timeout=20.0)
    assert pool.status().size == actorpool.pool_size(most, sum(reserved), 32) == len(pool.workers())
    assert pool.execute("SELECT 1").scalar() == 1


def test_a_password_that_rotates_is_asked_for_at_every_connect(
    pg: PgServer, start: StartPool, tmp_path: Path, eventually: Eventually
) -> None:
    file = tmp_path / "password"
    way = pg.parameters(user="guarded", dbname="postgres")

    def conninfo() -> dict[str, Any]:
        return {**way, "password": file.read_text()}

    def rotate(word: str) -> None:
        pg.query(f"ALTER ROLE guarded PASSWORD '{word}'")
        file.write_text(word)

    assert pg.directory  # its pg_hba.conf asks this role for a password
    pg.query("CREATE ROLE guarded LOGIN")
    try:
        rotate("first")
        pool = start("actorpool.workers:PostgresWorker", worker_args={"conninfo": conninfo}, backoff_max=0.2)
        session = pool.run(backend)
        rotate("second")
        pool.recycle(timeout=10)
        assert pool.run(backend) != session
        pg.query("ALTER ROLE guarded PASSWORD 'third'")  # the file says so later
        pg.kill_backend(*backends(pool, 2))
        with pytest.raises(actorpool.WorkerUnavailable, match="authentication failed") as caught:
            pool.call("execute", "SELECT 1", checkout_timeout=0.3)
        assert "second" not in f"{caught.value} {caught.value.cause!r}"
        file.write_text("third")
        eventually(lambda: pool.status().state == "ready")
        assert pool.execute("SELECT current_user").scalar() == "guarded"
    finally:
        pg.query("DROP ROLE guarded")
