"""Sandboxes under asyncio: tasks take turns, and a cancelled one costs nobody else anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from actorpool.errors import CallTimeout, CheckoutTimeout, LeaseExpired, MethodNotFound
from actorpool.testing import sandbox
from actorpool.workers import EchoWorker, Rollback
from tests.testing.kit import COUNT, add_by, count, count_by

StartPool = Callable[..., Any]


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 30))


async def add(pool: Any, x: int) -> None:
    await pool.execute(f"INSERT INTO t VALUES ({x})")


async def values(pool: Any) -> list[int]:
    return [row[0] for row in await pool.execute("SELECT x FROM t ORDER BY x")]


def test_everything_inside_is_gone_at_the_end(db: Any) -> None:
    async def main() -> None:
        async with sandbox(db) as box:
            await add(box, 1)
            await add(box.aio, 2)
            await add(db.aio, 3)
            assert await box.run(add_by, 4) == 4
            assert await db.aio.transaction(add_by, 5) == 5
            async with db.aio.transaction() as tx:
                await add(tx, 6)
                await add(db.aio, 7)
            async with box.checkout() as lease:
                await add(lease, 8)
            assert await values(db.aio) == list(range(1, 9))
            assert (await box.status()).monitors == 1
        assert (await db.aio.execute(COUNT)).scalar() == 0
        with pytest.raises(LeaseExpired):
            await box.run(count_by)

    run(main)


def test_both_forms_may_be_used_in_either_world(db: Any) -> None:
    async def main() -> None:
        async with sandbox(db.aio) as box:
            await add(box, 1)
            assert await asyncio.to_thread(count, db) == 1, "a thread with a copy of the context is in"
        with sandbox(db) as sync_box:
            await add(db.aio, 1)
            assert (await sync_box.aio.execute(COUNT)).scalar() == 1

    run(main)
    assert count(db) == 0


def test_nested_transactions_are_savepoints(db: Any) -> None:
    async def main() -> None:
        async with sandbox(db) as box:
            async with box.transaction() as outer:
                await add(outer, 1)
                with pytest.raises(ZeroDivisionError):
                    async with db.aio.transaction() as inner:
                        await add(inner, 2)
                        raise ZeroDivisionError
                async with db.aio.transaction() as inner:
                    await add(inner, 3)
                    raise Rollback
            assert await values(box) == [1]

    run(main)


def test_tasks_take_turns_and_never_come_between_a_transaction(db: Any) -> None:
    async def work(number: int) -> None:
        async with db.aio.transaction() as tx:
            before = await tx.run(count_by)
            for x in range(3):
                await add(tx, x)
                await asyncio.sleep(0)
            assert await tx.run(count_by) == before + 3
            if number % 2:
                raise Rollback

    async def main() -> None:
        async with sandbox(db) as box:
            await asyncio.gather(*[work(number) for number in range(6)], *[add(db.aio, 9) for _ in range(4)])
            assert (await box.execute(COUNT)).scalar() == 9 + 4

    run(main)


def test_tasks_that_are_created_in_the_block_of_a_lease_go_along_one_after_the_other(db: Any) -> None:
    async def child(number: int) -> None:
        async with db.aio.transaction() as tx:
            before = await tx.run(count_by)
            for x in range(3):
                await add(tx, x)
                await asyncio.sleep(0)
            assert await tx.run(count_by) == before + 3
            if number % 2:
                raise Rollback

    async def main() -> None:
        async with sandbox(db) as box:
            with pytest.raises(ZeroDivisionError):
                async with box.transaction() as outer:
                    await add(outer, 1)
                    await asyncio.gather(*[child(number) for number in range(4)], add(db.aio, 9))
                    assert await outer.run(count_by) == 1 + 2 * 3 + 1
                    raise ZeroDivisionError
            assert await values(box) == []

    run(main)


def test_a_lease_keeps_other_tasks_waiting(db: Any) -> None:
    async def main() -> None:
        async with sandbox(db) as box:
            entered, done = asyncio.Event(), asyncio.Event()

            async def holder() -> None:
                async with box.checkout() as lease:
                    await add(lease, 1)
                    entered.set()
                    await done.wait()

            task = asyncio.create_task(holder())
            await entered.wait()
            with pytest.raises(CheckoutTimeout):
                await box.run(count_by, checkout_timeout=0.1)
            done.set()
            assert await box.run(count_by) == 1
            await task

    run(main)


def test_a_cancelled_call_costs_its_turn_and_not_the_sandbox(postgres: StartPool) -> None:
    db = postgres()

    async def sleep(pool: Any) -> None:
        await pool.run(lambda conn: conn.execute("SELECT pg_sleep(60)"))

    async def transaction() -> None:
        async with db.aio.transaction() as tx:
            await add(tx, 2)
            await sleep(tx)

    async def main() -> None:
        async with sandbox(db) as box:
            await add(box, 1)
            for work in (sleep(box), sleep(db.aio), transaction()):
                task = asyncio.create_task(work)
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await values(box) == [1]
            with pytest.raises(CallTimeout):
                await box.run(lambda conn: conn.execute("SELECT pg_sleep(60)"), call_timeout=0.1)
            assert await values(box) == [1]
        assert (await db.aio.execute(COUNT)).scalar() == 0

    run(main)


def test_one_that_is_cancelled_while_it_waits_leaves_no_trace(db: Any) -> None:
    async def hold(pool: Any, entered: asyncio.Event, leave: asyncio.Event) -> None:
        async with pool.transaction() as tx:
            await add(tx, 1)
            entered.set()
            await leave.wait()

    async def wait_behind(pool: Any) -> None:
        """One task has the worker, another one waits for it and is cancelled, a third one gets it."""
        entered, leave = asyncio.Event(), asyncio.Event()
        holder = asyncio.create_task(hold(pool, entered, leave))
        await entered.wait()
        cancelled, third = asyncio.create_task(add(pool, 7)), asyncio.create_task(add(pool, 2))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        leave.set()
        await asyncio.gather(holder, third)

    async def main() -> None:
        async with sandbox(db) as box:
            await wait_behind(box)  # for a turn in the sandbox
            async with box.checkout():
                await wait_behind(db.aio)  # for the lease in whose block they were created
            # What is cancelled while a thread waits for it (messages, local pools) may still be run by that thread.
            assert await values(box) in ([1, 1, 2, 2], [1, 1, 2, 2, 7])

    run(main)


def test_a_sandbox_whose_task_is_cancelled_is_left_in_order(db: Any, eventually: Callable[..., Any]) -> None:
    async def work(entered: asyncio.Event) -> None:
        async with sandbox(db) as box:
            await add(box, 1)
            entered.set()
            await asyncio.sleep(60)

    async def main() -> None:
        entered = asyncio.Event()
        task = asyncio.create_task(work(entered))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert count(db) == 0
    eventually(lambda: db.status().monitors == 0)


def test_sandboxes_of_two_tasks_do_not_see_each_other(postgres: StartPool) -> None:
    db = postgres()

    async def work(x: int, together: list[asyncio.Event]) -> list[int]:
        async with sandbox(db):
            for _ in range(3):
                await add(db.aio, x)
            together[x].set()
            await asyncio.gather(*[event.wait() for event in together])
            return await values(db.aio)

    async def main() -> None:
        together = [asyncio.Event() for _ in range(3)]
        assert await asyncio.gather(*[work(x, together) for x in range(3)]) == [[x] * 3 for x in range(3)]
        assert await values(db.aio) == []

    run(main)


def test_a_task_that_outlives_the_sandbox_is_told_so(db: Any) -> None:
    async def main() -> None:
        over = asyncio.Event()

        async def late() -> None:
            await over.wait()
            await add(db.aio, 1)

        async with sandbox(db):
            task = asyncio.create_task(late())
            await asyncio.sleep(0)
        over.set()
        with pytest.raises(LeaseExpired, match="sandbox is over"):
            await task
        assert (await db.aio.execute(COUNT)).scalar() == 0

    run(main)


def test_shared_it_holds_for_threads_of_an_executor(db: Any) -> None:
    async def main() -> None:
        async with sandbox(db, shared=True) as box:
            await add(box, 1)
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(None, count, db) == 1

    run(main)


def test_a_worker_without_transactions_has_no_sandbox(start: StartPool) -> None:
    db = start(EchoWorker)

    async def main() -> None:
        with pytest.raises(MethodNotFound, match="for SQL workers"):
            async with sandbox(db):
                pass

    run(main)
    assert db.echo(1) == 1
