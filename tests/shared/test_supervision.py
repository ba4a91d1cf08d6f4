"""A shared pool among others: named, drawn, stopped, restarted with what it is to have."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import actorpool
from actorpool import SharedPool
from actorpool._protocol.shared import AddConnection, SharedCall
from actorpool.config import SharedPoolConfig
from actorpool.errors import (
    CallTimeout,
    InvalidConfig,
    NoResource,
    PoolAlreadyExists,
    PoolDown,
    PoolNotFound,
    PoolStopped,
    UnknownConnection,
    WorkerDied,
)
from actorpool.messages import Event, Subscribe
from actorpool.supervisors import SupervisorSpec, WhereIs, pool_child_spec
from actorpool.workers import EchoWorker
from tests.shared.conftest import Library
from tests.shared.kit import Book

Eventually = Callable[..., Any]


def pid_of(system: actorpool.System, name: str) -> int:
    """The pool's own process."""
    manager = system.tree().children[0]
    return next(child.pid for child in manager.children if child.id == name) or 0


# -- names -------------------------------------------------------------------------------------------------------------


def test_shared_pools_and_others_have_names_of_one_kind(node: actorpool.System) -> None:
    node.start_shared_pool("north")
    node.start_pool("south", worker=EchoWorker, size=1)
    assert {"north", "south"} <= set(node.pools())
    for name in ("north", "south"):
        with pytest.raises(PoolAlreadyExists):
            node.start_shared_pool(name)
        with pytest.raises(PoolAlreadyExists):
            node.start_pool(name, worker=EchoWorker)
    with pytest.raises(PoolNotFound, match=r"get it by shared_pool\('north'\)"):
        node.pool("north")
    with pytest.raises(PoolNotFound, match=r"get it by pool\('south'\)"):
        node.shared_pool("south")
    with pytest.raises(PoolNotFound):
        node.shared_pool("east")
    node.stop_pool("north")
    node.stop_pool("south")
    with pytest.raises(PoolNotFound):
        node.stop_pool("north")


def test_bad_settings_start_nothing(node: actorpool.System) -> None:
    with pytest.raises(InvalidConfig) as refused:
        node.start_shared_pool("bad", kill_after=0, size=3)
    assert sorted(refused.value.problems) == ["kill_after", "size"]
    with pytest.raises(InvalidConfig, match="backoff_max"):
        node.start_shared_pool("bad", backoff_min=2, backoff_max=1)
    with pytest.raises(InvalidConfig, match="name"):
        node.start_shared_pool("no good name")
    assert "bad" not in node.pools()


def test_who_takes_a_shared_pool_for_another_is_told(shared: SharedPool) -> None:
    lending = actorpool.Pool(shared._transport.endpoint, shared.name)
    with pytest.raises(PoolNotFound, match="is a shared pool, which lends nothing"):
        lending.run(len)
    with pytest.raises(PoolNotFound, match="call it through"):
        lending.resize(3)


# -- looking -----------------------------------------------------------------------------------------------------------


def test_the_tree_shows_connections_under_their_ids(node: actorpool.System, library: Library) -> None:
    ids = [library.add() for _ in range(2)]
    manager = node.tree().children[0]
    drawn = next(child for child in manager.children if child.id == library.shared.name)
    assert (drawn.kind, drawn.state) == ("pool", "running")
    assert [(child.id, child.kind, child.state) for child in drawn.children] == [
        (str(id), "worker", "live") for id in ids
    ]
    assert [child.pid for child in drawn.children] == [library.shared.info(id).pid for id in ids]


def test_the_status_counts_connections_as_workers_and_running_calls_as_leases(
    node: actorpool.System, library: Library
) -> None:
    name = library.shared.name
    assert node.status(name).state == "ready"
    first, second = library.add(), library.add()
    library.occupy(first)
    status = node.status(name)
    assert (status.state, status.size, status.total, status.workers, status.monitors) == ("ready", 2, 2, 1, 1)
    library.occupy(second)
    library.queue("write", "waits")
    status = node.status(name)
    assert (status.state, status.workers, status.monitors, status.waiting) == ("full", 0, 2, 1)
    assert status.since > 0


def test_metrics_are_sampled() -> None:
    with actorpool.start(metrics_interval=0.05) as system:
        pool = system.start_shared_pool("shared")
        pool.add(EchoWorker, resource="echo")
        pool.call("echo", "sleep", 0.3)
        assert system.metrics("shared").maximum == 1


def test_events_are_told_to_who_listens() -> None:
    with actorpool.start() as system, system.actor_system.private() as context:
        context.ask(system.manager, Subscribe("*"), 5)
        pool = system.start_shared_pool("shared")
        pool.add(EchoWorker, resource="echo")
        pool.call("echo", "echo", 1)
        wanted = ["pool.started", "worker.started", "worker.connected", "call.done"]
        seen: dict[str, Event] = {}
        deadline = time.monotonic() + 5
        while set(wanted) - set(seen) and time.monotonic() < deadline:
            event = context.listen(0.5)
            if isinstance(event, Event) and event.pool == "shared":
                seen[event.name] = event
        assert set(wanted) <= set(seen)
        assert seen["call.done"].metadata["method"] == "echo"
        assert seen["call.done"].measurements["ms"] > 0


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_stopping_fails_calls_that_wait_and_lets_the_running_one_finish(
    node: actorpool.System, library: Library, eventually: Eventually
) -> None:
    only = library.add()
    pids = [library.shared.info(only).pid, pid_of(node, library.shared.name)]
    running = library.occupy(only)
    waiting = library.queue("write", "waits")
    stopped = library.later(node.stop_pool, library.shared.name, 5.0)
    with pytest.raises(PoolStopped):
        waiting.result(5)
    library.go_on(only)
    assert running.result(5) == f"busy{only}"
    stopped.result(5)
    with pytest.raises(PoolNotFound):
        library.shared.call("book", "pid")
    with pytest.raises(PoolNotFound):
        library.shared.add(Book)
    eventually(lambda: not any(psutil.pid_exists(pid or 0) for pid in pids))


def test_what_runs_longer_than_the_timeout_of_a_stop_is_interrupted(node: actorpool.System, library: Library) -> None:
    only = library.add()
    running = library.occupy(only)
    began = time.monotonic()
    node.stop_pool(library.shared.name, timeout=0.1)
    assert time.monotonic() - began < 2.0
    with pytest.raises(PoolStopped):
        running.result(5)


# -- restarts ----------------------------------------------------------------------------------------------------------


def test_a_killed_pool_comes_back_with_the_connections_that_are_revived(
    node: actorpool.System, shared: SharedPool, eventually: Eventually
) -> None:
    shared.add(Book, resource="kept not")
    kept = shared.add(Book, {"resource": "own"}, extra={"n": 1}, ttl=60, revive=True)
    forced = shared.add(Book, resource=("a", 1), revive="force")
    shared.extra(kept, {"n": 2})
    gone = shared.add(Book, revive=True)
    shared.pop(gone)
    pids = {shared.info(id).pid for id in (kept, forced)}
    os.kill(pid_of(node, shared.name), signal.SIGKILL)
    assert eventually(lambda: sorted(map(str, shared.resources())) == ["('a', 1)", "own"])
    info = shared.info(kept)
    assert (info.extra, info.ttl, info.revive, info.resource) == ({"n": 2}, 60, True, "own")
    assert {shared.info(id).pid for id in (kept, forced)}.isdisjoint(pids)
    assert shared.call("own", "write", 1) == 1
    with pytest.raises(NoResource):
        shared.call("kept not", "pid")
    with pytest.raises(UnknownConnection):
        shared.info(gone)
    assert shared.add(Book) > gone, "ids are never used again, not even then"


def test_a_call_that_a_killed_pool_had_is_not_made_again(node: actorpool.System, library: Library) -> None:
    only = library.add(revive=True)
    running = library.occupy(only)
    waiting = library.queue("write", "waits")
    os.kill(pid_of(node, library.shared.name), signal.SIGKILL)
    for call in (running, waiting):
        with pytest.raises(WorkerDied, match="was restarted while it had"):
            call.result(5)
    assert library.begun == []


def test_calls_wait_for_a_pool_that_is_being_restarted(
    node: actorpool.System, shared: SharedPool, eventually: Eventually
) -> None:
    shared.add(EchoWorker, resource="echo", revive=True)
    shared.call("echo", "echo", 1)
    os.kill(pid_of(node, shared.name), signal.SIGKILL)
    eventually(lambda: shared.call("echo", "echo", 2) == 2)  # NoResource at first: it is not open yet


def test_after_its_manager_was_killed_twice_a_shared_pool_is_there_again(eventually: Eventually) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        pool = system.start_shared_pool("shared")
        id = pool.add(EchoWorker, resource="echo", extra={"n": 1}, revive=True)
        for number in range(2):
            manager = system.tree().children[0].pid or 0
            os.kill(manager, signal.SIGKILL)
            eventually(lambda former=manager: system.tree().children[0].pid != former, timeout=10)
            assert eventually(lambda: pool.call("echo", "echo", "again"), timeout=10) == "again"
            assert pool.extra(id, {"n": number}) == ({"n": 1} if number == 0 else {"n": 0})
        assert system.pools() == ["shared"]


def test_a_shared_pool_that_does_not_answer_is_told_within_the_timeout(
    node: actorpool.System, shared: SharedPool
) -> None:
    shared.add(EchoWorker, resource="echo")
    pool = psutil.Process(pid_of(node, shared.name))
    pool.suspend()
    try:
        began = time.monotonic()
        with pytest.raises(CallTimeout, match="has not answered 'echo' within"):
            shared.call("echo", "echo", 1, timeout=0.2)
        with pytest.raises(PoolDown, match="has not answered"):
            shared._ask(actorpool.GetPoolStatus(shared.name), 0.2)
        assert time.monotonic() - began < 2.0
    finally:
        pool.resume()
    assert shared.call("echo", "echo", 2) == 2


def test_a_shared_pool_can_be_the_child_of_a_supervisor_of_ones_own() -> None:
    with actorpool.start() as system, system.actor_system.private() as context:
        address = system.supervise(SupervisorSpec([pool_child_spec("own", SharedPoolConfig())]))
        child = context.ask(address, WhereIs("own"), 5).unwrap()
        context.ask(child, AddConnection("own", EchoWorker, resource="echo"), 10).unwrap()
        assert context.ask(child, SharedCall("own", "echo", "echo", (1,)), 5).unwrap() == 1
