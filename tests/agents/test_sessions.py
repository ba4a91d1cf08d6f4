"""One worker for each conversation: its state is met again, or its loss is told once."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import actorpool
from actorpool.agents import PythonWorker, Sessions, conversation, explain
from actorpool.errors import InvalidConfig, SessionLost, WorkerDied
from actorpool.workers import Worker, method


class Basket(Worker):
    """Remembers what is put into it."""

    def open(self) -> None:
        self.things: list[str] = []

    def reset(self) -> None:
        self.things = []

    @method
    def put(self, thing: str, times: int = 1) -> list[str]:
        """Put something in."""
        self.things += [thing] * times
        return self.things

    @method
    def die(self) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as system:
        yield system


@pytest.fixture
def make(node: actorpool.System) -> Iterator[Callable[..., Sessions]]:
    made: list[Sessions] = []

    def sessions(**fields: Any) -> Sessions:
        made.append(Sessions(Basket, **{"size": 2, **fields}))
        made[-1].start(node)
        return made[-1]

    yield sessions
    for one in made:
        one.stop()


def test_the_tools_of_a_session_look_like_methods_without_self(make: Callable[..., Sessions]) -> None:
    put, die = make().tools
    assert str(inspect.signature(put)) == "(thing: str, times: int = 1) -> list[str]"
    assert (put.__name__, put.__doc__, die.__name__) == ("put", "Put something in.", "die")
    assert inspect.iscoroutinefunction(put)


def test_conversations_have_separate_states_also_at_once(make: Callable[..., Sessions]) -> None:
    put = make(size=3).tools[0]

    async def talk(name: str) -> list[str]:
        with conversation("chat", name):
            for _ in range(3):
                found = await put(name)
            return found

    async def all_talk() -> list[list[str]]:
        return await asyncio.gather(*map(talk, "abc"))

    assert asyncio.run(all_talk()) == [["a"] * 3, ["b"] * 3, ["c"] * 3]
    with conversation("chat", "a"):
        assert put.sync("d") == ["a", "a", "a", "d"]


def test_a_call_that_belongs_to_no_conversation_is_refused(make: Callable[..., Sessions]) -> None:
    sessions = make()
    with pytest.raises(LookupError, match="conversation"):
        sessions.tools[0].sync("a")
    with pytest.raises(LookupError, match="conversation"):
        asyncio.run(sessions.tools[0]("a"))


def test_the_key_may_come_from_a_function(make: Callable[..., Sessions]) -> None:
    sessions = make(key=lambda: "always")
    sessions.tools[0].sync("a")
    assert sessions.tools[0].sync("b") == ["a", "b"]
    assert sessions.keys() == ["always"]
    assert sessions.end("always") is True
    assert sessions.end("always") is False
    assert sessions.keys() == []
    assert sessions.tools[0].sync("c") == ["c"]


def test_a_block_has_the_worker_for_several_calls(make: Callable[..., Sessions]) -> None:
    sessions = make()

    async def block() -> list[str]:
        async with sessions("k") as lease:
            await lease.put("a")
            return await lease.put("b")

    assert asyncio.run(block()) == ["a", "b"]
    with sessions("k") as lease:
        assert lease.put("c") == ["a", "b", "c"]


def in_time(work: Any) -> Any:
    """The result of a coroutine that must not wait for itself."""

    async def bounded() -> Any:
        return await asyncio.wait_for(work, 20.0)

    return asyncio.run(bounded())


def test_what_is_called_in_a_block_uses_the_lease_of_the_block(make: Callable[..., Sessions]) -> None:
    sessions = make(size=1)
    put = sessions.tools[0]

    async def block() -> list[str]:
        async with sessions(("a",)) as lease:
            await lease.put("a")
            with conversation("a"):
                await put("b")
                await asyncio.to_thread(put.sync, "c")
                await asyncio.to_thread(asyncio.run, put("d"))
                await asyncio.gather(put("e"), put("e"))
                async with sessions(("a",)) as inner:
                    assert inner is lease
                with pytest.raises(RuntimeError, match="await put"):
                    put.sync("x")
                with pytest.raises(RuntimeError, match="both by"):
                    sessions(("a",)).__enter__()
            return await lease.put("f")

    assert in_time(block()) == ["a", "b", "c", "d", "e", "e", "f"]
    with sessions(("a",)) as lease, conversation("a"):
        put.sync("g")
        in_time(put("h"))
        with sessions(("a",)) as inner:
            assert inner is lease
        assert lease.put("i")[-3:] == ["g", "h", "i"]
    with conversation("a"):
        assert put.sync("j")[-1] == "j"
    assert len(sessions.keys()) == 1


def test_other_conversations_in_a_block_have_workers_of_their_own(make: Callable[..., Sessions]) -> None:
    sessions = make(size=2)
    put = sessions.tools[0]
    with sessions(("a",)) as lease:
        lease.put("a")
        with conversation("b"):
            assert put.sync("b") == ["b"]
        with conversation("a"):
            assert put.sync("a") == ["a", "a"]


def test_a_block_of_which_the_lease_is_over_does_not_stand_in_the_way(make: Callable[..., Sessions]) -> None:
    sessions = make(size=1)
    put, die = sessions.tools
    with sessions(("a",)) as lease, conversation("a"):
        with pytest.raises(WorkerDied):
            die.sync()
        assert lease.closed
        with pytest.raises(SessionLost):
            put.sync("a")
        assert put.sync("b") == ["b"]


@pytest.mark.slow
def test_a_cancelled_call_stops_what_it_has_in_a_block_of_another_kind(make: Callable[..., Sessions]) -> None:
    sessions = Sessions(PythonWorker, size=1)
    with sessions, sessions("a") as lease:
        run = sessions.tools[0]
        sessions._key_of = lambda: "a"

        async def cancel() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(run("x = 1\nwhile True: pass"), 0.3)

        in_time(cancel())
        assert lease.closed
        assert run.sync("x").value == "1"


def test_a_loss_is_told_though_calls_are_cancelled_at_any_moment(make: Callable[..., Sessions]) -> None:
    put, die = make(size=1).tools

    async def lose() -> int:
        with conversation("a"):
            await put("x")
            with pytest.raises(WorkerDied):
                await die()
            told = 0
            for steps in range(100):
                task = asyncio.ensure_future(put("y"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    continue
                except SessionLost:
                    told += 1
                return told
            with pytest.raises(SessionLost):
                await put("y")
            return 1

    assert in_time(lose()) == 1


def test_a_death_is_told_by_the_call_then_once_as_a_loss_and_then_it_begins_anew(
    make: Callable[..., Sessions],
) -> None:
    put, die = make().tools
    with conversation("a"):
        put.sync("x")
        with pytest.raises(WorkerDied):
            die.sync()
        with pytest.raises(SessionLost) as caught:
            put.sync("y")
        assert (caught.value.key, caught.value.reason) == (("a",), "died")
        assert put.sync("z") == ["z"]


def test_each_loss_is_told_once_also_with_more_conversations_than_workers(make: Callable[..., Sessions]) -> None:
    put = make(size=2).tools[0]
    told: list[str] = []
    states: dict[str, list[str]] = {}
    for turn in range(3):
        for name in "abcd":
            with conversation(name):
                try:
                    states[name] = put.sync(f"{name}{turn}")
                except SessionLost as loss:
                    told.append(name)
                    assert loss.reason == "evicted"
                    states[name] = put.sync(f"{name}{turn}")
            assert states[name] == [f"{name}{turn}"]
    assert told == [*"abcd", *"abcd"]


def test_a_pool_that_was_killed_is_a_loss(make: Callable[..., Sessions]) -> None:
    sessions = make()
    with sessions("a") as lease:
        lease.put("x")
        pool_pid = lease._handle.pool_pid
    os.kill(pool_pid, signal.SIGKILL)
    with pytest.raises(SessionLost, match="restarted"):
        for _ in range(100):
            try:
                with sessions("a"):
                    pass
            except actorpool.LeaseExpired:
                continue
    with sessions("a") as lease:
        assert lease.put("y") == ["y"]


def test_failures_of_sessions_become_what_the_user_wants(make: Callable[..., Sessions]) -> None:
    put, die = make(failure=explain).tools
    with conversation("a"):
        put.sync("x")
        assert "may have taken effect" in die.sync()
        assert "begin anew" in put.sync("y")
        assert put.sync("z") == ["z"]


def test_threads_of_one_conversation_take_turns(make: Callable[..., Sessions]) -> None:
    put = make().tools[0]
    lengths: list[int] = []

    def talk() -> None:
        with conversation("one"):
            for _ in range(5):
                lengths.append(len(put.sync("x")))

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(lengths) == list(range(1, 21))


def test_bad_settings_are_named_at_once() -> None:
    with pytest.raises(InvalidConfig) as caught:
        Sessions(Basket, key="a", session_idle=3, failure=3)  # type: ignore[arg-type]
    assert set(caught.value.problems) == {"key", "session_idle", "failure"}
    with pytest.raises(TypeError, match="name"):
        conversation()


def test_an_interpreter_for_each_conversation(node: actorpool.System) -> None:
    sessions = Sessions(PythonWorker, {"timeout": 0.3}, size=2)
    sessions.start(node)
    run = sessions.tools[0]
    with conversation("a"):
        assert run.sync("x = 1").error is None
    with conversation("b"):
        assert "NameError" in run.sync("x").error
    with conversation("a"):
        assert "stopped" in run.sync("while True: pass").error
        assert run.sync("x").value == "1"
    sessions.stop()
