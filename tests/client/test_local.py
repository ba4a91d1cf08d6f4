"""`LocalPool` keeps the promises of `Pool`: most tests here run against both."""

from __future__ import annotations

import asyncio
import os
import pickle
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorpool import LocalPool, PoolConfig
from actorpool.errors import (
    ActorPoolError,
    CheckoutTimeout,
    InvalidConfig,
    LeaseExpired,
    MethodNotFound,
    PermanentError,
    PoolNotFound,
    RemoteError,
    WorkerUnavailable,
)
from actorpool.workers import EchoWorker, PostgresWorker, RetryAfter, Rollback, SqliteWorker, Worker, method


class Fussy(Worker):
    """Connects when the file is there."""

    def __init__(self, file: str) -> None:
        self.file = file

    def open(self) -> None:
        if not os.path.exists(self.file):
            raise RetryAfter(0.02, "not yet")

    @method
    def hello(self) -> str:
        return "hello"


class Homeless(Exception):
    """An exception that cannot travel."""

    def __init__(self) -> None:
        super().__init__("stuck")
        self.lock = threading.Lock()


def homeless(conn: Any) -> None:
    raise Homeless


def insert(conn: sqlite3.Connection, number: int) -> int:
    conn.execute("INSERT INTO t VALUES (?)", [number])
    return number


def insert_and_think_better(conn: sqlite3.Connection, error: BaseException) -> None:
    insert(conn, 1)
    raise error


@pytest.fixture
def config(tmp_path: Path) -> PoolConfig:
    return PoolConfig(worker=SqliteWorker, worker_args={"database": str(tmp_path / "app.db")}, size=2)


@pytest.fixture(params=["local", "actors"])
def db(request: pytest.FixtureRequest, config: PoolConfig) -> Iterator[Any]:
    """A pool of SQLite connections with an empty table `t`."""
    if request.param == "local":
        pool: Any = LocalPool(config, "db")
        stop = pool.close
    else:
        system = request.getfixturevalue("system")
        pool = system.start_pool("db", config)
        stop = lambda: system.stop_pool("db")  # noqa: E731
    pool.execute("CREATE TABLE t (x)")
    yield pool
    stop()


def rows(db: Any) -> list[int]:
    return [row[0] for row in db.execute("SELECT x FROM t ORDER BY x")]


# -- the same as a pool ------------------------------------------------------------------------------------


def test_calls_functions_and_attributes(db: Any) -> None:
    assert db.run(insert, 1) == 1
    assert db.with_connection(lambda conn, number: insert(conn, number), number=2) == 2
    assert db.call("execute", "SELECT count(*) FROM t").scalar() == 2
    assert db.execute("SELECT max(x) FROM t").scalar() == 2


def test_a_lease_keeps_its_session(db: Any) -> None:
    with db.checkout(timeout=5) as lease:
        lease.execute("CREATE TEMP TABLE mine (x)")
        lease.run(lambda conn: conn.execute("INSERT INTO mine VALUES (1)").rowcount)
        assert lease.execute("SELECT * FROM mine").rows == [(1,)]
        assert [info.id for info in db.leases()] == [lease.id]
        assert db.status().monitors == 1
        assert not lease.closed
    assert lease.closed
    with pytest.raises(LeaseExpired):
        lease.execute("SELECT 1")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        db.execute("SELECT * FROM mine")


def test_checking_in_what_is_no_lease_of_the_pool_is_a_value_error(db: Any, config: PoolConfig) -> None:
    lease = db.checkout()
    db.checkin(lease)
    with pytest.raises(ValueError, match="has ended"):
        db.checkin(lease)
    other = LocalPool(config)
    with other.checkout() as foreign, pytest.raises(ValueError, match="no lease of this pool"):
        db.checkin(foreign)


def test_transactions_in_both_forms(db: Any) -> None:
    assert db.transaction(insert, 1) == 1
    with db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (2)")
    with pytest.raises(ZeroDivisionError):
        db.transaction(insert_and_think_better, ZeroDivisionError())
    with pytest.raises(KeyError), db.transaction() as tx:
        tx.run(insert_and_think_better, KeyError())
    with db.transaction() as tx:
        tx.run(insert_and_think_better, Rollback())
    assert db.transaction(insert_and_think_better, Rollback("fine")) == "fine"
    with pytest.raises(sqlite3.OperationalError, match="readonly"), db.transaction(read_only=True) as tx:
        tx.execute("INSERT INTO t VALUES (5)")
    assert rows(db) == [1, 2]


def test_a_transaction_can_be_ended_from_inside(db: Any) -> None:
    with db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1)")
        tx.rollback()
        with pytest.raises(ActorPoolError, match="leave the block"):
            tx.execute("INSERT INTO t VALUES (2)")
    with db.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (3)")
        tx.begin()
        tx.execute("INSERT INTO t VALUES (4)")
        tx.rollback()
        tx.commit()
    assert rows(db) == [3]

    async def main() -> None:
        async with db.aio.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (5)")
            await tx.rollback()

    asyncio.run(main())
    assert rows(db) == [3]


def test_results_are_streamed(db: Any) -> None:
    db.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(7)])
    with db.checkout() as lease:
        assert list(lease.iterate("SELECT x FROM t ORDER BY x", None, 3)) == [(number,) for number in range(7)]


def test_errors_arrive_with_their_type_and_the_workers_traceback(db: Any) -> None:
    with pytest.raises(sqlite3.OperationalError, match="nowhere") as caught:
        db.execute("SELECT * FROM nowhere")
    assert "sqlite.py" in caught.value.remote_traceback  # type: ignore[attr-defined]
    with pytest.raises(MethodNotFound, match="frobnicate"):
        db.frobnicate()
    with pytest.raises(RemoteError, match="stuck"):
        db.run(homeless)


def test_what_cannot_travel_is_an_error_of_that_call_only(db: Any) -> None:
    with pytest.raises(TypeError, match="pickle"):
        db.run(lambda conn: conn)
    with pytest.raises(TypeError, match="pickle"):
        db.run(lambda conn, lock: None, threading.Lock())
    assert db.execute("SELECT 1").scalar() == 1


def test_arguments_and_results_are_copies(db: Any) -> None:
    given = [1]
    returned = db.run(lambda conn, values: (values.append(2), values)[1], given)
    assert (given, returned) == ([1], [1, 2])


def test_a_dropped_lease_is_given_back_with_a_warning(db: Any, eventually: Any) -> None:
    lease = db.checkout()
    lease.execute("SELECT 1")
    with pytest.warns(ResourceWarning, match="dropped while open"):
        del lease
    eventually(lambda: db.status().monitors == 0)


def test_suspend_resume_and_drain(db: Any, eventually: Any) -> None:
    db.suspend()
    assert db.status().state == "suspended"
    with pytest.raises(CheckoutTimeout) as caught:
        db.call("execute", "SELECT 1", checkout_timeout=0.05)
    assert caught.value.pool == "db"
    assert (caught.value.waited or 0) >= 0.05
    threading.Timer(0.1, db.resume).start()
    assert db.execute("SELECT 1").scalar() == 1
    lease = db.checkout()
    threading.Timer(0.1, lease.checkin).start()
    begun = time.monotonic()
    db.drain(5)
    assert 0.05 < time.monotonic() - begun < 4
    db.resume()
    db.resize(3)
    db.recycle()
    db.clear_cache()
    assert db.execute("SELECT 1").scalar() == 1


def test_drain_takes_idle_leases_back_at_its_deadline(db: Any) -> None:
    lease = db.checkout()
    lease.execute("SELECT 1")
    db.drain(0.1)
    with pytest.raises(LeaseExpired):
        lease.execute("SELECT 1")
    lease.checkin()
    db.resume()


def test_threads_share_a_pool(db: Any) -> None:
    def work(number: int) -> None:
        for index in range(5):
            db.transaction(insert, number * 10 + index)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(db) == sorted(number * 10 + index for number in range(4) for index in range(5))


def test_the_same_verbs_for_asyncio(db: Any) -> None:
    async def main() -> None:
        aio = db.aio
        await aio.transaction(insert, 1)
        async with aio.checkout() as lease:
            await lease.execute("INSERT INTO t VALUES (2)")
        with pytest.raises(KeyError):
            async with aio.transaction() as tx:
                await tx.run(insert_and_think_better, KeyError())
        assert (await aio.execute("SELECT count(*) FROM t")).scalar() == 2
        assert (await aio.status()).monitors == 0

    asyncio.run(main())


# -- of its own ----------------------------------------------------------------------------------------------


def test_start_pool_gives_one_when_pooling_is_off(system: Any, config: PoolConfig) -> None:
    pool = system.start_pool("off", config, enabled=False)
    assert isinstance(pool, LocalPool)
    assert pool.run(lambda conn: os.getpid()) == os.getpid()
    assert system.pool("off") is pool
    assert system.status("off").name == "off"
    system.stop_pool("off")
    with pytest.raises(PoolNotFound):
        pool.execute("SELECT 1")


def test_each_call_has_a_connection_of_its_own_and_none_is_kept(config: PoolConfig) -> None:
    pool = LocalPool(config)
    first, second = pool.checkout(), pool.checkout()
    assert first.stats()["connections_created"] == second.stats()["connections_created"] == 1
    assert pool.status().total == 2
    assert len(pool.workers()) == len(pool.worker_stats()) == 2
    first.checkin()
    second.checkin()
    assert pool.status().total == 0
    assert pool.metrics().samples == ()


def test_a_resource_that_is_away_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "there"
    pool = LocalPool(PoolConfig(worker=Fussy, worker_args={"file": str(file)}, checkout_timeout=5.0))
    assert pool.status().state == "degraded"
    timer = threading.Timer(0.1, file.touch)
    timer.start()
    assert pool.hello() == "hello"
    timer.join()
    assert pool.status().state == "ready"
    file.unlink()
    with pytest.raises(WorkerUnavailable, match="not yet") as caught:
        pool.call("hello", checkout_timeout=0.1)
    assert isinstance(caught.value.cause, RetryAfter)


def test_what_is_wrong_for_good_is_said_when_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no directory"):
        LocalPool(PoolConfig(worker=SqliteWorker, worker_args={"database": str(tmp_path / "no" / "x.db")}))
    with pytest.raises(InvalidConfig, match="database"):
        LocalPool(PoolConfig(worker=SqliteWorker, worker_args={"database": ""}))


def test_a_lost_connection_ends_what_the_lease_was_doing(pg: Any) -> None:
    pool = LocalPool(PoolConfig(worker=PostgresWorker, worker_args={"conninfo": pg.dsn}))
    with pool.checkout() as lease:
        pg.kill_backend(lease.execute("SELECT pg_backend_pid()").scalar())
        with pytest.raises(Exception, match="terminating connection"):
            lease.execute("SELECT 1")
        with pytest.raises(WorkerUnavailable):
            lease.execute("SELECT 1")
    assert pool.execute("SELECT 1").scalar() == 1


def test_a_transaction_left_open_is_said(config: PoolConfig, caplog: pytest.LogCaptureFixture) -> None:
    pool = LocalPool(config)
    with pool.checkout() as lease:
        lease.begin()
    assert "rolled back a transaction" in caplog.text


def test_an_exit_of_a_with_block_closes_the_pool(config: PoolConfig) -> None:
    with LocalPool(config) as pool:
        lease = pool.checkout()
    with pytest.raises(LeaseExpired):
        lease.execute("SELECT 1")
    with pytest.raises(PoolNotFound, match="was closed"):
        pool.status()
    lease.checkin()


def test_a_pickled_copy_is_a_pool_of_its_own(config: PoolConfig) -> None:
    pool = LocalPool(config, "mine")
    copy = pickle.loads(pickle.dumps(pool))
    assert copy.execute("SELECT 1").scalar() == 1
    assert repr(copy) == "<local pool 'mine' of SqliteWorker>"


def test_a_forked_child_leaves_the_parents_leases_alone() -> None:
    pool = LocalPool(PoolConfig(worker=EchoWorker))
    with pool.checkout() as lease:
        lease.echo(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads about: that is the point
            pid = os.fork()
        if pid == 0:
            try:
                fine = lease.closed and pool.status().monitors == 0 and pool.echo(2) == 2
                os._exit(0 if fine else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert lease.echo(3) == 3
