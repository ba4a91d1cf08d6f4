"""What happens to leases, waiters and workers when something ends in the wrong moment."""

from __future__ import annotations

import base64
import os
import pickle
import signal
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import actorpool
from actorpool import CheckoutTimeout, LeaseExpired, PoolNotFound, PoolStopped, WorkerDied
from tests.acceptance import kit

CALLER = """
import sys, pickle, base64, time, threading
from tests.acceptance import kit
p = pickle.loads(base64.b64decode(sys.argv[1]))
"""


def packed(p: actorpool.Pool) -> str:
    return base64.b64encode(pickle.dumps(p)).decode()


@pytest.mark.slow
def test_an_idle_worker_killed_a_hundred_times_fails_no_call(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(size=2, max_restarts=1000)
    for number in range(100):
        workers = p.workers()
        os.kill(workers[number % len(workers)].pid, signal.SIGKILL)
        assert p.echo(number) == number


@pytest.mark.slow
def test_the_only_idle_worker_killed_a_hundred_times_fails_no_call(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1, max_restarts=1000)
    pid = p.pid()
    for number in range(100):
        os.kill(pid, signal.SIGKILL)
        new = p.pid()
        assert new != pid
        pid = new
        if number % 10 == 0:
            with p.checkout() as lease:
                assert lease.worker_pid == pid


def test_a_lease_whose_idle_worker_died_says_so(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1, max_restarts=100)
    lease = p.checkout()
    assert lease.echo("what the worker holds now is lost with it") is not None
    os.kill(lease.worker_pid, signal.SIGKILL)
    with pytest.raises((WorkerDied, LeaseExpired)):
        lease.echo(1)
    with pytest.raises((WorkerDied, LeaseExpired)):
        lease.echo(1)
    assert p.echo(1) == 1
    lease.checkin()
    eventually(lambda: p.status().monitors == 0 and p.status().workers == 1)


def test_a_killed_busy_worker_is_worker_died_at_once_and_capacity_is_back(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    p = pool(size=3, max_restarts=1000)
    told: list[float] = []
    whole: list[float] = []
    for number in range(10):
        mark = tmp_path / f"mark{number}"
        outcome: list[Any] = []

        def call(path: str = str(mark), into: list[Any] = outcome) -> None:
            try:
                into.append(p.run(kit.touch_then_sleep, path, 30))
            except Exception as raised:
                into.append((raised, time.monotonic()))

        thread = threading.Thread(target=call)
        thread.start()
        pid = int(eventually(lambda path=mark: path.read_text().strip()))
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        while (s := p.status()).workers < 3 or s.total < 3:
            assert time.monotonic() < killed + 5
        whole.append(time.monotonic() - killed)
        thread.join(5)
        error, when = outcome[0]
        assert isinstance(error, WorkerDied), error
        assert error.pool == p.name
        assert str(pid) in str(error)
        told.append(when - killed)
    print(f"WorkerDied after {statistics.median(told) * 1000:.1f} ms (worst {max(told) * 1000:.1f});", end=" ")
    print(f"full capacity after {statistics.median(whole) * 1000:.1f} ms (worst {max(whole) * 1000:.1f})")
    assert statistics.median(told) < 0.02 * 3
    assert statistics.median(whole) < 0.05 * 3


@pytest.mark.parametrize("fn", [kit.die, kit.leave])
def test_a_function_that_ends_its_process_is_worker_died(pool: Callable[..., actorpool.Pool], fn: Any) -> None:
    p = pool(max_restarts=100)
    pid = p.pid()
    for _ in range(3):
        with pytest.raises(WorkerDied):
            p.run(fn)
    assert p.pid() != pid
    assert p.status().restarts == 3
    with pytest.raises(WorkerDied), p.checkout() as lease:
        lease.run(fn)


def test_a_call_that_may_have_started_is_never_run_twice(
    pool: Callable[..., actorpool.Pool], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    p = pool(size=2, max_restarts=100)
    mark = tmp_path / "mark"
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(p.run, kit.touch_then_sleep, str(mark), 30)
        os.kill(int(eventually(lambda: mark.read_text().strip())), signal.SIGKILL)
        with pytest.raises(WorkerDied):
            running.result(5)
    eventually(lambda: p.status().workers == 2)
    assert len(mark.read_text().splitlines()) == 1


def test_a_base_worker_that_dies_while_out_is_replaced_at_once(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=2, max_restarts=100)
    with p.checkout() as lease:
        os.kill(lease.worker_pid, signal.SIGKILL)
        eventually(lambda: (s := p.status()).total == 2 and s.workers == 2 and s.monitors == 0)


def test_the_first_waiter_gets_the_new_worker(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1, max_restarts=100, checkout_timeout=20)
    order: list[str] = []
    pids: list[int] = []

    def wait(name: str) -> None:
        with p.checkout() as lease:
            order.append(name)
            pids.append(lease.pid())

    lease = p.checkout()
    threads = []
    for number, name in enumerate(("first", "second")):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        eventually(lambda want=number + 1: p.status().waiting == want)
    os.kill(lease.worker_pid, signal.SIGKILL)
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second"]
    assert lease.worker_pid not in pids
    lease.checkin()


def test_an_overflow_worker_that_dies_with_nobody_waiting_is_not_replaced(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1, max_overflow=1, max_restarts=100)
    with p.checkout() as base:
        extra = p.checkout()
        assert p.status().total == 2
        os.kill(extra.worker_pid, signal.SIGKILL)
        eventually(lambda: (s := p.status()).total == 1 and s.overflow == 0 and s.monitors == 1)
        assert base.echo(1) == 1
        assert p.status().total == 1
        extra.checkin()


def test_whichever_worker_comes_back_first_above_size_is_the_one_that_is_stopped(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1, max_overflow=1)
    base, extra = p.checkout(), p.checkout()
    base.checkin()
    eventually(lambda: not psutil.pid_exists(base.worker_pid))
    assert (p.status().overflow, p.status().total) == (0, 1)
    assert extra.echo(1) == 1
    extra.checkin()
    eventually(lambda: p.status().workers == 1)
    assert p.pid() == extra.worker_pid


@pytest.mark.slow
def test_a_waiter_that_timed_out_is_off_the_queue_and_no_worker_is_lost(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=2, checkout_timeout=20)
    stop = time.monotonic() + 2.5
    problems: list[Any] = []

    def churn(seed: int) -> None:
        turn = seed
        while time.monotonic() < stop:
            turn += 1
            try:
                with p.checkout(timeout=0.001 * (turn % 7)) as lease:
                    assert lease.pid() == lease.worker_pid
                    if turn % 5 == 0:
                        time.sleep(0.003)
            except CheckoutTimeout:
                pass
            except Exception as error:
                problems.append(error)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert problems == []
    eventually(lambda: (s := p.status()).waiting == 0 and s.monitors == 0 and s.workers == 2)
    assert p.status().restarts == 0
    assert {p.pid() for _ in range(5)} <= {w.pid for w in p.workers()}


def test_the_lease_of_a_killed_caller_is_back_within_a_tenth_of_a_second(
    pool: Callable[..., actorpool.Pool], script: Callable[..., Any]
) -> None:
    p = pool(size=1)
    took = []
    for _ in range(5):
        holder = script(
            CALLER + "lease = p.checkout()\nlease.echo(1)\nprint('held', flush=True)\ntime.sleep(60)", packed(p)
        )
        assert holder.stdout.readline() == "held\n"
        assert p.status().monitors == 1
        killed = time.monotonic()
        holder.kill()
        assert p.echo(1) == 1
        took.append(time.monotonic() - killed)
    print(f"lease back after {statistics.median(took) * 1000:.1f} ms (worst {max(took) * 1000:.1f})")
    assert statistics.median(took) < 0.1
    assert p.status().reclaimed == 5


def test_a_caller_killed_during_a_call_gives_its_worker_back_interrupted(
    pool: Callable[..., actorpool.Pool], script: Callable[..., Any], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    p = pool(size=1)
    pid = p.pid()
    holder = script(CALLER + f"p.run(kit.touch_then_sleep, {str(tmp_path / 'mark')!r}, 60)", packed(p))
    eventually(lambda: (tmp_path / "mark").read_text(), timeout=20)
    killed = time.monotonic()
    holder.kill()
    assert p.pid() == pid
    assert time.monotonic() - killed < 1
    assert (p.status().reclaimed, p.status().restarts) == (1, 0)


def test_a_waiter_that_is_killed_is_off_the_queue(
    pool: Callable[..., actorpool.Pool], script: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1)
    with p.checkout() as lease:
        waiter = script(CALLER + "p.checkout(timeout=60)", packed(p))
        eventually(lambda: p.status().waiting == 1, timeout=20)
        waiter.kill()
        eventually(lambda: p.status().waiting == 0)
        assert lease.echo(1) == 1
    assert p.echo(1) == 1


def test_a_stopped_caller_keeps_its_lease(
    pool: Callable[..., actorpool.Pool], script: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1)
    holder = script(
        CALLER + "lease = p.checkout()\nprint('held', flush=True)\nsys.stdin.readline()\nprint(lease.echo(7))",
        packed(p),
    )
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(CheckoutTimeout):
        p.checkout(timeout=0.3)
    holder.send_signal(signal.SIGCONT)
    holder.stdin.write("go\n")
    assert holder.stdout.readline() == "7\n"


def test_callers_of_many_kinds_leave_nothing_when_they_are_killed(
    pool: Callable[..., actorpool.Pool], script: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    p = pool(size=3, max_overflow=2, checkout_timeout=30)
    text = CALLER + (
        "def use():\n"
        "    while True:\n"
        "        p.echo(1)\n"
        "        with p.checkout() as lease: lease.run(kit.sleep_for, 0.005)\n"
        "for _ in range(4): threading.Thread(target=use, daemon=True).start()\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    for _ in range(3):
        callers = [script(text, packed(p)) for _ in range(2)]
        for caller in callers:
            assert caller.stdout.readline() == "up\n"
        for caller in callers:
            caller.kill()
            caller.wait()
        eventually(lambda: (s := p.status()).monitors == 0 and s.waiting == 0 and s.total == 3 and s.workers == 3)
        assert p.echo(1) == 1


def test_stopping_a_pool_tells_waiters_at_once_and_lets_running_calls_finish(
    node: actorpool.System, pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=1, checkout_timeout=30)
    with ThreadPoolExecutor(3) as threads:
        running = threads.submit(p.call, "sleep", 0.6)
        eventually(lambda: p.status().monitors == 1)
        waiting = threads.submit(p.echo, 1)
        eventually(lambda: p.status().waiting == 1)
        stopping = threads.submit(node.stop_pool, p.name, 5.0)
        began = time.monotonic()
        with pytest.raises(PoolStopped) as caught:
            waiting.result(2)
        assert time.monotonic() - began < 0.4
        assert caught.value.pool == p.name
        assert running.result(5) == "slept"
        stopping.result(5)
    for call in (lambda: p.echo(1), p.status, p.checkout, p.workers, p.leases, lambda: node.pool(p.name).echo(1)):
        with pytest.raises(PoolNotFound):
            call()


def test_what_still_runs_at_the_end_of_the_timeout_is_ended(
    node: actorpool.System, pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=2, kill_after=0.5)
    pids = [worker.pid for worker in p.workers()]
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(p.call, "sleep", 60)
        stubborn = threads.submit(p.run, kit.ignore_interrupts, 60)
        eventually(lambda: p.status().monitors == 2)
        started = time.monotonic()
        node.stop_pool(p.name, timeout=0.3)
        assert time.monotonic() - started < 4
        for future in (running, stubborn):
            with pytest.raises(actorpool.ActorPoolError):
                future.result(5)
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_lease_of_a_stopped_pool_has_ended(node: actorpool.System, pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(size=1)
    lease = p.checkout()
    started = time.monotonic()
    node.stop_pool(p.name, timeout=0.2)
    assert time.monotonic() - started < 3
    with pytest.raises((LeaseExpired, PoolStopped, PoolNotFound, WorkerDied)):
        lease.echo(1)
    lease.checkin()


def test_a_handle_of_a_stopped_pool_serves_its_successor(
    node: actorpool.System, pool: Callable[..., actorpool.Pool]
) -> None:
    p = pool(size=1)
    assert p.echo(1) == 1
    node.stop_pool(p.name)
    with pytest.raises(PoolNotFound):
        p.echo(1)
    node.start_pool(p.name, worker=kit.Toy, size=1)
    assert p.echo(2) == 2


def _find(tree: Any, kind: str, name: str | None = None) -> Any:
    if tree.kind == kind and name in (None, tree.id):
        return tree
    for child in tree.children:
        if (found := _find(child, kind, name)) is not None:
            return found
    return None


def _holder_of_pool(tree: Any, name: str) -> Any:
    if any(child.kind == "pool" and child.id == name for child in tree.children):
        return tree
    return next((found for child in tree.children if (found := _holder_of_pool(child, name)) is not None), None)


def test_a_killed_pool_actor_serves_again_within_two_seconds_and_no_other_notices(
    eventually: Callable[..., Any],
) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        p = system.start_pool("one", worker=kit.Toy, size=2)
        q = system.start_pool("two", worker=kit.Toy, size=1)
        untouched = q.pid()
        old = {worker.pid for worker in p.workers()}
        before = _find(system.tree(), "pool", "one")
        lease = p.checkout()
        killed = time.monotonic()
        os.kill(before.pid, signal.SIGKILL)
        eventually(lambda: p.echo(1) == 1, timeout=10)
        took = time.monotonic() - killed
        print(f"pool actor killed: serving again after {took * 1000:.0f} ms")
        assert took < 2
        with pytest.raises((LeaseExpired, WorkerDied, actorpool.PoolDown)):
            lease.echo(1)
        lease.checkin()
        assert q.pid() == untouched
        eventually(lambda: not any(psutil.pid_exists(pid) for pid in old))
        after = eventually(lambda: (found := _find(system.tree(), "pool", "one")).pid and found.restarts == 1 and found)
        assert after.pid != before.pid
        assert p.status().size == 2
        assert system.pools() == ["one", "two"]


def test_a_killed_manager_comes_back_with_its_pools_within_two_seconds(eventually: Callable[..., Any]) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        p = system.start_pool("one", worker=kit.Toy, size=2)
        system.start_pool("two", worker=kit.Toy, size=1, max_overflow=3)
        old = {worker.pid for worker in p.workers()}
        manager = _holder_of_pool(system.tree(), "one")
        killed = time.monotonic()
        os.kill(manager.pid, signal.SIGKILL)
        eventually(lambda: p.echo(1) == 1, timeout=10)
        took = time.monotonic() - killed
        print(f"manager killed: serving again after {took * 1000:.0f} ms")
        assert took < 2
        eventually(lambda: system.pools() == ["one", "two"], timeout=3)
        eventually(lambda: system.pool("two").echo(2) == 2)
        assert p.status().size == 2
        eventually(lambda: not any(psutil.pid_exists(pid) for pid in old))
        assert system.actor_system.ask(system.manager, actorpool.ListPools(), 5).unwrap() == ["one", "two"]
        system.stop_pool("two")
        assert system.pools() == ["one"]
        system.start_pool("three", worker=kit.Toy, size=1)
        assert system.pools() == ["one", "three"]


def test_a_pool_killed_with_callers_waiting_lets_them_be_served_or_told(eventually: Callable[..., Any]) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        p = system.start_pool("one", worker=kit.Toy, size=1, max_overflow=0, checkout_timeout=20)
        lease = p.checkout()
        with ThreadPoolExecutor(3) as threads:
            waiting = [threads.submit(p.echo, n) for n in range(3)]
            eventually(lambda: p.status().waiting == 3)
            os.kill(_find(system.tree(), "pool", "one").pid, signal.SIGKILL)
            for n, future in enumerate(waiting):
                try:
                    assert future.result(10) == n
                except (actorpool.PoolDown, PoolStopped) as error:
                    assert error.pool == "one"
        lease.checkin()
        eventually(lambda: p.echo(1) == 1)


@pytest.mark.slow
def test_a_pool_that_keeps_failing_is_reported_not_forgotten(eventually: Callable[..., Any]) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        p = system.start_pool("doomed", worker=kit.Toy, size=1)
        fine = system.start_pool("fine", worker=kit.Toy, size=1)
        deadline = time.monotonic() + 25
        error: Any = None
        while time.monotonic() < deadline:
            try:
                found = _find(system.tree(), "pool", "doomed")
                if found is not None and found.pid:
                    os.kill(found.pid, signal.SIGKILL)
                p.echo(1, checkout_timeout=1)
            except actorpool.ActorPoolError as caught:
                error = caught
                if (
                    isinstance(caught, actorpool.RestartIntensityExceeded)
                    or "gave up" in str(caught)
                    or "intensity" in str(caught)
                ):
                    break
            except ProcessLookupError:
                continue
        assert error is not None
        assert error.pool == "doomed"
        assert isinstance(error, actorpool.PoolDown | actorpool.RestartIntensityExceeded), repr(error)
        eventually(lambda: fine.echo(1) == 1)
        assert "fine" in system.pools()
        try:
            system.stop_pool("doomed")
        except PoolNotFound:
            pass
        assert system.start_pool("doomed", worker=kit.Toy, size=1).echo(2) == 2


def test_after_random_violence_the_pool_is_whole(
    pool: Callable[..., actorpool.Pool], script: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    p = pool(size=3, max_overflow=2, max_restarts=10_000, checkout_timeout=20)
    stop = threading.Event()
    wrong: list[Any] = []
    done = [0]

    def use(seed: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                if p.echo((seed, turn)) != (seed, turn):
                    wrong.append("stale")
                done[0] += 1
            except WorkerDied:
                pass
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for number in range(30):
        workers = p.workers()
        if workers:
            try:
                os.kill(workers[number % len(workers)].pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert done[0] > 50
    eventually(lambda: (s := p.status()).monitors == 0 and s.waiting == 0 and s.workers == 3 and s.total == 3)
