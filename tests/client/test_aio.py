"""The asyncio client over the channel: the same results, any number of loops, and cancellation at every await."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from actorpool import LocalPool, PoolConfig
from actorpool._protocol.requests import HandleFacts
from actorpool.client.aio import AsyncPool
from actorpool.client.pool import Pool
from actorpool.errors import (
    CallTimeout,
    CheckoutTimeout,
    LeaseExpired,
    MethodNotFound,
    PoolDown,
    PoolFull,
    PoolNotFound,
    RemoteError,
    SystemDown,
    WorkerDied,
)
from actorpool.transport import aio
from actorpool.workers import EchoWorker
from tests.client.standin import Standin, add

Eventually = Callable[..., Any]
Test = Callable[[AsyncPool], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def running() -> Iterator[Standin]:
    with Standin(size=2) as standin:
        yield standin


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, running: Standin, eventually: Eventually) -> Iterator[Callable[[Test], None]]:
    """Run a coroutine function with the `AsyncPool`; afterwards both workers are to be idle again."""
    new_loop = asyncio.new_event_loop
    if request.param == "uvloop":
        new_loop = pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop
    pool = Pool(running.endpoint, "db")

    def run_in_loop(test: Test) -> None:
        loop = new_loop()
        try:
            loop.run_until_complete(test(pool.aio))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    yield run_in_loop
    gc.collect()
    eventually(lambda: (pool.status().workers, pool.status().monitors) == (2, 0))


async def soon(condition: Callable[[], Awaitable[bool]], timeout: float = 5.0) -> None:
    deadline = time.perf_counter() + timeout
    while not await condition():
        assert time.perf_counter() < deadline, "not in time"
        await asyncio.sleep(0.002)


async def both_idle(pool: AsyncPool) -> bool:
    status = await pool.status()
    return (status.workers, status.monitors, status.waiting) == (2, 0, 0)


def test_the_verbs_are_coroutines(run: Callable[[Test], None]) -> None:
    async def test(pool: AsyncPool) -> None:
        assert await pool.run(add, 1, 2) == 3
        assert await pool.with_connection(lambda _connection, x: x + 1, 1) == 2
        assert await pool.call("echo", "x") == "x"
        assert await pool.echo(value=[1]) == [1]
        assert len(await pool.workers()) == 2
        with pytest.raises(MethodNotFound):
            await pool.nothing()
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda _: 1 / 0)

    run(test)


def test_a_lease_can_be_awaited_or_entered(run: Callable[[Test], None]) -> None:
    async def test(pool: AsyncPool) -> None:
        async with pool.checkout() as lease:
            assert {await lease.pid() for _ in range(3)} == {lease.worker_pid}
            assert (await pool.leases())[0].id == lease.id
        assert lease.closed
        with pytest.raises(LeaseExpired):
            await lease.echo(1)
        lease = await pool.checkout(timeout=1)
        assert await lease.run(add, 1, 2) == 3
        async with lease:
            assert await lease.call("echo", 1) == 1
        second = await pool.checkout()
        await pool.checkin(second)
        with pytest.raises(ValueError, match="ended"):
            await pool.checkin(second)

    run(test)


def test_a_full_pool_refuses_at_once_or_after_the_timeout(run: Callable[[Test], None]) -> None:
    async def test(pool: AsyncPool) -> None:
        async with pool.checkout(), pool.checkout():
            with pytest.raises(PoolFull):
                await pool.checkout(block=False)
            with pytest.raises(CheckoutTimeout):
                await pool.checkout(timeout=0.05)

    run(test)


@pytest.mark.parametrize("size", [0, 65536, 5_000_000])
def test_values_of_any_size_cross_intact(run: Callable[[Test], None], size: int) -> None:
    async def test(pool: AsyncPool) -> None:
        values = [os.urandom(size) for _ in range(4)]
        assert await asyncio.gather(*[pool.echo(value) for value in values]) == values

    run(test)


def test_many_tasks_share_two_workers(run: Callable[[Test], None]) -> None:
    async def test(pool: AsyncPool) -> None:
        assert await asyncio.gather(*[pool.run(add, n, 1) for n in range(500)]) == list(range(1, 501))

    run(test)


def test_a_call_that_takes_too_long_leaves_no_stale_answer(run: Callable[[Test], None]) -> None:
    async def test(pool: AsyncPool) -> None:
        with pytest.raises(CallTimeout):
            await pool.call("sleep", 5, call_timeout=0.05)
        async with pool.checkout() as lease:
            with pytest.raises(CallTimeout):
                await lease.call("sleep", 5, call_timeout=0.05)
            with pytest.raises(LeaseExpired):
                await lease.echo(1)
        assert await asyncio.gather(*[pool.echo(n) for n in range(20)]) == list(range(20))

    run(test)


def test_a_cancelled_wait_is_forgotten_by_the_pool(run: Callable[[Test], None]) -> None:
    async def test(pool: AsyncPool) -> None:
        async with pool.checkout(), pool.checkout():
            waiting = asyncio.ensure_future(pool.checkout()._get())
            await soon(lambda: _waits(pool))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await soon(lambda: _nobody_waits(pool))
        await soon(lambda: both_idle(pool))

    async def _waits(pool: AsyncPool) -> bool:
        return (await pool.status()).waiting == 1

    async def _nobody_waits(pool: AsyncPool) -> bool:
        return (await pool.status()).waiting == 0

    run(test)


def test_a_cancelled_call_is_interrupted_and_its_worker_comes_back(run: Callable[[Test], None]) -> None:
    async def test(pool: AsyncPool) -> None:
        began = time.perf_counter()
        async with pool.checkout() as lease:
            call = asyncio.ensure_future(lease.sleep(5))
            await asyncio.sleep(0.02)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert lease.closed
        await soon(lambda: both_idle(pool))
        assert time.perf_counter() - began < 3
        assert [await pool.echo(n) for n in range(5)] == list(range(5))

    run(test)


@pytest.mark.parametrize("verb", ["run", "checkout", "lease", "transaction"])
def test_cancelling_at_every_step_loses_no_worker(run: Callable[[Test], None], verb: str) -> None:
    async def use(pool: AsyncPool, number: int) -> None:
        if verb == "run":
            assert await pool.run(add, number, 0) == number
        elif verb == "checkout":
            lease = await pool.checkout()
            await lease.checkin()
        elif verb == "lease":
            async with pool.checkout() as lease:
                assert await lease.echo(number) == number
                assert await lease.echo(-number) == -number
        else:
            async with pool.transaction() as lease:
                assert await lease.echo(number) == number

    async def test(pool: AsyncPool) -> None:
        await pool.echo("connected")
        cancelled = finished = 0
        for number in range(300):
            tasks = [asyncio.ensure_future(use(pool, number * 4 + k)) for k in range(4)]
            for _ in range(number % 40):  # a different moment each time, counted in turns of the loop
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, asyncio.CancelledError):
                    cancelled += 1
                elif outcome is None:
                    finished += 1
                else:
                    raise outcome
        assert cancelled >= 50
        assert finished >= 600
        await soon(lambda: both_idle(pool))
        assert await asyncio.gather(*[pool.echo(n) for n in range(50)]) == list(range(50))

    run(test)


def test_timeouts_from_outside_lose_no_worker(run: Callable[[Test], None]) -> None:
    async def test(pool: AsyncPool) -> None:
        late = 0
        for number in range(200):
            try:
                async with pool.checkout() as lease:
                    await asyncio.wait_for(lease.echo(number), (number % 20) * 2e-5)
            except asyncio.TimeoutError:
                late += 1
            try:
                lease = await asyncio.wait_for(pool.checkout()._get(), (number % 20) * 2e-5)
                await lease.checkin()
            except asyncio.TimeoutError:
                late += 1
        assert late
        await soon(lambda: both_idle(pool))

    run(test)


def test_a_dropped_lease_is_checked_in_with_a_warning(run: Callable[[Test], None]) -> None:
    async def test(pool: AsyncPool) -> None:
        lease = await pool.checkout()
        with pytest.warns(ResourceWarning, match="dropped while open"):
            del lease
        await soon(lambda: both_idle(pool))

    run(test)


def test_a_loop_that_ends_ends_its_leases(
    run: Callable[[Test], None], running: Standin, eventually: Eventually
) -> None:
    kept: list[Any] = []

    async def test(pool: AsyncPool) -> None:
        kept.append(await pool.checkout())
        await kept[0].echo(1)

    run(test)
    pool = Pool(running.endpoint, "db")

    async def elsewhere(other: AsyncPool) -> None:
        assert await other.echo(1) == 1

    run(elsewhere)
    eventually(lambda: pool.status().monitors == 0)
    kept.pop()._handle.end()


def test_each_loop_has_connections_of_its_own(running: Standin) -> None:
    pool = Pool(running.endpoint, "db")
    answers: list[int] = []

    async def work(number: int) -> None:
        for step in range(50):
            answers.append(await pool.aio.echo(number * 1000 + step) - number * 1000)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(work(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(list(range(50)) * 4)


def test_closed_loops_keep_no_descriptors(running: Standin, open_descriptors: Callable[[], dict[int, str]]) -> None:
    pool = Pool(running.endpoint, "db")

    async def work() -> None:
        await pool.aio.echo(1)

    asyncio.run(work())
    before = len(open_descriptors())
    for _ in range(10):
        asyncio.run(work())
    assert len(open_descriptors()) <= before


def test_a_worker_that_dies_is_told_or_passed_over() -> None:
    async def test(pool: AsyncPool) -> None:
        with pytest.raises(WorkerDied, match="may or may not"):
            await pool.die()
        for _ in range(10):
            pid = await pool.pid()
            os.kill(pid, signal.SIGKILL)
            assert await pool.pid() != pid
        lease = await pool.checkout()
        os.kill(lease.worker_pid, signal.SIGKILL)
        assert await lease.pid() == lease.worker_pid
        os.kill(lease.worker_pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await lease.echo(1)
        await lease.checkin()
        for lease in [await pool.checkout() for _ in range(2)]:
            await lease.be_unavailable(1)
            await lease.checkin()
        assert await pool.echo(1) == 1

    with Standin(size=2) as own:
        asyncio.run(test(Pool(own.endpoint, "db").aio))


def test_a_restarted_pool_is_found_again_and_one_that_ended_is_not() -> None:
    async def test(own: Standin, pool: AsyncPool) -> None:
        assert await pool.echo(1) == 1
        own.kill_pool()
        assert await asyncio.gather(*[pool.echo(n) for n in range(10)]) == list(range(10))
        own.kill_pool()
        assert (await pool.status()).size == 2
        lease = await pool.checkout()
        own.kill_pool()
        await pool.echo(1)
        await lease.checkin()
        own.manager(30.0)
        own.kill_pool()
        with pytest.raises(PoolDown, match="not serving"):
            await pool.checkout(timeout=0.2)

    async def ended(pool: AsyncPool) -> None:
        with pytest.raises(SystemDown):
            await pool.echo(1)

    with Standin(size=2) as own:
        pool = Pool(own.endpoint, "db", HandleFacts())
        asyncio.run(test(own, pool.aio))
        own.kill()
        asyncio.run(ended(pool.aio))


def test_an_unknown_pool_is_not_found(running: Standin) -> None:
    async def test() -> None:
        with pytest.raises(PoolNotFound):
            await Pool(running.endpoint, "other").aio.echo(1)

    asyncio.run(test())


def test_a_handle_can_be_pickled_and_read_by_a_human(running: Standin) -> None:
    pool = Pool(running.endpoint, "db").aio
    assert pool.name == pickle.loads(pickle.dumps(pool)).name == "db"
    assert "'db'" in repr(pool)


def test_a_forked_child_closes_what_the_loops_had_open(running: Standin) -> None:
    async def test() -> None:
        pool = Pool(running.endpoint, "db").aio
        async with pool.checkout() as lease:
            await lease.echo(1)
            open_before = [line.fd for line in list(aio._conns) if line.open]
            child = os.fork()
            if child == 0:
                closed = 0
                for fd in open_before:
                    try:
                        os.fstat(fd)
                    except OSError:
                        closed += 1
                os._exit(0 if closed == len(open_before) and lease.closed else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert await lease.echo(2) == 2

    asyncio.run(test())


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt("stop"), asyncio.CancelledError("no"), GeneratorExit(), StopIteration(4)]
)
def test_what_would_end_a_loop_or_cancel_a_task_arrives_as_an_error_with_that_cause(
    run: Callable[[Test], None], error: BaseException
) -> None:
    async def test(pool: AsyncPool) -> None:
        tasks = [asyncio.ensure_future(pool.run(fail, error))]
        async with pool.checkout() as lease:
            tasks.append(asyncio.ensure_future(lease.run(fail, error)))
            await asyncio.wait(tasks)
        local = LocalPool(PoolConfig(worker=EchoWorker))
        tasks.append(asyncio.ensure_future(local.aio.run(fail, error)))
        await asyncio.wait(tasks)
        local.close()
        for task in tasks:
            assert not task.cancelled()
            told = task.exception()
            assert isinstance(told, RemoteError)
            assert told.type_name == type(error).__name__
            assert type(told.cause) is type(told.__cause__) is type(error)
            assert told.cause.args == error.args
            assert told.type_name in str(told)

    run(test)


def fail(_connection: Any, error: BaseException) -> None:
    """A function that raises what it is given."""
    raise error
