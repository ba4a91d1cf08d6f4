"""Keyed leases and agents, promise by promise, by nothing but their public names."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import psutil
import pytest

import actorpool
from actorpool import CallTimeout, CheckoutTimeout, Limits, Pool, PoolConfig, PoolFull, SessionInfo, WorkerDied
from actorpool.agents import McpWorker, PythonWorker, Sessions, Tools, conversation, explain
from actorpool.errors import SessionLost
from actorpool.testing import eventually
from actorpool.workers import Worker, method


class Notes(Worker):
    def open(self) -> None:
        self.notes: list[int] = []

    reset = open

    @method
    def note(self, what: int) -> list[int]:
        """Note it."""
        self.notes.append(what)
        return self.notes

    @method
    def die(self) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as system:
        yield system


@pytest.fixture
def start(node: actorpool.System) -> Iterator[Callable[..., Pool]]:
    yield lambda **fields: node.start_pool("notes", worker=Notes, **{"size": 2, "max_overflow": 0, **fields})
    if "notes" in node.pools():
        node.stop_pool("notes")


@pytest.fixture
def begin(node: actorpool.System) -> Iterator[Callable[..., tuple[Sessions, Any, Any]]]:
    """Sessions, and their two tools."""
    made: list[Sessions] = []

    def sessions(**fields: Any) -> tuple[Sessions, Any, Any]:
        made.append(Sessions(Notes, **{"size": 2, **fields}))
        made[-1].start(node)
        return made[-1], *made[-1].tools

    yield sessions
    for one in made:
        one.stop()


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


# -- keyed leases -------------------------------------------------------------------------------------------------


def test_a_parked_worker_counts_as_idle_and_is_counted_and_listed(start: Callable[..., Pool]) -> None:
    pool = start()
    with pool.checkout(key="a") as lease:
        lease.note(1)
        (info,) = pool.sessions()
        assert isinstance(info, SessionInfo)
        assert (info.key, info.worker_id, info.pid, info.busy, info.calls) == (
            "a", lease.worker_id, lease.worker_pid, True, 1)  # fmt: skip
    eventually(lambda: pool.status().parked == 1)
    status = pool.status()
    assert (status.state, status.workers, status.monitors, status.total) == ("ready", 2, 0, 2)
    assert 0.0 <= pool.sessions()[0].idle <= pool.sessions()[0].age


def test_parked_workers_are_evicted_before_overflow_starts_and_overflow_never_parks(start: Callable[..., Pool]) -> None:
    pool = start(size=1, max_overflow=1)
    first, second = pool.checkout(key="a"), pool.checkout(key="b")
    first.note(1)
    second.note(1)
    first.checkin()
    second.checkin()
    eventually(lambda: (pool.status().overflow, pool.status().parked) == (0, 1))
    with pool.checkout():
        assert (pool.status().overflow, pool.status().parked) == (0, 0)


def test_a_busy_key_is_refused_or_waited_for_in_order_and_stops_no_other(start: Callable[..., Pool]) -> None:
    pool = start(checkout_timeout=20.0)
    served: list[int] = []
    holder = pool.checkout(key="a")
    holder.note(0)
    with pytest.raises(PoolFull):
        pool.checkout(key="a", block=False)
    with pytest.raises(CheckoutTimeout):
        pool.checkout(key="a", timeout=0)

    def wait(number: int) -> None:
        with pool.checkout(key="a") as lease:
            served.append(number)
            lease.note(number)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(4)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        eventually(lambda number=number: pool.status().waiting == number)
    assert pool.note(9) == [9]
    holder.checkin()
    for thread in threads:
        thread.join(20)
    assert served == [0, 1, 2, 3]


def test_lifetimes_leave_parked_workers_alone(start: Callable[..., Pool]) -> None:
    pool = start(max_lifetime=0.2, lifetime_jitter=0.0, idle_timeout=0.2, health_interval=0.1)
    with pool.checkout(key="a") as lease:
        lease.note(1)
    time.sleep(0.7)
    with pool.checkout(key="a") as lease:
        assert (lease.fresh, lease.note(2)) == (False, [1, 2])


def test_whatever_ends_a_session_the_next_lease_is_fresh(start: Callable[..., Pool]) -> None:
    pool = start(size=1, session_idle=300.0)

    def state() -> tuple[bool, list[int]]:
        with pool.checkout(key="a", timeout=20.0) as lease:
            return lease.fresh, lease.note(1)

    assert state() == (True, [1])
    assert state() == (False, [1, 1])
    ends: list[Callable[[], Any]] = [
        lambda: pool.end_session("a"),
        lambda: pool.note(0),
        lambda: pool.recycle(timeout=20.0),
        lambda: pool.recycle(timeout=20.0, restart=True),
        lambda: kill(pool.sessions()[0].pid),
        lambda: (pool.resize(0), pool.resize(1)),
    ]
    for end in ends:
        end()
        assert state() == (True, [1])


def test_the_fields_of_a_configuration_have_their_defaults() -> None:
    config = PoolConfig(worker=Notes)
    assert (config.preload, config.limits, config.session_idle) == ((), None, 300.0)
    assert PoolConfig(worker=Notes, limits=Limits(memory="512M", cpu=60, files=256)).limits is not None


# -- tools ------------------------------------------------------------------------------------------------------------


def test_the_arguments_have_their_names_order_and_defaults() -> None:
    def parameters(cls: type) -> list[str]:
        return list(inspect.signature(cls).parameters)

    assert parameters(Tools)[:4] == ["size", "timeout", "failure", "enabled"]
    assert parameters(Sessions)[:6] == ["worker", "worker_args", "size", "idle", "key", "failure"]
    assert parameters(PythonWorker) == ["memory", "timeout", "preload", "max_output", "workdir", "confine"]
    assert parameters(McpWorker) == ["server"]
    assert inspect.signature(PythonWorker).parameters["max_output"].default == 20_000
    assert inspect.signature(Sessions).parameters["idle"].default == 900.0
    assert inspect.signature(Tools).parameters["size"].default == 4


def test_a_tool_has_the_name_signature_docstring_and_annotations_of_its_function() -> None:
    tools = Tools()

    def search(query: str, limit: Annotated[int, "at most"] = 10) -> dict[str, int]:
        """Search."""
        return {query: limit}

    first, second = tools(search), tools(timeout=5)(search)
    assert tools.functions == [first, second]
    for function in (first, first.sync):
        assert inspect.signature(function) == inspect.signature(search)
        assert (function.__name__, function.__doc__) == ("search", "Search.")
        assert function.__annotations__ == search.__annotations__
    assert inspect.iscoroutinefunction(first)
    assert not inspect.iscoroutinefunction(first.sync)


def test_tools_run_elsewhere_within_their_time_and_a_cancel_reaches_a_coroutine(
    node: actorpool.System, tmp_path: Path
) -> None:
    tools = Tools(size=1, timeout=0.2)

    @tools
    def short() -> None:
        time.sleep(10)

    @tools(timeout=20)
    def long() -> int:
        time.sleep(0.4)
        return os.getpid()

    @tools(timeout=20)
    async def endless(directory: str) -> None:
        Path(directory, "began").touch()
        try:
            await asyncio.sleep(60)
        finally:
            Path(directory, "stopped").touch()

    async def cancel() -> None:
        task = asyncio.ensure_future(endless(str(tmp_path)))
        while not (tmp_path / "began").exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    tools.start(node)
    try:
        assert long.sync() != os.getpid()
        with pytest.raises(CallTimeout):
            short.sync()
        asyncio.run(cancel())
        eventually((tmp_path / "stopped").exists)
    finally:
        tools.stop()


def test_tools_and_sessions_that_are_not_enabled_run_here() -> None:
    tools = Tools(enabled=False, failure=explain)

    @tools
    def here() -> int:
        return os.getpid()

    @tools
    async def here_too() -> int:
        raise KeyError("its own")

    assert here.sync() == asyncio.run(here()) == os.getpid()
    with pytest.raises(KeyError):
        asyncio.run(here_too())
    with Sessions(Notes, enabled=False) as sessions:
        note = sessions.tools[0]
        for name in "ab":
            with conversation(name):
                assert note.sync(1) == [1]
                assert asyncio.run(note(2)) == [1, 2]
        assert set(sessions.keys()) == {("a",), ("b",)}


# -- sessions -------------------------------------------------------------------------------------------------------


def test_the_key_of_a_conversation_is_the_tuple_of_its_parts(begin: Callable[..., Any]) -> None:
    sessions, note, _ = begin()
    with conversation("chat", 17) as key:
        assert key == ("chat", 17)
        note.sync(1)
    assert sessions.keys() == [("chat", 17)]
    with sessions(("chat", 17)) as lease:
        assert lease.note(2) == [1, 2]
    with pytest.raises(LookupError):
        note.sync(1)


@pytest.mark.parametrize("reason", ["died", "evicted", "expired"])
def test_a_loss_is_told_once_and_then_it_begins_anew(begin: Callable[..., Any], reason: str) -> None:
    sessions, note, die = begin(size=1, idle=0.2 if reason == "expired" else 900.0)
    with conversation("a"):
        note.sync(1)
        if reason == "died":
            with pytest.raises(WorkerDied):
                die.sync()
    if reason == "evicted":
        with conversation("b"):
            note.sync(1)
    elif reason == "expired":
        eventually(lambda: sessions.keys() == [])
    with conversation("a"):
        with pytest.raises(SessionLost) as caught:
            note.sync(2)
        assert (caught.value.key, caught.value.reason) == (("a",), reason)
        assert note.sync(3) == [3]


def test_a_conversation_that_was_ended_is_no_loss(begin: Callable[..., Any]) -> None:
    sessions, note, _ = begin()
    with conversation("a"):
        note.sync(1)
        assert (sessions.end(("a",)), sessions.end(("a",))) == (True, False)
        assert note.sync(2) == [2]


def test_processes_that_give_the_same_name_share_their_conversations(node: actorpool.System) -> None:
    first, second = (Sessions(Notes, size=1, name="shared", key=lambda: "a") for _ in range(2))
    first.start(node)
    second.start(node)
    try:
        assert first.tools[0].sync(1) == [1]
        assert second.tools[0].sync(2) == [1, 2]
        second.stop()
        assert first.tools[0].sync(3) == [1, 2, 3]
    finally:
        first.stop()
    assert "shared" not in node.pools()
