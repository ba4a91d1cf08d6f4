"""Shared pools from asyncio."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import SharedPool
from actorpool.errors import CallTimeout, MethodNotFound, NoMatch, NoResource, UnknownConnection, WorkerDied
from actorpool.workers import EchoWorker
from tests.shared.kit import Book, tokens

Eventually = Callable[..., Any]


def test_the_verbs_are_coroutines(shared: SharedPool) -> None:
    async def main() -> None:
        pool = shared.aio
        id = await pool.add(EchoWorker, resource="echo", extra={"n": 1})
        assert await pool.call("echo", "add", 1, b=2) == 3
        assert await pool.call("echo", "echo", 5, where={"n": 1}, timeout=5) == 5
        assert await pool.map("echo", "echo", 6) == {id: 6}
        assert (await pool.info(id)).stats["echo"].count == 2
        assert await pool.extra(id, 7) == {"n": 1}
        assert await pool.update("echo", ttl=60) == 1
        assert await pool.resources() == ["echo"]
        assert await pool.is_empty("echo") is False
        assert (await pool.pop(id)).extra == 7
        assert await pool.pop_all("echo") == []
        with pytest.raises(UnknownConnection):
            await pool.info(id)
        with pytest.raises(NoResource):
            await pool.call("echo", "echo")

    asyncio.run(main())


def test_errors_are_those_of_the_blocking_verbs(shared: SharedPool) -> None:
    async def main() -> None:
        pool = shared.aio
        await pool.add(Book)
        with pytest.raises(MethodNotFound):
            await pool.call("book", "nothing")
        with pytest.raises(NoMatch):
            await pool.call("book", "pid", where={"n": 1})
        with pytest.raises(LookupError, match="as asked"):
            await pool.call("book", "fail", LookupError("as asked"))
        with pytest.raises(CallTimeout):
            await pool.call("book", "wait", 20, timeout=0.05)
        with pytest.raises(WorkerDied):
            await pool.call("book", "die")

    asyncio.run(main())


def test_calls_of_one_loop_begin_in_the_order_in_which_they_were_made(shared: SharedPool, tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        await shared.aio.add(Book, {"log": str(log)})
        names = [f"call{number}" for number in range(300)]
        assert await asyncio.gather(*(shared.aio.call("book", "write", name) for name in names)) == names
        assert tokens(log) == names

    asyncio.run(main())


def test_a_cancelled_call_leaves_its_queue(shared: SharedPool, tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        pool = shared.aio
        id = await pool.add(Book, {"log": str(log)})
        running = asyncio.create_task(pool.call("book", "wait", 0.3, "runs"))
        while not tokens(log):
            await asyncio.sleep(0.005)
        waiting = asyncio.create_task(pool.call("book", "write", "waits"))
        while (await pool.info(id)).waiting != 1:
            await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await pool.info(id)).waiting == 0
        assert await running == "runs"
        await pool.call("book", "write", "last")
        assert tokens(log) == ["runs", "last"]

    asyncio.run(main())


def test_a_cancelled_call_that_runs_is_left_to_end(shared: SharedPool, tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        pool = shared.aio
        id = await pool.add(Book, {"log": str(log)})
        pid = (await pool.info(id)).pid
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pool.call("book", "wait", 0.3, "runs"), 0.1)
        began = time.monotonic()
        assert await pool.call("book", "pid") == pid
        assert time.monotonic() - began > 0.1, "it waited for the one that runs"

    asyncio.run(main())


def test_the_end_of_a_loop_takes_its_waiting_calls_along(
    shared: SharedPool, tmp_path: Path, eventually: Eventually
) -> None:
    log = tmp_path / "log"
    id = shared.add(Book, {"log": str(log)})

    async def main() -> None:
        tasks = [asyncio.create_task(shared.aio.call("book", "wait", 0.3, "runs"))]
        tasks += [asyncio.create_task(shared.aio.call("book", "write", "waits")) for _ in range(3)]
        while (await shared.aio.info(id)).waiting != 3:
            await asyncio.sleep(0.005)

    asyncio.run(main())
    eventually(lambda: shared.info(id).waiting == 0)
    assert shared.call("book", "write", "last") == "last"
    assert tokens(log) == ["runs", "last"]


def test_a_handle_works_in_several_loops_and_travels(shared: SharedPool) -> None:
    shared.add(EchoWorker, resource="echo")
    copy = pickle.loads(pickle.dumps(shared.aio))
    for number in range(3):
        assert asyncio.run(copy.call("echo", "echo", number)) == number
    assert "asyncio side of <shared pool" in repr(copy)


def test_without_a_channel_calls_are_made_in_threads() -> None:
    async def main(pool: SharedPool) -> None:
        await pool.aio.add(EchoWorker, resource="echo")
        calls = (pool.aio.call("echo", "sleep", 0.01, number) for number in range(5))
        assert await asyncio.gather(*calls) == list(range(5))
        assert list((await pool.aio.map("echo", "echo", 1)).values()) == [1]

    with actorpool.start(base="multiprocUDPBase") as system:
        asyncio.run(main(system.start_shared_pool("shared")))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("stop"), asyncio.CancelledError("no")])
def test_what_would_end_a_loop_or_cancel_a_task_arrives_as_an_error_with_that_cause(
    shared: SharedPool, error: BaseException
) -> None:
    async def main() -> None:
        await shared.aio.add(Book)
        for _ in range(2):  # by the pool, and straight to the worker
            task = asyncio.ensure_future(shared.aio.call("book", "fail", error))
            await asyncio.wait([task])
            assert not task.cancelled()
            told = task.exception()
            assert isinstance(told, actorpool.RemoteError)
            assert type(told.cause) is type(error)
        assert await shared.aio.call("book", "write", 1) == 1

    asyncio.run(main())
