"""The same verbs as coroutines."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import actorpool
from actorpool import CallTimeout, CheckoutTimeout, LeaseExpired, PoolFull
from tests.acceptance import kit


def test_the_verbs_are_coroutines(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(size=2)

    async def use() -> None:
        a = p.aio
        assert isinstance(a, actorpool.AsyncPool)
        assert await a.run(kit.give_back, 1, b=2) == ((1,), {"b": 2})
        assert await a.with_connection(kit.type_name) == "Toy"
        assert await a.call("add", 1, b=2) == 3
        assert await a.echo("attribute") == "attribute"
        assert (await a.status()).size == 2
        assert await a.leases() == []
        assert len(await a.workers()) == 2
        await a.suspend()
        assert (await a.status()).state == "suspended"
        await a.resume()
        await a.resize(size=1)
        await a.drain(2)
        await a.resume()
        await a.recycle(5)
        assert await a.echo(1) == 1

    asyncio.run(use())


def test_checkout_can_be_awaited_or_entered(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool()

    async def use() -> None:
        async with p.aio.checkout(timeout=5) as lease:
            assert isinstance(lease, actorpool.AsyncLease)
            assert await lease.pid() == lease.worker_pid
            assert await lease.run(kit.pid_of) == lease.worker_pid
            assert await lease.call("echo", 1) == 1
            assert [held.id for held in await p.aio.leases()] == [lease.id]
            assert not lease.closed
        assert lease.closed
        with pytest.raises(LeaseExpired):
            await lease.echo(1)
        other = await p.aio.checkout()
        assert await other.echo(2) == 2
        await other.checkin()
        third = await p.aio.checkout()
        await p.aio.checkin(third)
        async with await p.aio.checkout() as fourth:
            assert await fourth.echo(4) == 4

    asyncio.run(use())
    eventually(lambda: p.status().monitors == 0)


def test_a_hundred_tasks_share_four_workers_without_a_thread_each(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(size=4, checkout_timeout=20)

    async def use() -> int:
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            assert await p.aio.echo(number) == number
            most = max(most, threading.active_count())

        await asyncio.gather(*(one(number) for number in range(100)))
        return most

    before = threading.active_count()
    assert asyncio.run(use()) <= before + 1


def test_the_loop_stays_free_while_a_call_runs(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()

    async def use() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        await p.aio.call("sleep", 0.5)
        ticking.cancel()
        return ticks

    assert asyncio.run(use()) > 15


def test_errors_are_those_of_the_blocking_side(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()

    async def use() -> None:
        with pytest.raises(LookupError, match="bang"):
            await p.aio.boom("bang")
        with pytest.raises(CallTimeout):
            await p.aio.call("sleep", 10, call_timeout=0.1)
        assert await p.aio.echo(1) == 1
        async with p.aio.checkout():
            with pytest.raises(PoolFull):
                await p.aio.checkout(block=False)
            started = time.monotonic()
            with pytest.raises(CheckoutTimeout):
                await p.aio.checkout(timeout=0.1)
            assert time.monotonic() - started < 2

    asyncio.run(use())


def test_cancelling_a_waiter_takes_it_off_the_queue(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool()

    async def use() -> None:
        async with p.aio.checkout():
            waiting = asyncio.ensure_future(p.aio.echo(1))
            while (await p.aio.status()).waiting != 1:
                await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            deadline = time.monotonic() + 3
            while (await p.aio.status()).waiting and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            assert (await p.aio.status()).waiting == 0

    asyncio.run(use())
    assert p.echo("whole") == "whole"


def test_cancelling_a_running_call_gives_the_worker_back(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(kill_after=1)

    async def use() -> None:
        running = asyncio.ensure_future(p.aio.call("sleep", 30))
        while (await p.aio.status()).monitors != 1:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(use())
    eventually(lambda: p.status().monitors == 0 and p.status().workers == 1)
    assert p.echo(1) == 1


def test_cancelling_at_any_moment_loses_no_worker(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=2)

    async def use() -> None:
        for number in range(60):
            task = asyncio.ensure_future(p.aio.echo(number))
            await asyncio.sleep(number * 0.00002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(use())
    eventually(lambda: p.status().workers == 2 and p.status().monitors == 0)
    assert [p.echo(n) for n in range(10)] == list(range(10))


def test_a_block_under_wait_for_gives_its_worker_back(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool()

    async def hold() -> None:
        async with p.aio.checkout() as lease:
            await lease.sleep(30)

    async def use() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(hold(), 0.2)

    asyncio.run(use())
    eventually(lambda: p.status().workers == 1)


def test_one_handle_serves_several_event_loops_one_after_another(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()

    async def use(value: int) -> Any:
        return await p.aio.echo(value)

    assert [asyncio.run(use(n)) for n in range(5)] == list(range(5))


def test_event_loops_in_two_threads_do_not_disturb_each_other(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool(size=2)
    said: list[Any] = []

    async def use(number: int) -> None:
        for turn in range(50):
            said.append(await p.aio.echo((number, turn)) == (number, turn))

    threads = [threading.Thread(target=lambda n=n: asyncio.run(use(n))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert said == [True] * 150


def test_loops_leave_no_descriptor_behind(
    pool: Callable[..., actorpool.Pool], open_descriptors: Callable[[], Any]
) -> None:
    p = pool()

    async def use() -> None:
        await p.aio.echo(1)
        async with p.aio.checkout() as lease:
            await lease.echo(2)

    asyncio.run(use())
    before = len(open_descriptors())
    for _ in range(10):
        asyncio.run(use())
    assert len(open_descriptors()) <= before


def test_an_async_lease_that_is_dropped_is_given_back(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool()

    async def use() -> None:
        import gc

        lease = await p.aio.checkout()
        assert lease.worker_pid != os.getpid()
        with pytest.warns(ResourceWarning):
            del lease
            gc.collect()
        deadline = time.monotonic() + 3
        while (await p.aio.status()).monitors and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert (await p.aio.status()).monitors == 0

    asyncio.run(use())
    assert p.echo(1) == 1


def test_a_killed_idle_worker_is_not_noticed_by_coroutines_either(
    pool: Callable[..., actorpool.Pool], kill: Callable[[int], None]
) -> None:
    p = pool(size=1, max_restarts=100)

    async def use() -> None:
        for number in range(10):
            (worker,) = await p.aio.workers()
            os.kill(worker.pid, 9)
            assert await p.aio.echo(number) == number
            deadline = time.monotonic() + 3
            while (await p.aio.status()).workers != 1 and time.monotonic() < deadline:
                await asyncio.sleep(0.01)

    asyncio.run(use())


def test_transactions_run_as_coroutines(pool: Callable[..., actorpool.Pool], tmp_path: Any) -> None:
    from actorpool.workers import SqliteWorker

    p = pool(SqliteWorker, worker_args={"database": str(tmp_path / "t.db")})

    async def use() -> None:
        a = p.aio
        await a.execute("create table t (x int)")
        assert await a.transaction(insert, 1) == "inserted"
        with pytest.raises(RuntimeError):
            await a.transaction(insert_then_fail, 2)
        async with a.transaction() as tx:
            await tx.execute("insert into t values (3)")
        with pytest.raises(RuntimeError):
            async with a.transaction() as tx:
                await tx.execute("insert into t values (4)")
                raise RuntimeError
        assert (await a.execute("select x from t order by x")).rows == [(1,), (3,)]

    asyncio.run(use())


def insert(connection: Any, x: int) -> str:
    connection.execute("insert into t values (?)", (x,))
    return "inserted"


def insert_then_fail(connection: Any, x: int) -> None:
    insert(connection, x)
    raise RuntimeError("after the insert")
