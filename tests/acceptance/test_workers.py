"""Workers outside a pool, the hooks in their order, and SQLite and Echo as shipped."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from thespian.actors import Actor, ActorExitRequest

import actorpool
from actorpool import Call, CallTimeout, Err, MethodNotFound, Ok
from actorpool.workers import SqliteWorker, Worker, WorkerActor, method, spawn_worker
from tests.acceptance import kit


class Host(Actor):
    """Embeds a worker of its own: no pool anywhere."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if message == "go":
            self.asker = sender
            self.worker = spawn_worker(self, SqliteWorker, database=":memory:")
            self.send(self.worker, Call(None, "execute", ("select 40 + 2",)))
        elif isinstance(message, Ok):
            self.send(self.asker, message.value.rows)
        elif isinstance(message, Err):
            self.send(self.asker, repr(message.error))


def test_a_worker_is_embedded_without_a_pool(node: actorpool.System) -> None:
    asys = node.actor_system
    address = spawn_worker(asys, SqliteWorker, database=":memory:")
    answer = asys.ask(address, Call(None, "execute", ("select 1",)), 10)
    assert answer.unwrap().rows == [(1,)]
    missing = asys.ask(address, Call(None, "no_such_method"), 10)
    assert isinstance(missing.error, MethodNotFound)
    failing = asys.ask(address, Call(None, "execute", ("select from nowhere",)), 10)
    with pytest.raises(sqlite3.OperationalError):
        failing.unwrap()
    assert asys.ask(address, Call(None, "execute", ("select ?", (5,))), 10).unwrap().rows == [(5,)]
    asys.tell(address, ActorExitRequest())


def test_an_embedded_worker_whose_init_fails_answers_with_the_reason(node: actorpool.System) -> None:
    asys = node.actor_system
    address = spawn_worker(asys, kit.FailsInInit)
    for _ in range(2):
        with pytest.raises(ValueError, match="no such option"):
            asys.ask(address, Call(None, "echo"), 10).unwrap()
    asys.tell(address, ActorExitRequest())


def test_an_actor_embeds_a_worker_of_its_own(node: actorpool.System, eventually: Callable[..., Any]) -> None:
    asys = node.actor_system
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    host = asys.createActor(Host)
    assert asys.ask(host, "go", 10) == [(42,)]
    started = {p.pid for p in psutil.Process().children(recursive=True)} - before
    assert len(started) == 2
    asys.tell(host, ActorExitRequest())
    eventually(lambda: not [pid for pid in started if psutil.pid_exists(pid)])


def test_a_killed_actor_takes_its_embedded_worker_along(node: actorpool.System, eventually: Callable[..., Any]) -> None:
    asys = node.actor_system
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    host = asys.createActor(Host)
    assert asys.ask(host, "go", 10) == [(42,)]
    started = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    parent = next(p for p in started if p.children())
    os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: not [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE])


def test_an_embedded_worker_that_is_not_there_now_answers_with_the_cause(
    node: actorpool.System, tmp_path: Path
) -> None:
    asys = node.actor_system
    gate = tmp_path / "gate"
    address = spawn_worker(asys, kit.Gate, gate=str(gate))
    answer = asys.ask(address, Call(None, "echo", (1,)), 10)
    assert isinstance(answer, Err)
    assert "nobody listens there" in str(answer.error)
    gate.touch()
    deadline = time.monotonic() + 5
    while isinstance(asys.ask(address, Call(None, "echo", (1,)), 10), Err) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert asys.ask(address, Call(None, "echo", (2,)), 10).unwrap() == 2
    asys.tell(address, ActorExitRequest())


def test_the_worker_actor_is_a_thespian_actor_and_worker_a_plain_class() -> None:
    assert issubclass(WorkerActor, Actor)
    assert not issubclass(Worker, Actor)
    plain = Worker()
    assert plain.connection is plain
    assert (plain.open(), plain.check(), plain.reset(), plain.close()) == (None, None, None, None)


def test_the_hooks_run_in_their_order_in_the_workers_process(
    pool: Callable[..., actorpool.Pool], journal: Path
) -> None:
    p = pool(worker_args={"journal": str(journal)}, check_on_checkout=0.0, health_interval=None)
    pid = p.pid()
    time.sleep(0.02)  # idle for longer than nothing
    p.echo(2)
    lines = [line.split() for line in journal.read_text().splitlines()]
    assert {int(line[1]) for line in lines} == {pid}
    assert lines[0][0] == "open"
    assert "check" in [line[0] for line in lines]


class ResetFails(Worker):
    resets = 0

    def reset(self) -> None:
        raise RuntimeError("cannot be cleaned")

    @method
    def pid(self) -> int:
        return os.getpid()


def test_a_worker_whose_reset_fails_gets_a_new_connection_and_serves_on(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(ResetFails, backoff_min=0.01)
    assert p.pid() == p.pid()
    with p.checkout() as lease:
        assert lease.pid()
    assert p.pid() > 0


class CloseFails(Worker):
    def close(self) -> None:
        raise RuntimeError("cannot be closed")

    @method
    def pid(self) -> int:
        return os.getpid()


class CloseHangs(Worker):
    def close(self) -> None:
        time.sleep(60)

    @method
    def pid(self) -> int:
        return os.getpid()


@pytest.mark.parametrize("worker", [CloseFails, CloseHangs])
def test_a_worker_whose_close_fails_or_hangs_is_gone_all_the_same(
    node: actorpool.System, pool: Callable[..., actorpool.Pool], worker: Any
) -> None:
    p = pool(worker, kill_after=0.3)
    pid = p.pid()
    started = time.monotonic()
    node.stop_pool(p.name, timeout=1)
    assert time.monotonic() - started < 5
    assert not psutil.pid_exists(pid)


class OpenHangs(Worker):
    def open(self) -> None:
        time.sleep(60)


def test_a_worker_whose_open_hangs_does_not_hang_the_start(
    node: actorpool.System, pool: Callable[..., actorpool.Pool]
) -> None:
    started = time.monotonic()
    p = pool(OpenHangs, checkout_timeout=0.5, kill_after=0.3)
    assert time.monotonic() - started < 3
    with pytest.raises((actorpool.CheckoutTimeout, actorpool.WorkerUnavailable)):
        p.run(kit.pid_of)
    node.stop_pool(p.name, timeout=0.2)


class Base(Worker):
    @method
    def first(self) -> str:
        return "first"

    @method
    def shared(self) -> str:
        return "base"


class Derived(Base):
    @method
    def second(self) -> str:
        return "second"

    @method
    def shared(self) -> str:
        return "derived"


def test_methods_are_inherited_and_overridden_as_in_any_class(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(Derived)
    assert (p.first(), p.second(), p.shared()) == ("first", "second", "derived")


def test_user_code_may_print_log_start_threads_and_run_programs(pool: Callable[..., actorpool.Pool]) -> None:
    assert pool().run(do_many_things) == "done"


def do_many_things(_connection: Any) -> str:
    import logging
    import subprocess

    logging.getLogger("mine").info("something")
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert subprocess.run(["true"], check=False).returncode == 0
    return "done"


def test_sqlite_executes_and_gives_columns_rows_and_a_count(
    pool: Callable[..., actorpool.Pool], tmp_path: Path
) -> None:
    p = pool(SqliteWorker, worker_args={"database": str(tmp_path / "a.db")}, size=2)
    p.execute("create table t (x int, y text)")
    done = p.execute("insert into t values (?, ?)", (1, "one"))
    assert done.rowcount == 1
    done = p.executemany("insert into t values (?, ?)", [(2, "two"), (3, "three")])
    assert done.rowcount == 2
    found = p.execute("select x, y from t order by x")
    assert list(found.columns) == ["x", "y"]
    assert found.rows == [(1, "one"), (2, "two"), (3, "three")]
    assert p.execute("select x from t where y = :y", {"y": "two"}).rows == [(2,)]
    assert p.run(kit.count, "t") == 3
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        p.execute("select * from nowhere")
    with pytest.raises(sqlite3.IntegrityError):
        p.execute("create unique index u on t (x)") and p.execute("insert into t values (1, 'again')")


def test_sqlite_commits_by_itself_outside_a_transaction(pool: Callable[..., actorpool.Pool], tmp_path: Path) -> None:
    p = pool(SqliteWorker, worker_args={"database": str(tmp_path / "a.db")})
    p.execute("create table t (x int)")
    with p.checkout() as lease:
        lease.execute("insert into t values (1)")
        outside = sqlite3.connect(tmp_path / "a.db")
        assert outside.execute("select count(*) from t").fetchone() == (1,)
        outside.close()


def test_sqlite_begins_commits_rolls_back_and_nests(pool: Callable[..., actorpool.Pool], tmp_path: Path) -> None:
    p = pool(SqliteWorker, worker_args={"database": str(tmp_path / "a.db")})
    p.execute("create table t (x int)")
    with p.checkout() as lease:
        lease.begin()
        lease.execute("insert into t values (1)")
        lease.begin()
        lease.execute("insert into t values (2)")
        lease.rollback()
        lease.begin()
        lease.execute("insert into t values (3)")
        lease.commit()
        lease.commit()
        assert lease.execute("select x from t order by x").rows == [(1,), (3,)]
        lease.begin()
        lease.execute("delete from t")
        lease.rollback()
    assert p.execute("select x from t order by x").rows == [(1,), (3,)]


def test_a_transaction_that_is_left_open_is_rolled_back_at_checkin(
    pool: Callable[..., actorpool.Pool], tmp_path: Path
) -> None:
    p = pool(SqliteWorker, worker_args={"database": str(tmp_path / "a.db")})
    p.execute("create table t (x int)")
    with p.checkout() as lease:
        lease.begin()
        lease.execute("insert into t values (1)")
        lease.execute("create temporary table mine (x int)")
        lease.execute("pragma foreign_keys = on")
    assert p.execute("select count(*) from t").rows == [(0,)]
    with pytest.raises(sqlite3.OperationalError):
        p.execute("select * from mine")


def test_transactions_commit_at_the_end_and_roll_back_on_an_exception(
    pool: Callable[..., actorpool.Pool], tmp_path: Path
) -> None:
    p = pool(SqliteWorker, worker_args={"database": str(tmp_path / "a.db")}, size=2)
    p.execute("create table t (x int)")
    assert p.transaction(insert, 1, extra="kept") == "kept"
    with pytest.raises(ZeroDivisionError):
        p.transaction(insert_and_fail, 2)
    with p.transaction() as tx:
        tx.execute("insert into t values (3)")
        assert tx.run(kit.count, "t") == 2
    with pytest.raises(RuntimeError, match="mine"), p.transaction() as tx:
        tx.execute("insert into t values (4)")
        raise RuntimeError("mine")
    assert p.execute("select x from t order by x").rows == [(1,), (3,)]
    assert p.status().monitors == 0


def insert(connection: Any, x: int, extra: str = "") -> str:
    connection.execute("insert into t values (?)", (x,))
    return extra


def insert_and_fail(connection: Any, x: int) -> None:
    insert(connection, x)
    raise ZeroDivisionError


def test_a_transaction_of_a_killed_caller_is_rolled_back(
    pool: Callable[..., actorpool.Pool], script: Callable[..., Any], tmp_path: Path
) -> None:
    import base64
    import pickle

    p = pool(SqliteWorker, worker_args={"database": str(tmp_path / "a.db")})
    p.execute("create table t (x int)")
    holder = script(
        "import sys, pickle, base64, time\np = pickle.loads(base64.b64decode(sys.argv[1]))\n"
        "with p.transaction() as tx:\n    tx.execute('insert into t values (1)')\n"
        "    print('in', flush=True)\n    time.sleep(60)",
        base64.b64encode(pickle.dumps(p)).decode(),
    )
    assert holder.stdout.readline() == "in\n"
    holder.kill()
    assert p.execute("select count(*) from t").rows == [(0,)]
    p.execute("insert into t values (2)")


def test_a_transaction_asks_for_a_worker_that_knows_them(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    with pytest.raises(MethodNotFound), p.transaction():
        pass
    assert p.status().monitors == 0
    assert p.echo(1) == 1


def test_sqlite_in_memory_is_private_to_each_worker(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(SqliteWorker, worker_args={"database": ":memory:"}, size=2)
    with p.checkout() as a, p.checkout() as b:
        a.execute("create table t (x int)")
        with pytest.raises(sqlite3.OperationalError):
            b.execute("select * from t")


def test_a_running_statement_of_sqlite_is_interrupted(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(SqliteWorker, worker_args={"database": ":memory:"}, kill_after=10)
    pid = p.workers()[0].pid
    endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n"
    started = time.monotonic()
    with pytest.raises(CallTimeout):
        p.call("execute", endless, call_timeout=0.2)
    assert p.execute("select 1").rows == [(1,)]
    assert time.monotonic() - started < 3
    assert p.workers()[0].pid == pid, "interrupted, not killed"
    assert p.status().restarts == 0


def test_statistics_count_and_the_cache_can_be_cleared(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(SqliteWorker, worker_args={"database": ":memory:"}, size=2)
    with p.checkout() as lease:
        for _ in range(3):
            lease.execute("select 1")
        with pytest.raises(sqlite3.OperationalError):
            lease.execute("select nonsense")
        stats = lease.stats()
    assert {"queries_executed", "cache_hits", "cache_misses", "errors"} <= set(stats)
    assert stats["queries_executed"] >= 3
    assert stats["errors"] == 1
    p.clear_cache()
    assert p.execute("select 2").rows == [(2,)]


def test_sqlite_under_writers_of_many_threads_loses_nothing(
    pool: Callable[..., actorpool.Pool], tmp_path: Path
) -> None:
    p = pool(SqliteWorker, worker_args={"database": str(tmp_path / "a.db")}, size=3, checkout_timeout=20)
    p.execute("create table t (x int)")
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda n: p.execute("insert into t values (?)", (n,)), range(120)))
    assert p.execute("select count(*), count(distinct x) from t").rows == [(120, 120)]


def test_a_database_that_cannot_be_opened_says_so(node: actorpool.System) -> None:
    with pytest.raises(actorpool.ActorPoolError):
        pool = node.start_pool(
            "nodb", worker=SqliteWorker, worker_args={"database": "/no/such/dir/x.db"}, size=1, checkout_timeout=0.3
        )
        try:
            pool.execute("select 1")
        finally:
            node.stop_pool("nodb")


def test_the_sandbox_rolls_back_what_was_done_in_it(pool: Callable[..., actorpool.Pool], tmp_path: Path) -> None:
    testing = pytest.importorskip("actorpool.testing")
    p = pool(SqliteWorker, worker_args={"database": str(tmp_path / "a.db")}, size=2)
    p.execute("create table t (x int)")
    with testing.sandbox(p) as box:
        box.execute("insert into t values (1)")
        p.execute("insert into t values (2)")
        with box.transaction() as tx:
            tx.execute("insert into t values (3)")
        with pytest.raises(RuntimeError), box.transaction() as tx:
            tx.execute("insert into t values (4)")
            raise RuntimeError
        assert box.execute("select x from t order by x").rows == [(1,), (2,), (3,)]
        assert box.run(kit.count, "t") == 3
        with p.checkout() as lease:
            assert lease.execute("select count(*) from t").rows == [(3,)]
    assert p.execute("select count(*) from t").rows == [(0,)]
    assert p.status().monitors == 0


def test_echo_is_there_for_tours(pool: Callable[..., actorpool.Pool]) -> None:
    from actorpool.workers import EchoWorker

    assert pool(EchoWorker).echo("x") == "x"
