"""`sandbox` as a test uses it: everything inside is one transaction on one worker, and gone at the end."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import actorpool
from actorpool.errors import (
    CallTimeout,
    CheckoutTimeout,
    LeaseExpired,
    MethodNotFound,
    PoolFull,
    WorkerDied,
)
from actorpool.testing import sandbox
from actorpool.workers import EchoWorker, Rollback, SqliteWorker
from tests.testing.kit import add, add_by, count, count_by, values, worker_of

StartPool = Callable[..., Any]


# -- what is done inside ------------------------------------------------------------------------------------


def test_what_is_done_inside_is_seen_inside_and_gone_afterwards(db: Any) -> None:
    with sandbox(db) as box:
        add(box, 1)
        assert box.run(add_by, 2) == 2
        box.call("execute", "INSERT INTO t VALUES (3)")
        box.transaction(add_by, 4)
        with box.transaction() as tx:
            add(tx, 5)
        with box.checkout() as lease:
            add(lease, 6)
            assert lease.run(count_by) == 6
        assert values(box) == [1, 2, 3, 4, 5, 6]
    assert count(db) == 0


def test_an_exception_inside_goes_on_and_changes_nothing(db: Any) -> None:
    with pytest.raises(ZeroDivisionError), sandbox(db) as box:
        add(box, 1)
        raise ZeroDivisionError
    assert count(db) == 0


def test_plain_calls_in_the_same_context_go_to_the_sandbox(db: Any) -> None:
    with sandbox(db) as box:
        add(db, 1)
        db.transaction(add_by, 2)
        with db.transaction() as tx:
            add(tx, 3)
        with db.checkout() as lease:
            assert lease.run(count_by) == 3
        assert count(box) == count(db) == 3
        assert db.status().monitors == 1
    assert count(db) == 0


def test_all_is_on_one_worker(sqlite: StartPool) -> None:
    db = sqlite()
    with sandbox(db) as box:
        pids = {db.run(worker_of), box.run(worker_of), box.transaction(worker_of)}
        with box.checkout() as lease, db.checkout() as within:
            pids |= {lease.worker_pid, within.worker_pid}
        assert len(pids) == 1


def test_nested_transactions_are_savepoints(db: Any) -> None:
    with sandbox(db) as box:
        with box.transaction() as outer:
            add(outer, 1)
            with pytest.raises(ZeroDivisionError), box.transaction() as inner:
                add(inner, 2)
                raise ZeroDivisionError
            with db.transaction() as inner:
                add(inner, 3)
        assert values(db) == [1, 3]
        with pytest.raises(ZeroDivisionError):
            box.transaction(add_by, 4, ZeroDivisionError())
        assert box.transaction(add_by, 5, Rollback("wished")) == "wished"
        with box.transaction() as tx:
            add(tx, 6)
            raise Rollback
    assert count(db) == 0


def test_begin_commit_and_rollback_of_a_lease_are_savepoints(db: Any) -> None:
    with sandbox(db) as box:
        with box.checkout() as lease:
            lease.begin()
            add(lease, 1)
            lease.commit()
            lease.begin()
            add(lease, 2)
            lease.rollback()
            lease.begin()
            add(lease, 3)
        assert values(box) == [1], "what a lease leaves open is rolled back"


def test_a_statement_that_fails_spoils_nothing(db: Any) -> None:
    with sandbox(db) as box:
        add(box, 1)
        for _ in range(2):
            with pytest.raises(Exception, match="nowhere"):
                db.execute("SELECT * FROM nowhere")
        assert count(db) == 1


def test_a_call_in_the_block_of_a_lease_goes_along_on_it(db: Any) -> None:
    with sandbox(db) as box, box.checkout() as lease:
        lease.begin()
        add(lease, 1)
        add(db, 2)
        with db.checkout() as within:
            add(within, 3)
        assert lease.run(count_by) == 3
        lease.rollback()
        assert count(db) == 0


def test_rows_are_streamed_as_ever(db: Any) -> None:
    with sandbox(db) as box:
        for x in range(5):
            add(box, x)
        with db.checkout() as lease:
            assert [x for (x,) in lease.iterate("SELECT x FROM t ORDER BY x", batch=2)] == [0, 1, 2, 3, 4]


def test_the_handles_other_verbs_are_those_of_the_pool(db: Any) -> None:
    with sandbox(db) as box:
        assert box.name == db.name
        assert box.status().monitors == 1
        assert len(box.leases()) == len(db.leases()) == 1
        assert "sandbox" in repr(box)
        with pytest.raises(MethodNotFound):
            box.no_such_method()
        box.clear_cache()


def test_many_sandboxes_one_after_the_other_cost_no_worker(db: Any, eventually: Callable[..., Any]) -> None:
    for x in range(12):
        with sandbox(db) as box:
            add(box, x)
            assert values(db) == [x]
    assert count(db) == 0
    assert db.status().restarts == 0
    eventually(lambda: db.status().monitors == 0)


# -- sandboxes beside each other ------------------------------------------------------------------------------


def test_two_sandboxes_do_not_see_each_other(postgres: StartPool) -> None:
    db = postgres()
    with sandbox(db) as one, sandbox(db) as other:
        add(one, 1)
        add(other, 2)
        assert (values(one), values(other), values(db)) == ([1], [2], [2])
        assert one.run(worker_of) != other.run(worker_of)
        assert db.status().monitors == 2


def test_sandboxes_may_end_in_any_order(postgres: StartPool) -> None:
    db = postgres()
    first, second = sandbox(db), sandbox(db)
    one = first.__enter__()
    other = second.__enter__()
    add(one, 1)
    add(other, 2)
    first.__exit__(None, None, None)
    assert values(db) == [2]
    second.__exit__(None, None, None)
    assert count(db) == 0


def test_each_thread_may_have_a_sandbox_of_its_own(postgres: StartPool) -> None:
    db = postgres()
    together = threading.Barrier(3)

    def work(x: int) -> list[int]:
        with sandbox(db):
            for _ in range(5):
                add(db, x)
            together.wait(10)
            return values(db)

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(work, range(3))) == [[x] * 5 for x in range(3)]
    assert count(db) == 0


def test_who_is_outside_sees_nothing_and_is_not_kept_waiting(postgres: StartPool) -> None:
    db = postgres()
    with sandbox(db), ThreadPoolExecutor(1) as threads:
        add(db, 1)
        assert threads.submit(count, db).result(10) == 0
        assert threads.submit(contextvars.copy_context().run, count, db).result(10) == 1, "a copy of the context is in"


def test_pools_that_are_not_in_the_sandbox_go_on_as_ever(start: StartPool, sqlite: StartPool) -> None:
    db, other = sqlite(), start(EchoWorker)
    with sandbox(db):
        add(db, 1)
        assert other.echo(1) == 1
        with other.checkout() as one, other.checkout() as two:
            assert one.worker_id != two.worker_id


# -- threads ----------------------------------------------------------------------------------------------------


def test_threads_take_turns_and_never_come_between_a_transaction(db: Any) -> None:
    with sandbox(db) as box, ThreadPoolExecutor(4) as threads:

        def work(number: int) -> None:
            with box.transaction() as tx:
                before = tx.run(count_by)
                for x in range(3):
                    add(tx, x)
                assert tx.run(count_by) == before + 3
                if number % 2:
                    raise Rollback
            add(box, 9)

        list(threads.map(work, range(8)))
        assert count(box) == 4 * 3 + 8


def test_a_lease_of_one_thread_keeps_the_others_waiting(db: Any, eventually: Callable[..., Any]) -> None:
    with sandbox(db) as box, ThreadPoolExecutor(2) as threads:
        with box.checkout() as lease:
            waiting = threads.submit(count, box)
            with pytest.raises(PoolFull):
                threads.submit(lambda: box.checkout(block=False)).result(10)
            with pytest.raises(CheckoutTimeout):
                threads.submit(lambda: box.run(count_by, checkout_timeout=0.1)).result(10)
            add(lease, 1)
            assert not waiting.done()
        assert waiting.result(10) == 1


def test_shared_it_holds_for_all_threads(db: Any) -> None:
    with sandbox(db, shared=True) as box, ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda x: add(db, x), range(6)))
        assert threads.submit(values, db).result(10) == list(range(6))
        assert count(box) == 6
        with pytest.raises(RuntimeError, match="shares a sandbox"), sandbox(db, shared=True):
            pass
    assert count(db) == 0
    with sandbox(db, shared=True):
        pass


def test_a_sandbox_of_ones_own_comes_before_one_that_is_shared(postgres: StartPool) -> None:
    db = postgres()
    with sandbox(db, shared=True) as box, ThreadPoolExecutor(1) as threads:
        add(box, 1)

        def work() -> list[int]:
            with sandbox(db):
                add(db, 2)
                return values(db)

        assert threads.submit(work).result(10) == [2]
        assert values(db) == [1]


def test_every_handle_of_the_pool_is_meant(node: actorpool.System, sqlite: StartPool) -> None:
    db = sqlite()
    with sandbox(db):
        add(node.pool(db.name), 1)
        assert count(db) == 1
        with sandbox(db.aio) as other:
            assert count(other) == 0


# -- ends ---------------------------------------------------------------------------------------------------------


def test_after_its_end_a_sandbox_is_of_no_more_use(db: Any, eventually: Callable[..., Any]) -> None:
    with sandbox(db) as box:
        lease = box.checkout()
        context = contextvars.copy_context()
    for use in (box.run, lease.run, lambda fn: context.run(db.run, fn)):
        with pytest.raises(LeaseExpired):
            use(count_by)
    lease.checkin()
    assert count(db) == 0
    eventually(lambda: db.status().monitors == 0)


def test_it_is_entered_once(sqlite: StartPool) -> None:
    again = sandbox(sqlite())
    with again, pytest.raises(RuntimeError, match="entered once"):
        again.__enter__()
    with pytest.raises(RuntimeError, match="entered once"):
        again.__enter__()


def test_a_call_that_takes_too_long_costs_its_turn_and_not_the_sandbox(postgres: StartPool) -> None:
    db = postgres()
    with sandbox(db) as box:
        add(box, 1)
        with pytest.raises(CallTimeout):
            box.run(lambda conn: conn.execute("SELECT pg_sleep(60)"), call_timeout=0.2)
        assert values(db) == [1]
        with pytest.raises(CallTimeout), box.transaction() as tx:
            add(tx, 2)
            tx.run(lambda conn: conn.execute("SELECT pg_sleep(60)"), call_timeout=0.2)
        assert values(box) == [1]
    assert count(db) == 0


def test_a_lease_that_is_dropped_lets_the_next_one_in(db: Any) -> None:
    with sandbox(db) as box:
        lease = box.checkout()
        add(lease, 1)
        with pytest.warns(ResourceWarning, match="dropped while open"):
            del lease
        assert count(box) == 1


def test_the_workers_death_ends_it_and_nothing_is_run_elsewhere(postgres: StartPool, pg: Any) -> None:
    import os
    import signal

    db = postgres()
    with sandbox(db) as box:
        add(box, 1)
        os.kill(box.run(worker_of), signal.SIGKILL)
        with pytest.raises((LeaseExpired, WorkerDied)):
            add(db, 2)
        with pytest.raises(LeaseExpired):
            add(db, 3)
    assert pg.query("SELECT count(*) FROM t") == [(0,)]
    assert count(db) == 0


def test_a_lost_connection_ends_it_and_nothing_is_run_elsewhere(postgres: StartPool, pg: Any) -> None:
    db = postgres()
    with sandbox(db) as box:
        add(box, 1)
        pg.kill_backend(box.run(lambda conn: conn.info.backend_pid))
        for x in (2, 3, 4):
            with pytest.raises(Exception, match=r"terminat|connect|closed"):
                add(db, x)
    assert count(db) == 0
    assert pg.query("SELECT count(*) FROM t") == [(0,)]


def test_locks_are_gone_as_soon_as_it_is_left(postgres: StartPool, pg: Any) -> None:
    db = postgres()
    add(db, 1)
    with sandbox(db) as box:
        box.execute("UPDATE t SET x = 2")
        box.execute("SELECT pg_advisory_lock(7)")
        box.execute("CREATE TEMPORARY TABLE temp_t (x int)")
    assert pg.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
    assert pg.query("SELECT x FROM t FOR UPDATE NOWAIT") == [(1,)]
    for _ in range(3):
        with pytest.raises(Exception, match="temp_t"):
            db.execute("SELECT * FROM temp_t")


def test_stopping_the_pool_ends_it(node: actorpool.System, sqlite: StartPool) -> None:
    db = sqlite()
    with sandbox(db) as box:
        add(box, 1)
        node.stop_pool(db.name, timeout=0.2)
        with pytest.raises(actorpool.ActorPoolError):
            add(box, 2)


def test_leases_outside_are_what_they_were_when_a_sandbox_opens(sqlite: StartPool) -> None:
    db = sqlite()
    with db.checkout() as outside, sandbox(db) as box:
        add(box, 1)
        assert outside.run(count_by) == 0
        assert count(db) == 1


# -- misuse -------------------------------------------------------------------------------------------------------


def test_a_worker_without_transactions_has_no_sandbox(start: StartPool) -> None:
    db = start(EchoWorker)
    with pytest.raises(MethodNotFound, match="for SQL workers") as caught, sandbox(db):
        pass
    assert caught.value.pool == db.name
    assert db.status().monitors == 0
    assert db.echo(1) == 1


def test_only_a_pool_has_a_sandbox() -> None:
    with pytest.raises(TypeError, match="handle of a pool"):
        sandbox("db")  # type: ignore[arg-type]


def test_a_pool_without_a_free_worker_opens_none_in_time(sqlite: StartPool) -> None:
    db = sqlite(size=1)
    with sandbox(db), pytest.raises(CheckoutTimeout), sandbox(db, timeout=0.1):
        pass
    with sandbox(db, timeout=1.0) as box:
        assert count(box) == 0


def test_it_works_on_a_system_inside_one_process(tmp_path: Any) -> None:
    with actorpool.start(base="simpleSystemBase") as system:
        db = system.start_pool("db", worker=SqliteWorker, worker_args={"database": f"{tmp_path}/app.db"}, size=2)
        db.execute("CREATE TABLE t (x int)")
        with sandbox(db) as box:
            add(box, 1)
            with db.transaction() as tx:
                add(tx, 2)
                add(db, 3)
            assert values(db) == [1, 2, 3]
        assert count(db) == 0


def test_a_sandbox_costs_little(sqlite: StartPool) -> None:
    db = sqlite()
    best = 9.9
    for _ in range(20):
        begun = time.perf_counter()
        with sandbox(db) as box:
            add(box, 1)
        best = min(best, time.perf_counter() - begun)
    assert best < 0.05, "seconds for opening, one statement and leaving"
