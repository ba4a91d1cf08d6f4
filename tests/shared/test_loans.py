"""A caller that is alone with a connection talks to its worker itself; nobody can tell, but by the clock."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import actorpool
from actorpool import SharedPool
from actorpool.errors import CallTimeout, MethodNotFound, NoResource, WorkerDied
from actorpool.messages import Event, Subscribe
from actorpool.transport import client as lines
from actorpool.workers import EchoWorker
from tests.shared.kit import Book, tokens

Eventually = Callable[..., Any]


def lent(shared: SharedPool) -> int:
    """How many connections are lent to the free line of this thread."""
    line = lines.take_free(shared._transport.path)
    assert line is not None
    lines.give(line)
    return len(line.loans)


def alone(shared: SharedPool, resource: str = "book") -> None:
    """Call until the connection is lent to us."""
    for number in range(20):
        shared.call(resource, "write" if resource == "book" else "echo", f"alone{number}")
        if lent(shared):
            return
    raise AssertionError("never lent")


def test_a_caller_alone_goes_past_the_pool(shared: SharedPool) -> None:
    id = shared.add(Book)
    alone(shared)
    pool = psutil.Process(shared.info(id).pid).parent()
    assert pool is not None
    alone(shared)
    pool.suspend()
    try:
        assert [shared.call("book", "write", number) for number in range(100)] == list(range(100))
        assert shared.call("book", "wait", 0.0, token="any method") == "any method"
    finally:
        pool.resume()


def test_the_figures_are_exact_to_who_asks(shared: SharedPool) -> None:
    id = shared.add(Book)
    for total in (5, 50, 200):
        before = shared.info(id).stats["write"].count
        for number in range(total - before):
            shared.call("book", "write", number)
        info = shared.info(id)
        assert info.stats["write"].count == total
        assert info.last_call is not None
        assert abs(time.time() - info.last_call) < 1.0
    for _ in range(10):
        with pytest.raises(LookupError):
            shared.call("book", "fail", LookupError("no"))
    assert shared.info(id).stats["fail"].errors == 10
    assert shared.pop(id).stats["write"].count == 200


def test_somebody_else_is_served_as_soon_as_the_lent_call_is_over(shared: SharedPool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    shared.add(Book, {"log": str(log)})
    alone(shared)
    long = threading.Thread(target=shared.call, args=("book", "wait", 0.2, "long"))
    long.start()
    while "long" not in tokens(log):
        pass
    others = [threading.Thread(target=shared.call, args=("book", "write", f"other{n}")) for n in range(3)]
    for other in others:
        other.start()
    for thread in (long, *others):
        thread.join(5)
    assert sorted(tokens(log)[-4:]) == ["long", "other0", "other1", "other2"]
    assert tokens(log)[-4] == "long"


def test_two_callers_by_turns_are_both_served(shared: SharedPool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    id = shared.add(Book, {"log": str(log)})

    def caller(name: str) -> None:
        for number in range(200):
            assert shared.call("book", "write", f"{name}{number}") == f"{name}{number}"
            if number % 20 == 0:
                time.sleep(0.002)  # alone for a while, now and then

    callers = [threading.Thread(target=caller, args=(name,)) for name in "ab"]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert sorted(tokens(log)) == sorted(f"{name}{number}" for name in "ab" for number in range(200))
    assert shared.info(id).stats["write"].count == 400


def test_errors_are_those_that_the_pool_would_tell(shared: SharedPool) -> None:
    shared.add(Book)
    alone(shared)
    with pytest.raises(LookupError, match="no such page") as raised:
        shared.call("book", "fail", LookupError("no such page"))
    assert "in fail" in raised.value.remote_traceback  # type: ignore[attr-defined]
    with pytest.raises(MethodNotFound):
        shared.call("book", "nothing")
    with pytest.raises(TypeError, match="pickle"):
        shared.call("book", "raw")
    with pytest.raises(NoResource):
        shared.call("elsewhere", "write", 1)
    assert shared.call("book", "write", "fine") == "fine"


def test_a_call_with_a_timeout_calls_the_connection_back(shared: SharedPool) -> None:
    shared.add(Book)
    alone(shared)
    with pytest.raises(CallTimeout) as late:
        shared.call("book", "wait", 20, timeout=0.05)
    assert late.value.started
    assert shared.call("book", "write", "goes on") == "goes on"


def test_a_lent_connection_that_closes_is_closed_for_the_next_question(shared: SharedPool) -> None:
    for _ in range(20):
        shared.add(Book)
        alone(shared)
        assert shared.call("book", "shut", "goodbye") == "goodbye"
        assert shared.is_empty("book")
        with pytest.raises(NoResource):
            shared.call("book", "write", 1)


def test_a_lent_connection_that_pauses_is_seen_to_pause(shared: SharedPool) -> None:
    id = shared.add(Book)
    alone(shared)
    shared.call("book", "pause", 0.2)
    assert 0.1 < shared.info(id).cooldown <= 0.2
    began = time.monotonic()
    shared.call("book", "write", 1)
    assert time.monotonic() - began > 0.1


def test_a_lent_connection_that_is_lost_is_revived(shared: SharedPool, eventually: Eventually) -> None:
    id = shared.add(Book, revive=True)
    alone(shared)
    connected = shared.info(id).connected_at or 0
    alone(shared)
    with pytest.raises(ConnectionResetError):
        shared.call("book", "lose")
    assert eventually(lambda: shared.call("book", "write", "again")) == "again"
    assert (shared.info(id).connected_at or 0) > connected


def test_a_process_that_dies_in_a_lent_call_is_told_and_one_that_died_before_is_not_noticed(
    shared: SharedPool, eventually: Eventually
) -> None:
    first = shared.add(Book)
    alone(shared)
    second = shared.add(Book)
    pid = shared.info(second).pid
    with pytest.raises(WorkerDied, match="may have taken effect and was not repeated"):
        shared.call("book", "die")
    assert shared.call("book", "pid") == pid

    def is_gone() -> bool:
        try:
            shared.info(first)
        except LookupError:
            return True
        return False

    eventually(is_gone)  # the caller knew before the pool did
    third = shared.add(Book)
    alone(shared)
    os.kill(pid or 0, signal.SIGKILL)
    assert shared.call("book", "pid") == shared.info(third).pid


def test_a_caller_that_dies_leaves_its_connection_to_the_others(shared: SharedPool, eventually: Eventually) -> None:
    shared.add(Book)
    script = f"""
from actorpool.client.shared import SharedPool
pool = SharedPool({str(shared._transport.endpoint.directory)!r}, {shared.name!r})
for number in range(10):
    pool.call("book", "write", number)
print("alone", flush=True)
pool.call("book", "wait", 0.3)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"alone\n"
        caller.kill()
    began = time.monotonic()
    assert shared.call("book", "write", "mine") == "mine"
    assert time.monotonic() - began < 2.0


def test_a_forked_copy_does_not_use_what_was_lent_to_its_parent(shared: SharedPool) -> None:
    shared.add(Book)
    alone(shared)
    child = os.fork()
    if child == 0:
        os._exit(0 if shared.call("book", "write", "child") == "child" else 1)
    assert shared.call("book", "write", "parent") == "parent"
    assert os.waitpid(child, 0)[1] == 0


def test_resources_that_are_called_by_turns_are_all_lent(shared: SharedPool) -> None:
    for number in range(5):
        shared.add(EchoWorker, resource=f"echo{number}")
    for _ in range(20):
        for number in range(5):
            assert shared.call(f"echo{number}", "echo", number) == number
    assert lent(shared) == 5


def test_who_subscribes_to_calls_hears_of_each_one_from_then_on() -> None:
    with actorpool.start() as system, system.actor_system.private() as context:
        shared = system.start_shared_pool("shared")
        shared.add(EchoWorker, resource="echo")
        alone(shared, "echo")
        context.ask(system.manager, Subscribe("call.done"), 5)
        shared.is_empty("echo")  # asked after the subscription has arrived
        heard = 0
        for _ in range(10):
            shared.call("echo", "echo", 1)
        while heard < 10 and isinstance(context.listen(2), Event):
            heard += 1
        assert heard == 10


def test_a_call_that_is_under_way_when_somebody_subscribes_is_the_last_one_unheard(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with actorpool.start() as system, system.actor_system.private() as context:
        shared = system.start_shared_pool("shared")
        shared.add(Book, {"log": str(log)})
        alone(shared)
        gate = tmp_path / "gate"

        def caller() -> None:
            shared.call("book", "wait_for", str(gate), "under way")
            for number in range(10):
                shared.call("book", "write", number)

        thread = threading.Thread(target=caller)
        thread.start()
        while "under way" not in tokens(log):
            pass
        context.ask(system.manager, Subscribe("call.done"), 5)  # answered although the call goes on and on
        gate.touch()
        thread.join()
        heard = [context.listen(2) for _ in range(10)]
        assert [event.metadata["method"] for event in heard] == ["write"] * 10


def test_a_pool_that_hangs_keeps_who_subscribes_for_a_moment_only() -> None:
    with actorpool.start() as system, system.actor_system.private() as context:
        shared = system.start_shared_pool("shared")
        pool = psutil.Process(shared.info(shared.add(EchoWorker, resource="echo")).pid).parent()
        assert pool is not None
        pool.suspend()
        try:
            began = time.monotonic()
            answer = context.ask(system.manager, Subscribe("call.done"), 10)
            assert answer.unwrap() is None
            assert 0.5 < time.monotonic() - began < 5
        finally:
            pool.resume()

        def heard() -> bool:
            shared.call("echo", "echo", 1)  # the first one may be done before the pool has heard of the subscription
            return isinstance(context.listen(0.2), Event)

        assert any(heard() for _ in range(25))


def test_a_task_alone_goes_past_the_pool_and_two_do_not(shared: SharedPool) -> None:
    async def main() -> None:
        pool = shared.aio
        id = await pool.add(Book)
        for number in range(50):
            assert await pool.call("book", "write", number) == number
        assert (await pool.info(id)).stats["write"].count == 50

        async def caller(name: str) -> list[str]:
            return [await pool.call("book", "write", f"{name}{number}") for number in range(50)]

        assert await asyncio.gather(caller("a"), caller("b")) == [
            [f"{name}{number}" for number in range(50)] for name in "ab"
        ]
        assert (await pool.info(id)).stats["write"].count == 150
        running = asyncio.create_task(pool.call("book", "wait", 0.2))
        await asyncio.sleep(0)
        running.cancel()
        assert await pool.call("book", "write", "next") == "next"
        with pytest.raises(WorkerDied):
            for _ in range(10):
                await pool.call("book", "write", 1)
            await pool.call("book", "die")

    asyncio.run(main())
