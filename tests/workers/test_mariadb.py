"""MariaDB through `DbapiWorker` and PyMySQL: what only such a server shows, alone and in pools.

What all databases have in common is shown for MariaDB too by the tests of every SQL worker.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

import actorpool
from actorpool import CallTimeout, PermanentError, Pool, WorkerUnavailable
from actorpool.workers import DbapiWorker
from actorpool.workers.sql import iterate
from tests.workers.mariadb import MariaDb

pymysql = pytest.importorskip("pymysql", reason="no driver for MariaDB: install PyMySQL")

WORD = "hunter2"
"""The password that nobody may see."""
SESSION = "SELECT connection_id()"


@pytest.fixture
def worker(mariadb: MariaDb) -> Iterator[DbapiWorker]:
    worker = DbapiWorker("pymysql", **mariadb.parameters())
    worker.open()
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


@pytest.fixture
def start(node: actorpool.System, mariadb: MariaDb) -> Iterator[Callable[..., Pool]]:
    """Start a pool of one worker; `way` changes the connection's parameters."""

    def make(way: dict[str, Any] | None = None, **fields: Any) -> Pool:
        args = {"module_or_factory": "pymysql", **mariadb.parameters(**(way or {}))}
        fields = {"size": 1, "max_overflow": 0, "backoff_min": 0.05, "backoff_max": 0.2, **fields}
        return node.start_pool("shop", worker=DbapiWorker, worker_args=args, **fields)

    yield make
    if "shop" in node.pools():
        node.stop_pool("shop", timeout=0.5)


# -- one worker ---------------------------------------------------------------------------------------------


def test_isolation_and_read_only_are_the_servers_own(worker: DbapiWorker) -> None:
    worker.execute("CREATE TABLE t (x int PRIMARY KEY) ENGINE=InnoDB")
    worker.begin(isolation="serializable")
    worker.execute("INSERT INTO t VALUES (%s)", [1])
    worker.commit()
    worker.begin(read_only=True)
    with pytest.raises(pymysql.err.MySQLError, match="READ ONLY"):
        worker.execute("INSERT INTO t VALUES (2)")
    worker.rollback()
    worker.execute("INSERT INTO t VALUES (3)")
    assert worker.execute("SELECT x FROM t ORDER BY x").rows == [(1,), (3,)]


@pytest.mark.slow
def test_many_rows_cost_bounded_memory_without_a_cursor_of_ones_own(worker: DbapiWorker) -> None:
    process = psutil.Process(os.getpid())
    gc.collect()
    before = peak = process.memory_info().rss
    total = 0
    query = "SELECT seq, repeat('x', 500) FROM seq_1_to_200000"
    for number, (n, _) in enumerate(iterate(lambda name, *args: getattr(worker, name)(*args), query, None, 1000)):
        total += n
        if number % 20_000 == 0:
            peak = max(peak, process.memory_info().rss)
    assert total == 20_000_100_000
    assert peak - before < 32 << 20, "the rows alone are 100 MB"


def test_a_killed_session_is_a_disconnect_and_errors_of_statements_are_not(
    worker: DbapiWorker, mariadb: MariaDb
) -> None:
    mariadb.query("CREATE TABLE t (x int PRIMARY KEY) ENGINE=InnoDB")
    mariadb.query("INSERT INTO t VALUES (1)")
    other = pymysql.connect(**mariadb.parameters())
    other.cursor().execute("UPDATE t SET x = 2")
    worker.execute("SET innodb_lock_wait_timeout = 0")
    for statement in ("SELECT * FROM nowhere", "SELEKT", "UPDATE t SET x = 3", "INSERT INTO t VALUES (1)"):
        with pytest.raises(pymysql.err.MySQLError) as caught:
            worker.execute(statement)
        assert not worker.is_disconnect(caught.value), statement
    other.close()
    mariadb.kill_session(worker.execute(SESSION).scalar())
    with pytest.raises(pymysql.err.MySQLError) as caught:
        worker.execute("SELECT 1")
    assert worker.is_disconnect(caught.value)


def test_nothing_of_a_session_is_left_for_the_next_lease(worker: DbapiWorker, mariadb: MariaDb) -> None:
    mariadb.query("CREATE TABLE t (x int) ENGINE=InnoDB")
    fresh = worker.execute("SELECT @@sql_mode, @@time_zone").rows
    for statement in (
        "SET SESSION sql_mode = ''",
        "SET time_zone = '+03:00'",
        "SELECT 1 INTO @mine",
        "SELECT get_lock('lock', 0)",
        "CREATE TEMPORARY TABLE mine (x int)",
        "LOCK TABLES t WRITE",
    ):
        worker.execute(statement)
    worker.reset()
    assert worker.execute("SELECT @@sql_mode, @@time_zone").rows == fresh
    assert worker.execute("SELECT @mine, is_used_lock('lock')").rows == [(None, None)]
    with pytest.raises(pymysql.err.ProgrammingError, match="mine"):
        worker.execute("SELECT * FROM mine")
    mariadb.query("INSERT INTO t VALUES (1)")  # no lock is in the way


def test_plain_work_does_not_cost_the_session(worker: DbapiWorker) -> None:
    session = worker.execute(SESSION).scalar()
    worker.execute("CREATE TABLE t (x int)")
    worker.executemany("INSERT INTO t VALUES (%s)", [(1,), (2,)])
    worker.begin()
    worker.execute("UPDATE t SET x = 3")
    worker.reset()
    assert worker.execute("SELECT sum(x) FROM t").scalar() == 3
    assert worker.execute(SESSION).scalar() == session


# -- pools ----------------------------------------------------------------------------------------------------


def transfer(conn: Any, amount: int, fail: bool = False) -> int:
    """Runs in a worker, inside a transaction."""
    with conn.cursor() as cursor:
        cursor.execute("UPDATE account SET balance = balance - %s WHERE id = 1", [amount])
        if fail:
            raise ValueError("not enough")
        cursor.execute("UPDATE account SET balance = balance + %s WHERE id = 2", [amount])
        return int(cursor.execute("SELECT balance FROM account WHERE id = 2"))


@pytest.fixture
def bank(start: Callable[..., Pool], mariadb: MariaDb) -> Pool:
    mariadb.query("CREATE TABLE account (id int PRIMARY KEY, balance int) ENGINE=InnoDB")
    mariadb.query("INSERT INTO account VALUES (1, 100), (2, 0)")
    return start()


def balances(mariadb: MariaDb) -> list[int]:
    return [row[0] for row in mariadb.query("SELECT balance FROM account ORDER BY id")]


def test_transactions_in_both_forms_commit_or_leave_no_trace(bank: Pool, mariadb: MariaDb) -> None:
    bank.transaction(transfer, 10)
    with pytest.raises(ValueError, match="not enough"):
        bank.transaction(transfer, 10, fail=True)
    with bank.transaction(isolation="repeatable read") as tx:
        tx.execute("UPDATE account SET balance = balance - 5 WHERE id = 1")
        tx.begin()
        tx.execute("UPDATE account SET balance = 0")
        tx.rollback()
        tx.execute("UPDATE account SET balance = balance + 5 WHERE id = 2")
        assert balances(mariadb) == [90, 10], "not before it is committed"
    assert balances(mariadb) == [85, 15]


def _take_and_wait(bank: Pool, ready: Any) -> None:
    with bank.transaction() as tx:
        tx.execute("UPDATE account SET balance = 0")
        ready.set()
        time.sleep(60)


def test_the_transaction_of_a_killed_caller_is_rolled_back(bank: Pool, mariadb: MariaDb, eventually: Any) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    caller = spawn.Process(target=_take_and_wait, args=(bank, ready))
    caller.start()
    assert ready.wait(20)
    assert caller.pid is not None
    os.kill(caller.pid, signal.SIGKILL)
    caller.join()
    eventually(lambda: not mariadb.query("SELECT 1 FROM information_schema.innodb_trx"), timeout=2)
    assert balances(mariadb) == [100, 0]
    assert bank.execute("SELECT 1").scalar() == 1


def test_a_session_killed_while_idle_is_replaced_unseen(start: Callable[..., Pool], mariadb: MariaDb) -> None:
    pool = start(check_on_checkout=0.0)
    session = pool.execute(SESSION).scalar()
    mariadb.kill_session(session)
    assert pool.execute(SESSION).scalar() != session
    assert pool.status().restarts == 0


def test_a_server_that_is_away_fails_calls_with_the_cause_and_is_found_again(
    start: Callable[..., Pool], mariadb: MariaDb, proxy_to: Callable[..., Any], eventually: Any
) -> None:
    proxy = proxy_to(mariadb.address)
    pool = start({"port": proxy.port}, check_on_checkout=0.0)
    assert pool.execute("SELECT 1").scalar() == 1
    proxy.stop()
    with pytest.raises(WorkerUnavailable, match="refused") as caught:
        pool.call("execute", "SELECT 1", checkout_timeout=0.5)
    assert isinstance(caught.value.cause, pymysql.err.OperationalError)
    assert pool.status().state == "degraded"
    proxy.start()
    eventually(lambda: pool.status().state == "ready", timeout=0.2 + 1)
    assert pool.execute("SELECT 1").scalar() == 1


def test_a_server_that_was_restarted_is_found_again(
    start: Callable[..., Pool], mariadb: MariaDb, eventually: Any
) -> None:
    pool = start(check_on_checkout=0.0)
    pool.execute("CREATE TABLE t (x int) ENGINE=InnoDB")
    pool.execute("INSERT INTO t VALUES (1)")
    mariadb.stop()
    mariadb.start()
    assert pool.execute("SELECT x FROM t").scalar() == 1
    assert pool.status().restarts == 0


def test_a_call_that_times_out_costs_its_connection_and_no_process(start: Callable[..., Pool]) -> None:
    pool = start()
    process, session = pool.workers()[0].pid, pool.execute(SESSION).scalar()
    with pytest.raises(CallTimeout):
        pool.call("execute", "SELECT sleep(3)", call_timeout=0.2)
    assert pool.execute(SESSION).scalar() != session
    assert pool.workers()[0].pid == process


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"user": "guarded", "password": WORD}, "Access denied for user 'guarded'"),
        ({"database": "nowhere"}, "Unknown database 'nowhere'"),
        ({"colour": "red"}, "colour"),
    ],
    ids=["a refused login", "a missing database", "an argument nobody knows"],
)
def test_what_is_wrong_for_good_fails_the_start_and_shows_no_password(
    changed: dict[str, Any], why: str, start: Callable[..., Pool], node: actorpool.System, mariadb: MariaDb
) -> None:
    mariadb.query("CREATE USER IF NOT EXISTS guarded@'%' IDENTIFIED BY 'another'")
    with pytest.raises(PermanentError) as caught:
        start(changed)
    text = str(caught.value)
    assert "DbapiWorker pymysql" in text
    assert why in text
    assert WORD not in f"{text} {caught.value!r} {caught.value.remote_traceback} {caught.value.cause!r}"
    assert node.pools() == []


def test_a_server_that_cannot_be_reached_is_said_by_the_calls(
    start: Callable[..., Pool], free_port: int, eventually: Any
) -> None:
    pool = start({"port": free_port, "password": WORD}, checkout_timeout=0.3)
    eventually(lambda: pool.status().state == "degraded", timeout=20)  # a worker may still import its driver
    with pytest.raises(WorkerUnavailable, match="refused") as caught:
        pool.execute("SELECT 1")
    assert WORD not in f"{caught.value} {caught.value!r} {caught.value.cause!r}"
