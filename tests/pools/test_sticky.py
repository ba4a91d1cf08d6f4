"""Sticky leases with real processes: calls that need no pool, and a pool that knows of each, and has workers back."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import actorpool
from actorpool import CheckoutTimeout, WorkerDied
from actorpool.client import _sticky
from actorpool.workers import EchoWorker, SqliteWorker
from tests.pools.conftest import StartPool

FORK = multiprocessing.get_context("fork")
Eventually = Callable[..., Any]


def pid_of(_: Any) -> int:
    return os.getpid()


def slow(_: Any, seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def call_often(pool: actorpool.Pool, times: int) -> None:
    for number in range(times):
        assert pool.call("echo", number) == number


def processes(target: Callable[..., Any], *arguments: tuple[Any, ...]) -> list[Any]:
    """Run it in a process for each tuple of arguments, all at once; when all have ended, their exit codes."""
    started = [FORK.Process(target=target, args=given) for given in arguments]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    return [process.exitcode for process in started]


def _call_in_child(pool: actorpool.Pool) -> None:
    try:
        assert pool.run(pid_of)
    except CheckoutTimeout:
        os._exit(2)


def pool_pid(node: actorpool.System, name: str) -> int:
    """The process of the pool's actor."""

    def find(tree: Any) -> Iterator[int]:
        if tree.kind == "pool" and tree.id == name:
            yield tree.pid
        for child in tree.children:
            yield from find(child)

    return next(find(node.tree()))


@contextmanager
def halted(pid: int) -> Iterator[None]:
    """A process that stands still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_caller_goes_on_without_its_pool(node: actorpool.System, start: StartPool) -> None:
    pool = start(EchoWorker)
    worker = pool.run(pid_of)
    with halted(pool_pid(node, pool.name)):
        assert {pool.run(pid_of) for _ in range(100)} == {worker}
    status = pool.status()
    assert (status.checkouts, status.checkins) == (101, 101)
    assert (status.workers, status.monitors, status.total) == (2, 0, 2)


@pytest.mark.parametrize(("callers", "workers"), [(2, 4), (4, 4), (6, 3)])
def test_every_call_of_every_caller_is_counted(start: StartPool, callers: int, workers: int) -> None:
    pool = start(EchoWorker, size=workers)
    codes = processes(call_often, *[(pool, 300)] * callers)
    assert codes == [0] * callers
    status = pool.status()
    assert status.checkouts == status.checkins == 300 * callers
    assert (status.workers, status.monitors, status.reclaimed, status.restarts) == (workers, 0, 0, 0)
    assert sum(worker.calls for worker in pool.workers()) == 300 * callers


def test_what_runs_is_seen_by_everybody_else(start: StartPool, eventually: Eventually) -> None:
    pool = start(EchoWorker, size=1)
    pool.run(pid_of)
    thread = threading.Thread(target=pool.run, args=(slow, 0.5))
    thread.start()
    eventually(lambda: pool.status().monitors == 1)
    status, (lease,), (worker,) = pool.status(), pool.leases(), pool.workers()
    assert (status.state, status.workers) == ("full", 0)
    assert (lease.caller_pid, worker.state) == (os.getpid(), "busy")
    assert 0.0 <= lease.age < 0.5
    thread.join()
    assert pool.status().workers == 1
    assert pool.leases() == []


def test_hold_times_are_those_of_the_calls(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    for _ in range(5):
        pool.run(slow, 0.02)
    assert 20 <= pool.status().hold_ms_p50 < 200


def test_each_use_finds_a_pristine_connection(start: StartPool) -> None:
    pool = start(SqliteWorker, worker_args={"database": ":memory:"}, size=1)
    pool.run(lambda conn: conn.execute("create temp table t (x int)").fetchall())
    assert pool.run(lambda conn: conn.execute("select count(*) from sqlite_temp_master").fetchone()[0]) == 0
    pool.begin()
    pool.begin()  # a transaction that was left open would make this a savepoint
    assert pool.run(lambda conn: conn.in_transaction) is False


def test_another_process_gets_the_worker_at_once(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    pool.run(pid_of)
    began = time.perf_counter()
    assert processes(call_often, (pool, 1)) == [0]
    assert time.perf_counter() - began < 2.0
    assert pool.status().checkouts == 2


def test_who_waits_is_served_before_a_caller_who_calls_on_and_on(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            pool.run(slow, 0.005)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            began = time.perf_counter()
            with pool.checkout(timeout=2) as lease:
                waited = time.perf_counter() - began
                lease.run(pid_of)
            assert waited < 1.5  # 0.005 s without other work on the machine; for ever if nothing recalls the lease
    finally:
        stop.set()
        thread.join()


def test_this_process_may_have_the_last_worker_as_a_lease(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    pool.run(pid_of)
    with pool.checkout(timeout=0) as lease:
        assert lease.run(pid_of) == lease.worker_pid
        with pytest.raises(actorpool.PoolFull):
            pool.checkout(block=False)
    pool.run(pid_of)
    pool.checkout(block=False).checkin()


def test_a_killed_worker_costs_a_caller_who_does_not_use_it_nothing(start: StartPool, eventually: Eventually) -> None:
    pool = start(EchoWorker, size=1)
    for _ in range(5):
        worker = pool.run(pid_of)
        os.kill(worker, signal.SIGKILL)
        assert pool.run(pid_of) != worker
    eventually(lambda: pool.status().restarts == 5)
    assert pool.status().checkouts == 10


def test_a_worker_that_dies_in_a_use_is_told_of(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    pool.run(pid_of)
    with pytest.raises(WorkerDied):
        pool.run(lambda _: os._exit(3))
    assert pool.run(pid_of)
    status = pool.status()
    assert (status.checkouts, status.checkins, status.monitors) == (3, 2, 0)


def _call_and_hang(pool: actorpool.Pool, ready: Any, seconds: float) -> None:
    pool.run(pid_of)
    ready.set()
    pool.run(slow, seconds)
    time.sleep(60)


@pytest.mark.parametrize(("seconds", "reclaimed"), [(0.0, 0), (30.0, 1)], ids=["between two uses", "in a use"])
def test_a_killed_callers_worker_is_back(
    start: StartPool, eventually: Eventually, seconds: float, reclaimed: int
) -> None:
    pool = start(EchoWorker, size=1)
    ready = FORK.Event()
    caller = FORK.Process(target=_call_and_hang, args=(pool, ready, seconds))
    caller.start()
    assert ready.wait(10)
    eventually(lambda: pool.status().checkouts == 2 and pool.status().monitors == reclaimed)
    assert caller.pid
    os.kill(caller.pid, signal.SIGKILL)
    began = time.perf_counter()
    pool.run(pid_of)
    assert time.perf_counter() - began < 1.0
    caller.join()
    assert pool.status().reclaimed == reclaimed


def test_a_forked_child_leaves_its_parents_worker_alone(start: StartPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sticky, "FRESH", 60.0)  # a busy machine may take long to fork
    pool = start(EchoWorker, size=2)
    worker = pool.run(pid_of)
    assert processes(_call_in_child, (pool,)) == [0]
    assert pool.run(pid_of) == worker
    assert pool.status().checkouts == 3


# -- what a use is, and what becomes of a caller who comes too late ----------------------------------------------


def big(_: Any, size: int) -> bytes:
    return bytes(size)


def _call_for(pool: actorpool.Pool, seconds: float, ready: Any) -> None:
    """Take whatever worker there is, and keep it busy."""
    with pool.checkout() as lease:
        ready.set()
        lease.run(slow, seconds)


def busy_elsewhere(pool: actorpool.Pool, seconds: float) -> Any:
    """Another process that has a worker, and uses it for that long."""
    ready = FORK.Event()
    caller = FORK.Process(target=_call_for, args=(pool, seconds, ready))
    caller.start()
    assert ready.wait(10)
    return caller


def test_a_large_result_is_its_callers_before_anybody_else_has_the_worker(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    pool.run(pid_of)
    sizes: list[int] = []
    thread = threading.Thread(target=lambda: sizes.append(len(pool.run(big, 60_000_000, call_timeout=20))))
    thread.start()
    others = [busy_elsewhere(pool, 0.01) for _ in range(3)]
    thread.join(30)
    assert sizes == [60_000_000]
    for other in others:
        other.join(10)
        assert other.exitcode == 0


def test_a_worker_that_is_replaced_has_given_its_result_before(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    for _ in range(3):
        pool.run(pid_of)
        sizes: list[int] = []
        thread = threading.Thread(target=lambda sizes=sizes: sizes.append(len(pool.run(big, 30_000_000))))
        thread.start()
        pool.recycle(timeout=10, restart=True)
        thread.join(10)
        assert sizes == [30_000_000]


@pytest.mark.slow
def test_a_late_call_does_not_wait_for_somebody_elses(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    mine = pool.run(pid_of)
    other = busy_elsewhere(pool, 3.0)
    pool.resize(2)
    began = time.perf_counter()
    assert pool.run(pid_of, checkout_timeout=2.0) != mine
    assert time.perf_counter() - began < 2.0
    other.join()


@pytest.mark.slow
def test_a_late_call_waits_no_longer_than_it_may(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    pool.run(pid_of)
    other = busy_elsewhere(pool, 1.5)
    began = time.perf_counter()
    with pytest.raises(CheckoutTimeout):
        pool.run(pid_of, checkout_timeout=0.2)
    assert time.perf_counter() - began < 1.0
    other.join()


@pytest.mark.slow
def test_a_late_call_of_a_task_does_not_wait_for_somebody_elses(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)

    async def call() -> None:
        await pool.aio.run(pid_of)
        other = busy_elsewhere(pool, 1.5)
        with pytest.raises(CheckoutTimeout):
            await pool.aio.run(pid_of, checkout_timeout=0.2)
        other.join()

    began = time.perf_counter()
    asyncio.run(call())
    assert time.perf_counter() - began < 5.0


def test_a_recalled_caller_is_served_without_a_word(start: StartPool) -> None:
    pool = start(EchoWorker)
    for size in (3, 2, 3):
        pool.run(pid_of)
        pool.resize(size)
        assert pool.run(pid_of, checkout_timeout=1.0)


def test_a_first_call_that_is_refused_keeps_no_worker() -> None:
    with actorpool.start(max_message=100_000, log_level="CRITICAL") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
        with pytest.raises(actorpool.errors.MessageTooBig):
            pool.call("echo", b"x" * 200_000)
        assert processes(call_often, (pool, 1)) == [0]
        pool.drain(2)
        assert pool.status().reclaimed == 0


def test_a_worker_that_hangs_between_two_uses_is_replaced(start: StartPool, eventually: Eventually) -> None:
    pool = start(EchoWorker, size=1, checkout_timeout=0.5, kill_after=0.3)
    worker = pool.run(pid_of)
    os.kill(worker, signal.SIGSTOP)
    eventually(lambda: processes(_call_in_child, (pool,)) == [0], timeout=20)
    assert pool.status().restarts == 1


class Tidy(EchoWorker):
    """Takes its time to be pristine again."""

    def reset(self) -> None:
        """Longer than a recalled worker usually takes."""
        time.sleep(0.15)


def test_a_caller_whose_worker_still_tidies_up_when_it_ends_is_no_reclaim(
    start: StartPool, eventually: Eventually
) -> None:
    pool = start(Tidy, size=1, on_caller_death="restart")
    for _ in range(3):
        assert processes(_call_in_child, (pool,)) == [0]
    eventually(lambda: pool.status().workers == 1)
    status = pool.status()
    assert (status.reclaimed, status.restarts) == (0, 0)


@pytest.mark.parametrize("impatient", [{"timeout": 0.0}, {"block": False}], ids=["timeout", "block"])
def test_a_worker_that_still_tidies_up_is_idle(start: StartPool, impatient: dict[str, Any]) -> None:
    pool = start(Tidy, size=1)
    pool.run(pid_of)
    assert processes(_checkout_in_child, (pool, impatient)) == [0]


def _checkout_in_child(pool: actorpool.Pool, options: dict[str, Any]) -> None:
    pool.checkout(**options).checkin()


def test_what_was_used_and_given_back_is_disconnected_when_idle(start: StartPool, eventually: Eventually) -> None:
    pool = start(EchoWorker, size=1, idle_timeout=0.2)
    pool.run(pid_of)
    pool.checkout().checkin()
    eventually(lambda: pool.workers()[0].connected_at is None)
    assert pool.run(pid_of)


def test_a_suspended_pool_serves_nobody_who_kept_a_worker(start: StartPool) -> None:
    pool = start(EchoWorker)
    pool.run(pid_of)
    pool.suspend()
    with pytest.raises(CheckoutTimeout):
        pool.run(pid_of, checkout_timeout=0.1)
    pool.resume()
    assert pool.run(pid_of)


def test_a_drain_waits_for_what_runs_and_lets_nothing_more_in(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    pool.run(pid_of)
    thread = threading.Thread(target=pool.run, args=(slow, 0.3))
    thread.start()
    time.sleep(0.05)  # it has begun: the worker was this process's already
    began = time.perf_counter()
    pool.drain(5)
    assert 0.1 < time.perf_counter() - began < 2
    thread.join()
    with pytest.raises(CheckoutTimeout):
        pool.run(pid_of, checkout_timeout=0.1)


def test_recycle_replaces_a_worker_that_stays_with_a_caller(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    worker = pool.run(pid_of)
    pool.recycle(timeout=10, restart=True)
    assert pool.run(pid_of) != worker


def test_a_call_that_times_out_leaves_no_stale_answer(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    pool.run(pid_of)
    for number in range(5):
        with pytest.raises(actorpool.CallTimeout):
            pool.run(slow, 5.0, call_timeout=0.05)
        assert pool.call("echo", number) == number
    assert pool.status().monitors == 0


def test_a_message_gets_the_worker_that_stays_with_a_client(node: actorpool.System, start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    worker = pool.run(pid_of)
    for _ in range(3):
        request = actorpool.WithConnection(pool.name, pid_of)
        assert node.actor_system.ask(node.manager, request, 10).unwrap() == worker
        assert pool.run(pid_of) == worker
    assert pool.status().checkouts == 7


def test_threads_share_what_stays_with_their_process(start: StartPool) -> None:
    pool = start(EchoWorker, size=3)
    threads = [threading.Thread(target=call_often, args=(pool, 200)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    status = pool.status()
    assert status.checkouts == status.checkins == 1200
    assert (status.workers, status.monitors, status.waiting) == (3, 0, 0)


def test_asyncio_goes_on_without_the_pool(node: actorpool.System, start: StartPool) -> None:
    pool = start(EchoWorker)

    async def call() -> None:
        worker = await pool.aio.run(pid_of)
        with halted(pool_pid(node, pool.name)):
            assert {await pool.aio.run(pid_of) for _ in range(100)} == {worker}

    asyncio.run(call())
    status = pool.status()
    assert (status.checkouts, status.checkins, status.monitors) == (101, 101, 0)


def test_tasks_beyond_the_workers_are_all_served_while_others_want_them_too(start: StartPool) -> None:
    pool = start(EchoWorker, size=2)
    stop = threading.Event()
    errors: list[BaseException] = []

    def meddle() -> None:
        while not stop.is_set():
            try:
                with pool.checkout(timeout=10) as lease:
                    lease.run(slow, 0.001)
                pool.run(pid_of)
            except Exception as error:
                errors.append(error)
            time.sleep(0.003)

    async def call() -> None:
        async def task(number: int) -> None:
            for turn in range(40):
                assert await pool.aio.call("echo", (number, turn), checkout_timeout=10) == (number, turn)

        await asyncio.gather(*(task(number) for number in range(12)))

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        asyncio.run(call())
    finally:
        stop.set()
        thread.join()
    assert errors == []


def test_a_long_argument_that_a_recall_cuts_off_is_taken_elsewhere(node: actorpool.System, start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    value = bytes(3_000_000)

    async def call() -> None:
        for number in range(15):
            await pool.aio.run(pid_of)
            sent = asyncio.create_task(pool.aio.call("echo", value, checkout_timeout=10))
            await asyncio.sleep(0.0003 * (number % 5))
            pool.resize(1)
            assert await sent == value

    asyncio.run(call())
    assert pool.status().restarts == 0


def test_tasks_that_are_cancelled_leave_no_worker_out(start: StartPool, eventually: Eventually) -> None:
    pool = start(EchoWorker, size=3)
    leases = [pool.checkout() for _ in range(3)]
    for lease in leases:
        lease.run(pid_of)  # loads this module, which an interrupt had better not meet halfway
        lease.checkin()

    async def call() -> None:
        for number in range(60):
            tasks = [asyncio.create_task(pool.aio.run(slow, 0.001)) for _ in range(1 + number % 5)]
            await asyncio.sleep(0.0005 * (number % 4))
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await pool.aio.run(pid_of)

    asyncio.run(call())
    eventually(lambda: (pool.status().monitors, pool.status().workers, pool.status().waiting) == (0, 3, 0))


def test_a_pool_that_is_restarted_is_found_again(
    node: actorpool.System, start: StartPool, eventually: Eventually
) -> None:
    pool = start(EchoWorker)
    worker = pool.run(pid_of)
    os.kill(pool_pid(node, pool.name), signal.SIGKILL)
    eventually(lambda: pool.run(pid_of) != worker)  # it may serve until the kernel has ended it


def test_nobody_who_listens_misses_a_checkout(tmp_path: Any) -> None:
    log = tmp_path / "node.log"
    with actorpool.start(telemetry=actorpool.LoggingSink(), log_level="INFO", log_file=log) as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1)
        call_often(pool, 10)
        pool.status()
        assert log.read_text().count("pool.checkout") == 10
