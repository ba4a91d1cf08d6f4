"""The handle of a pool, its leases, and what they promise to threads, forks and other processes."""

from __future__ import annotations

import contextvars
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytest

import actorpool
from actorpool import CallTimeout, CheckoutTimeout, LeaseExpired, MethodNotFound, PoolFull, RemoteError, WorkerDied
from tests.acceptance import kit


def test_run_gives_the_function_the_connection_and_its_arguments(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    assert p.run(kit.give_back, 1, "two", three=3) == ((1, "two"), {"three": 3})
    assert p.with_connection(kit.type_name) == "Toy"
    assert p.run(kit.pid_of) == p.workers()[0].pid != os.getpid()
    other = pool(kit.WithConnectionAttribute)
    assert other.run(lambda connection: connection["driver"]) == "fake"


def test_run_passes_timeouts_of_its_own_and_no_other_keyword_is_taken(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    assert p.run(kit.give_back, timeout=7, name="x", fn=1, method="m", checkout_timeout=5, call_timeout=5) == (
        (),
        {"timeout": 7, "name": "x", "fn": 1, "method": "m"},
    )
    assert p.call("add", 1, b=2, checkout_timeout=5, call_timeout=5) == 3


def test_attributes_are_one_shot_calls_and_never_shadow_the_handles_verbs(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    assert p.echo("x") == "x"
    assert p.add(1, b=2) == 3
    assert isinstance(p.status(), actorpool.PoolStatus)
    assert p.call("status") == "the worker's own"
    with p.checkout() as lease:
        assert lease.echo("y") == "y"
        assert lease.call("status") == "the worker's own"
        assert lease.add(2, b=3) == 5


@pytest.mark.parametrize("name", ["private", "note", "missing", "open", "connection", "__init__", "_is"])
def test_what_is_not_marked_as_a_method_is_method_not_found(pool: Callable[..., actorpool.Pool], name: str) -> None:
    p = pool()
    with pytest.raises(MethodNotFound) as caught:
        p.call(name)
    assert isinstance(caught.value, AttributeError)
    assert caught.value.pool == p.name
    assert name in str(caught.value)
    assert p.echo(1) == 1
    assert p.status().monitors == 0


def test_a_private_attribute_of_a_handle_is_an_attribute_error_at_once(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    for name in ("_private", "__deepcopy__", "__len__"):
        assert not hasattr(p, name)


def test_an_exception_of_the_function_arrives_with_its_type_and_remote_traceback(
    pool: Callable[..., actorpool.Pool],
) -> None:
    p = pool()
    with pytest.raises(kit.LocalProblem) as caught:
        p.run(kit.raise_problem)
    assert (caught.value.code, caught.value.text) == (42, "the answer")
    shown = "".join(traceback_of(caught.value))
    assert "raise_problem" in shown
    assert "kit.py" in shown
    with pytest.raises(LookupError, match="bang") as found:
        p.boom("bang")
    assert "in boom" in "".join(traceback_of(found.value))
    with pytest.raises(LookupError, match="bang"), p.checkout() as lease:
        lease.boom("bang")
    assert p.status().monitors == 0


def traceback_of(error: BaseException) -> list[str]:
    import traceback

    return traceback.format_exception(error)


@pytest.mark.parametrize(
    "error", [KeyError("k"), ZeroDivisionError("z"), OSError(2, "no", "f"), StopIteration(3), MemoryError()]
)
def test_ordinary_exceptions_keep_type_and_arguments(pool: Callable[..., actorpool.Pool], error: Exception) -> None:
    p = pool()
    with pytest.raises(type(error)) as caught:
        p.run(kit.raise_it, error)
    assert caught.value.args == error.args
    assert p.status().restarts == 0


def test_an_exception_that_cannot_travel_is_a_remote_error(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    with pytest.raises(RemoteError, match="Unpicklable: a generator inside") as caught:
        p.run(kit.raise_unpicklable)
    assert caught.value.pool == p.name
    assert "raise_unpicklable" in "".join(traceback_of(caught.value)), "the remote traceback"
    assert p.echo(1) == 1


def test_an_exception_whose_init_does_not_take_its_args_back_arrives_all_the_same(
    pool: Callable[..., actorpool.Pool],
) -> None:
    with pytest.raises((kit.ArrivesBroken, RemoteError), match="left") as caught:
        pool().run(kit.raise_arrives_broken)
    assert "raise_arrives_broken" in "".join(traceback_of(caught.value))


def test_a_result_that_cannot_travel_is_an_error_and_the_worker_is_back(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    pid = p.pid()
    with pytest.raises(Exception, match="it ran, but its result cannot be sent back.*(pickle|generator)") as caught:
        p.run(kit.give_unpicklable)
    assert not isinstance(caught.value, CheckoutTimeout | CallTimeout | WorkerDied)
    assert p.pid() == pid
    assert p.status().monitors == 0


def test_an_argument_that_cannot_travel_is_an_error_before_anything_is_taken(
    pool: Callable[..., actorpool.Pool],
) -> None:
    p = pool()
    with pytest.raises((TypeError, ValueError, pickle.PicklingError, AttributeError)):
        p.run(kit.give_back, threading.Lock())
    with pytest.raises((TypeError, ValueError, pickle.PicklingError, AttributeError)):
        p.echo(threading.Lock())
    with p.checkout() as lease:
        with pytest.raises((TypeError, ValueError, pickle.PicklingError, AttributeError)):
            lease.echo(threading.Lock())
        assert lease.echo("goes on") == "goes on"
    assert p.status().monitors == 0


@pytest.mark.parametrize("fn", [kit.raise_exit, kit.raise_interrupt])
def test_exit_and_interrupt_in_a_function_reach_the_caller_as_an_error_and_harm_nothing(
    pool: Callable[..., actorpool.Pool], fn: Any
) -> None:
    p = pool()
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the point is what it is
        p.run(fn)
    assert not isinstance(caught.value, CallTimeout | CheckoutTimeout | LeaseExpired)
    assert p.echo("alive") == "alive"
    assert p.status().monitors == 0


def test_a_call_that_times_out_says_so_at_once_and_the_next_call_is_fresh(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    started = time.monotonic()
    with pytest.raises(CallTimeout) as caught:
        p.call("sleep", 20, call_timeout=0.2)
    took = time.monotonic() - started
    assert 0.15 < took < 1.0
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.pool == p.name
    assert caught.value.waited == pytest.approx(0.2, abs=0.2)
    assert p.echo("fresh") == "fresh"
    assert time.monotonic() - started < 5
    assert p.status().state == "ready"


def test_the_configured_call_timeout_counts_where_none_is_given(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(call_timeout=0.2)
    with pytest.raises(CallTimeout):
        p.run(kit.sleep_for, 10)
    assert p.run(kit.sleep_for, 0.4, call_timeout=5) > 0
    with pytest.raises(CallTimeout), p.checkout() as lease:
        lease.sleep(10)
    assert p.echo(1) == 1


def test_a_long_call_does_not_time_out_by_itself(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(checkout_timeout=0.3)
    assert p.call("sleep", 1.0) == "slept"


def test_a_worker_that_ignores_the_interrupt_is_killed_after_kill_after(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(kill_after=0.5)
    pid = p.pid()
    started = time.monotonic()
    with pytest.raises(CallTimeout):
        p.run(kit.ignore_interrupts, 30, call_timeout=0.1)
    assert time.monotonic() - started < 1
    assert p.echo("other") == "other"
    took = time.monotonic() - started
    assert 0.5 <= took < 3
    assert not psutil.pid_exists(pid)
    assert p.pid() != pid


def test_a_worker_that_obeys_the_interrupt_is_kept(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(kill_after=5)
    pid = p.pid()
    with pytest.raises(CallTimeout):
        p.run(kit.spin, 30, call_timeout=0.2)
    assert p.pid() == pid
    assert p.status().restarts == 0


def test_a_lease_after_a_call_timeout_never_gives_a_stale_answer(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(call_timeout=0.15)
    with p.checkout() as lease:
        with pytest.raises(CallTimeout):
            lease.sleep(0.4)
        for number in range(5):
            try:
                assert lease.echo(number) == number
            except LeaseExpired:
                break
    for number in range(20):
        assert p.echo(number) == number


def test_checkout_gives_one_worker_for_the_whole_block(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=3)
    with p.checkout(timeout=5) as lease:
        assert {lease.pid() for _ in range(5)} == {lease.worker_pid}
        assert lease.run(kit.pid_of) == lease.worker_pid
        assert lease.call("pid") == lease.worker_pid
        assert not lease.closed
        (held,) = p.leases()
        assert held.id == lease.id
        assert held.worker_id == lease.worker_id
        assert held.caller_pid == os.getpid()
        assert isinstance(held.caller_host, str)
        assert 0 <= held.age < 5
        assert lease.worker_id in {worker.id for worker in p.workers() if worker.pid == lease.worker_pid}
    assert lease.closed
    eventually(lambda: p.leases() == [])


def test_a_lease_used_after_its_end_has_expired(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    lease = p.checkout()
    lease.checkin()
    lease.checkin()  # twice is once
    for use in (lambda: lease.echo(1), lambda: lease.run(kit.pid_of), lambda: lease.call("echo")):
        with pytest.raises(LeaseExpired) as caught:
            use()
        assert caught.value.pool == p.name
    other = p.checkout()
    p.checkin(other)
    assert other.closed
    with pytest.raises(LeaseExpired):
        other.echo(1)
    with pytest.raises(LeaseExpired), lease:
        pass
    assert p.status().checkouts == 2


def test_checking_in_a_foreign_lease_is_a_value_error(pool: Callable[..., actorpool.Pool]) -> None:
    p, q = pool(), pool()
    with p.checkout() as lease:
        with pytest.raises(ValueError, match=q.name):
            q.checkin(lease)
        assert lease.echo("mine") == "mine"
    for nonsense in (None, 5, "lease"):
        with pytest.raises((ValueError, TypeError)):
            p.checkin(nonsense)  # type: ignore[arg-type]
    assert q.echo(1) == 1


def test_a_lease_may_be_used_and_ended_by_another_thread(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool()
    lease = p.checkout()
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(lease.pid).result(10) == lease.worker_pid
        threads.submit(lease.checkin).result(10)
    with pytest.raises(LeaseExpired):
        lease.echo(1)
    eventually(lambda: p.status().monitors == 0)
    assert p.echo(1) == 1


def test_the_end_of_the_thread_that_checked_out_does_not_end_the_lease(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(p.checkout()))
    thread.start()
    thread.join()
    time.sleep(0.2)  # nothing may happen: there is nothing to wait for
    with found[0] as lease:
        assert lease.echo("still mine") == "still mine"


def test_threads_that_share_a_lease_take_turns(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    with p.checkout() as lease, ThreadPoolExecutor(6) as threads:
        values = [threads.submit(lease.echo, number) for number in range(120)]
        assert [value.result(20) for value in values] == list(range(120))


def test_a_lease_that_is_garbage_collected_is_checked_in_with_a_resource_warning(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool()
    lease = p.checkout()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del lease
        gc.collect()
    assert [str(w.message) for w in said if issubclass(w.category, ResourceWarning) and p.name in str(w.message)]
    eventually(lambda: p.status().monitors == 0)
    assert p.echo(1) == 1


def test_a_block_that_fails_gives_its_worker_back(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool()
    for error in (RuntimeError, KeyboardInterrupt, GeneratorExit, SystemExit):
        with pytest.raises(error), p.checkout() as lease:
            lease.echo(1)
            raise error
    eventually(lambda: p.status().workers == 1)


def test_reset_runs_between_two_leases_and_open_once(pool: Callable[..., actorpool.Pool], journal: Path) -> None:
    p = pool(worker_args={"journal": str(journal)}, check_on_checkout=None)
    for _ in range(3):
        with p.checkout() as lease:
            lease.echo(1)
    p.echo(2)
    steps = [line.split()[0] for line in journal.read_text().splitlines()]
    assert steps.count("open") == 1
    assert steps[0] == "open"
    assert steps.count("reset") >= 3


def test_close_runs_when_a_pool_is_stopped(
    node: actorpool.System, pool: Callable[..., actorpool.Pool], journal: Path
) -> None:
    p = pool(size=2, worker_args={"journal": str(journal)})
    pids = {worker.pid for worker in p.workers()}
    node.stop_pool(p.name)
    closed = {int(line.split()[1]) for line in journal.read_text().splitlines() if line.startswith("close")}
    assert closed == pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_status_counts_what_happened(pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]) -> None:
    p = pool(size=2, max_overflow=1)
    before = p.status()
    assert (before.name, before.state, before.size, before.overflow, before.workers) == (p.name, "ready", 2, 0, 2)
    assert (before.waiting, before.monitors, before.total) == (0, 0, 2)
    first, second = p.checkout(), p.checkout()
    assert (p.status().state, p.status().monitors, p.status().workers) == ("overflow", 2, 0)
    third = p.checkout()
    now = p.status()
    assert (now.state, now.monitors, now.workers, now.overflow, now.total) == ("full", 3, 0, 1, 3)
    with pytest.raises(CheckoutTimeout):
        p.checkout(timeout=0.05)
    for lease in (first, second, third):
        lease.checkin()
    after = eventually(lambda: (s := p.status()).monitors == 0 and s.overflow == 0 and s.total == 2 and s)
    assert (after.state, after.checkouts, after.checkins, after.timeouts) == ("ready", 3, 3, 1)
    assert (after.shed, after.restarts, after.reclaimed, after.connect_errors) == (0, 0, 0, 0)
    assert after.wait_ms_p50 >= 0
    assert after.wait_ms_p99 >= after.wait_ms_p50
    assert after.hold_ms_p50 >= 0
    assert abs(after.since - time.time()) < 60 or after.since > 0


def test_the_workers_are_listed_with_what_they_did(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1, max_overflow=1)
    for _ in range(3):
        p.echo(1)
    with p.checkout() as base, p.checkout() as extra:
        both = {worker.pid: worker for worker in p.workers()}
        assert set(both) == {base.worker_pid, extra.worker_pid}
        assert both[extra.worker_pid].overflow is True
        assert both[base.worker_pid].overflow is False
        assert both[base.worker_pid].id == base.worker_id
    one = eventually(lambda: len(p.workers()) == 1 and p.workers()[0])
    assert one.restarts == 0
    assert isinstance(one.state, str)
    assert one.calls >= 3 or both[base.worker_pid].calls >= 3
    assert abs(one.connected_at - time.time()) < 60 or one.connected_at > 0


def test_a_handle_is_picklable_and_works_in_another_process(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(size=2)
    copy = pickle.loads(pickle.dumps(p))
    assert copy.name == p.name
    assert copy.echo("copied") == "copied"
    context = get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as processes:
        assert processes.submit(use_handle, p, "x").result(30) == "x"
        assert sorted(processes.map(use_handle, [p] * 6, range(6))) == list(range(6))
    with pytest.raises(LeaseExpired), p.checkout() as lease:
        lease.checkin()
        lease.echo(1)


def use_handle(p: actorpool.Pool, value: Any) -> Any:
    with p.checkout() as lease:
        assert lease.echo(value) == value
    return p.echo(value)


def test_a_handle_can_be_sent_to_a_worker_of_another_pool(pool: Callable[..., actorpool.Pool]) -> None:
    inner, outer = pool(), pool()
    assert outer.run(through, inner, 5) == 6


def through(_connection: Any, inner: actorpool.Pool, value: int) -> Any:
    return inner.echo(value) + 1


def test_a_lease_does_not_pickle(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    with p.checkout() as lease, pytest.raises((TypeError, pickle.PicklingError), match=r"(?i)lease"):
        pickle.dumps(lease)


def test_a_handle_works_on_both_sides_of_a_fork(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(size=2)
    assert p.echo("warm") == "warm"
    said = _in_forks(
        4, lambda number: [p.echo((number, turn)) for turn in range(50)], lambda: [p.echo(n) for n in range(200)]
    )
    assert said == [[[number, turn] for turn in range(50)] for number in range(4)]


def _in_forks(number: int, work: Callable[[int], Any], meanwhile: Callable[[], Any]) -> list[Any]:
    pipes = []
    for index in range(number):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writing, json.dumps(work(index)).encode())
            except BaseException as error:
                os.write(writing, json.dumps(repr(error)).encode())
            finally:
                os._exit(0)
        os.close(writing)
        pipes.append((pid, reading))
    meanwhile()
    said = []
    for pid, reading in pipes:
        with os.fdopen(reading, "rb") as stream:
            said.append(json.loads(stream.read() or b"null"))
        os.waitpid(pid, 0)
    return said


def test_a_forked_copy_of_an_open_lease_neither_uses_nor_ends_the_parents(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool()
    with p.checkout() as lease:

        def child(_: int) -> str:
            try:
                lease.echo("stolen")
            except LeaseExpired:
                lease.checkin()
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    globals()["_copy"] = lease
                    del globals()["_copy"]
                return "refused"
            return "used"

        assert _in_forks(1, child, lambda: None) == ["refused"]
        assert lease.echo("mine") == "mine"
        (held,) = p.leases()
        assert held.id == lease.id
        assert p.status().checkins == 0


def test_the_end_of_a_forked_child_does_not_reclaim_the_parents_lease(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    with p.checkout() as lease:
        lease.echo(1)
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
        for _ in range(20):
            assert lease.echo("mine") == "mine"
        assert p.status().reclaimed == 0


def test_many_threads_never_share_a_worker(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(size=3, max_overflow=2, checkout_timeout=20)
    out: set[int] = set()
    lock = threading.Lock()
    twice: list[int] = []

    def use() -> None:
        for _ in range(25):
            with p.checkout() as lease:
                with lock:
                    if lease.worker_pid in out:
                        twice.append(lease.worker_pid)
                    out.add(lease.worker_pid)
                assert lease.pid() == lease.worker_pid
                with lock:
                    out.discard(lease.worker_pid)

    with ThreadPoolExecutor(10) as threads:
        for done in [threads.submit(use) for _ in range(10)]:
            done.result(40)
    assert twice == []
    assert p.status().checkouts == 250


def test_large_arguments_and_results_travel(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    assert p.run(kit.length, b"y" * 20_000_000) == 20_000_000
    assert len(p.run(kit.large, 20_000_000)) == 20_000_000
    with p.checkout() as lease:
        assert len(lease.run(kit.large, 3_000_000)) == 3_000_000


def test_resizing_in_place_grows_and_shrinks_the_pool(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=2, max_overflow=0)
    p.resize(size=4)
    eventually(lambda: (p.status().size, p.status().workers, p.status().total) == (4, 4, 4))
    p.resize(size=1, max_overflow=3)
    eventually(lambda: (p.status().size, p.status().total) == (1, 1))
    leases = [p.checkout() for _ in range(4)]
    assert p.status().state == "full"
    p.resize(max_overflow=0)
    for lease in leases:
        lease.checkin()
    eventually(lambda: (p.status().total, p.status().overflow, p.status().workers) == (1, 0, 1))
    assert p.echo(1) == 1


def test_shrinking_takes_no_lease_away(pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]) -> None:
    p = pool(size=3)
    with p.checkout() as a, p.checkout() as b:
        p.resize(size=1)
        assert a.echo(1) == 1
        assert b.echo(2) == 2
    eventually(lambda: p.status().total == 1)


@pytest.mark.parametrize(
    "fields", [{"size": -1}, {"size": True}, {"size": 1.5}, {"max_overflow": -2}, {"size": "many"}]
)
def test_a_bad_size_is_refused_and_changes_nothing(pool: Callable[..., actorpool.Pool], fields: dict[str, Any]) -> None:
    p = pool(size=1)
    with pytest.raises(actorpool.InvalidConfig) as caught:
        p.resize(**fields)
    assert set(caught.value.problems) == set(fields)
    assert p.status().size == 1


def test_growing_serves_who_waits(pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]) -> None:
    p = pool(size=1)
    with p.checkout(), ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(p.echo, "served")
        eventually(lambda: p.status().waiting == 1)
        p.resize(size=2)
        assert waiting.result(5) == "served"


def test_a_suspended_pool_serves_nobody_new_and_its_leases_go_on(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=2)
    lease = p.checkout()
    p.suspend()
    assert p.status().state == "suspended"
    assert lease.echo("goes on") == "goes on"
    with pytest.raises(CheckoutTimeout) as caught:
        p.checkout(timeout=0.1)
    assert caught.value.status.state == "suspended"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(p.echo, "after")
        eventually(lambda: p.status().waiting == 1)
        lease.checkin()
        eventually(lambda: p.status().workers == 2)
        assert p.status().waiting == 1
        p.resume()
        assert waiting.result(5) == "after"
    assert p.status().state == "ready"


def test_drain_returns_when_every_lease_is_back(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=2)
    lease = p.checkout()
    with ThreadPoolExecutor(1) as threads:
        draining = threads.submit(p.drain, 10)
        eventually(lambda: p.status().state == "draining")
        assert lease.echo(1) == 1
        assert not draining.done()
        with pytest.raises(CheckoutTimeout):
            p.checkout(timeout=0.05)
        lease.checkin()
        draining.result(5)
    assert p.status().monitors == 0
    p.resume()
    assert p.echo(2) == 2


def test_drain_interrupts_at_the_deadline_what_still_runs(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=2)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(p.call, "sleep", 30)
        eventually(lambda: p.status().monitors == 1)
        started = time.monotonic()
        p.drain(0.3)
        assert 0.25 < time.monotonic() - started < 3
        with pytest.raises(actorpool.ActorPoolError):
            running.result(5)
    assert p.status().monitors == 0
    p.resume()
    assert p.echo(1) == 1


def test_recycle_replaces_every_connection_in_the_same_processes(
    pool: Callable[..., actorpool.Pool], journal: Path, eventually: Callable[..., Any]
) -> None:
    p = pool(size=2, worker_args={"journal": str(journal)})
    pids = {worker.pid for worker in p.workers()}
    p.recycle()
    steps = eventually(
        lambda: (
            (lines := journal.read_text().splitlines()) and [x.split()[0] for x in lines].count("open") == 4 and lines
        )
    )
    assert [step.split()[0] for step in steps].count("close") == 2
    assert {worker.pid for worker in p.workers()} == pids
    eventually(lambda: p.status().workers == 2)
    assert p.echo(1) == 1


def test_recycle_with_restart_replaces_every_process_and_those_in_use_when_they_come_back(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=2)
    before = {worker.pid for worker in p.workers()}
    with p.checkout() as lease, ThreadPoolExecutor(1) as threads:
        done = threads.submit(p.recycle, 10, restart=True)
        held = lease.pid()
        eventually(lambda: {w.pid for w in p.workers()} & before == {held})
        assert lease.pid() == held
        lease.checkin()
        done.result(10)
    eventually(lambda: len(p.workers()) == 2 and not {w.pid for w in p.workers()} & before)
    assert p.echo(1) == 1
    assert p.status().size == 2


def test_checkout_without_blocking_on_a_full_pool_is_pool_full_and_changes_nothing(
    pool: Callable[..., actorpool.Pool],
) -> None:
    p = pool()
    with p.checkout() as lease:
        before = p.status()
        started = time.monotonic()
        with pytest.raises(PoolFull) as caught:
            p.checkout(block=False)
        assert time.monotonic() - started < 0.5
        after = p.status()
        assert (after.waiting, after.monitors, after.total, after.checkouts) == (0, 1, 1, before.checkouts)
        assert caught.value.pool == p.name
        assert caught.value.status.state == "full"
        assert lease.echo(1) == 1
    with p.checkout(block=False) as free:
        assert free.echo(2) == 2


def test_local_pools_have_the_same_verbs_in_this_process() -> None:
    p = actorpool.LocalPool(actorpool.PoolConfig(worker=kit.Toy, worker_args={"secret": "s"}))
    assert p.echo(1) == 1
    assert p.pid() == os.getpid()
    assert p.run(kit.pid_of) == os.getpid()
    assert p.with_connection(kit.type_name) == "Toy"
    assert p.call("add", 1, b=5) == 6
    with p.checkout() as lease:
        assert lease.echo(2) == 2
        assert lease.worker_pid == os.getpid()
        assert lease.run(kit.give_back, 1) == ((1,), {})
    assert lease.closed
    with pytest.raises(LeaseExpired):
        lease.echo(1)
    with pytest.raises(MethodNotFound):
        p.call("private")
    with pytest.raises(LookupError, match="x"):
        p.boom("x")
    assert isinstance(p.status(), actorpool.PoolStatus)
    assert p.leases() == []
    p.workers()
    p.suspend()
    p.resume()
    p.resize(size=2)
    p.recycle()
    p.drain(1)
    p.resume()
    assert p.echo(3) == 3


def test_a_local_pool_opens_and_closes_one_connection_for_each_call(journal: Path) -> None:
    p = actorpool.LocalPool(actorpool.PoolConfig(worker=kit.Toy, worker_args={"journal": str(journal)}))
    steps = []
    for number in range(2):
        journal.write_text("")
        p.echo(number)
        steps += [line.split()[0] for line in journal.read_text().splitlines()]
    assert [step for step in steps if step in ("open", "close")] == ["open", "close", "open", "close"]


def test_a_disabled_pool_is_a_local_pool_without_actors(node: actorpool.System) -> None:
    p = node.start_pool("off", worker=kit.Toy, enabled=False)
    assert isinstance(p, actorpool.LocalPool)
    assert p.pid() == os.getpid()


def test_a_handle_is_cheap_and_says_what_it_is(pool: Callable[..., actorpool.Pool], node: actorpool.System) -> None:
    p = pool(worker_args={"secret": "hunter2"})
    assert p.name in repr(p)
    assert "hunter2" not in repr(p)
    assert len(pickle.dumps(p)) < 5000
    started = time.monotonic()
    for _ in range(1000):
        node.pool(p.name)
    assert time.monotonic() - started < 5


def test_ten_thousand_calls_leave_no_memory_descriptor_or_thread_behind(
    pool: Callable[..., actorpool.Pool], open_descriptors: Callable[[], dict[int, str]]
) -> None:
    p = pool(size=2)
    for _ in range(200):
        p.echo(1)
    descriptors, threads = len(open_descriptors()), threading.active_count()
    for number in range(3000):
        p.echo(number)
    assert len(open_descriptors()) == descriptors
    assert threading.active_count() == threads


def test_context_variables_of_the_caller_stay_with_the_caller(pool: Callable[..., actorpool.Pool]) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("caller")
    assert pool().run(kit.give_back, 1) == ((1,), {})
    assert variable.get() == "caller"


def test_a_program_that_forgets_to_give_back_ends_without_noise(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import actorpool\nfrom tests.acceptance.kit import Toy\n"
         "s = actorpool.start()\np = s.start_pool('p', worker=Toy, size=1)\n"
         "lease = p.checkout()\nprint(lease.echo(1))"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "Traceback" not in done.stderr, done.stderr
