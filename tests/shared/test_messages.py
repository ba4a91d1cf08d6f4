"""Shared pools by Thespian's messages: plain `ask`, from inside an actor, and the client where there is no channel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from thespian.actors import Actor

import actorpool
from actorpool import Err, Ok, SharedPool, StartPool, StopPool
from actorpool._protocol.shared import (
    AddConnection,
    CallAll,
    CancelCall,
    GetConnection,
    IsEmpty,
    ListResources,
    PopConnection,
    PopConnections,
    SetExtra,
    SharedCall,
    UpdateConnections,
)
from actorpool.config import SharedPoolConfig
from actorpool.errors import CallTimeout, MethodNotFound, NoMatch, NoResource, PoolNotFound, WorkerDied
from actorpool.workers import EchoWorker
from tests.shared.kit import Book, Door, raises

BASES = ("simpleSystemBase", "multiprocTCPBase", "multiprocUDPBase")


@pytest.fixture(scope="module", params=BASES)
def system(request: pytest.FixtureRequest) -> Iterator[actorpool.System]:
    with actorpool.start(base=request.param, log_level="CRITICAL") as running:
        yield running


@pytest.fixture
def name(system: actorpool.System) -> Iterator[str]:
    """A shared pool that was started by message."""
    started = ask(system, StartPool("shared", SharedPoolConfig(backoff_min=0.02, kill_after=0.5)))
    assert isinstance(started, Ok), started
    yield "shared"
    assert isinstance(ask(system, StopPool("shared", 0.2)), Ok)


def ask(system: actorpool.System, message: Any) -> Any:
    answer = system.actor_system.ask(system.manager, message, 10)
    assert answer is None or answer.ref == message.ref
    return answer


def test_every_verb_is_a_message(system: actorpool.System, name: str) -> None:
    first = ask(system, AddConnection(name, Book, {"pace": 0.0}, extra={"n": 1})).unwrap()
    second = ask(system, AddConnection(name, EchoWorker, resource="echo", ttl=60.0, revive=True)).unwrap()
    assert ask(system, SharedCall(name, "book", "write", ("a token",))).unwrap() == "a token"
    assert ask(system, SharedCall(name, "echo", "add", (1,), {"b": 2}, timeout=5.0)).unwrap() == 3
    assert ask(system, SharedCall(name, "book", "write", (2,), where={"n": 1})).unwrap() == 2
    assert ask(system, GetConnection(name, first)).unwrap().stats["write"].count == 2
    assert ask(system, SetExtra(name, second, {"n": 2})).unwrap() is None
    assert ask(system, UpdateConnections(name, "book", {"n": 1}, {"extra": {"n": 3}})).unwrap() == 1
    assert ask(system, GetConnection(name, first)).unwrap().extra == {"n": 3}
    assert ask(system, ListResources(name)).unwrap() == ["book", "echo"]
    assert ask(system, IsEmpty(name, "book")).unwrap() is False
    mapped = ask(system, CallAll(name, "book", "write", ([1],))).unwrap()
    assert mapped == {first: [1]}
    failed = ask(system, CallAll(name, "book", "fail", (LookupError("no"),))).unwrap()
    assert isinstance(failed[first], LookupError)
    assert ask(system, PopConnection(name, first)).unwrap().id == first
    assert [info.id for info in ask(system, PopConnections(name, "echo")).unwrap()] == [second]
    assert ask(system, IsEmpty(name, "book")).unwrap() is True


def test_what_is_missing_is_an_err(system: actorpool.System, name: str) -> None:
    ask(system, AddConnection(name, EchoWorker, resource="echo")).unwrap()
    for request, kind in (
        (SharedCall(name, "nowhere", "echo"), NoResource),
        (SharedCall(name, "echo", "nothing"), MethodNotFound),
        (SharedCall(name, "echo", "echo", where={"n": 1}), NoMatch),
        (SharedCall(name, "echo", "echo", where=raises), NoMatch),
        (SharedCall(name, "echo", "fail", (LookupError("as asked"),)), LookupError),
        (SharedCall("elsewhere", "echo", "echo"), PoolNotFound),
        (actorpool.Checkout(name), PoolNotFound),
        (actorpool.WithConnection(name, print), PoolNotFound),
    ):
        answer = ask(system, request)
        assert isinstance(answer, Err), request
        assert isinstance(answer.error, kind), answer


def test_the_client_has_the_same_verbs_without_a_channel(system: actorpool.System, name: str) -> None:
    pool = system.shared_pool(name)
    assert isinstance(pool, SharedPool)
    id = pool.add(EchoWorker, resource="echo", extra={"n": 1})
    assert pool.call("echo", "echo", {"deep": [1]}) == {"deep": [1]}
    assert pool.map("echo", "echo", 5) == {id: 5}
    assert pool.info(id).extra == pool.extra(id, None) == {"n": 1}
    assert (pool.resources(), pool.is_empty("echo"), pool.update("echo", ttl=9)) == (["echo"], False, 1)
    with pytest.raises(NoResource):
        pool.call("nowhere", "echo")
    assert pool.pop(id).ttl == 9
    assert pool.pop_all("echo") == []
    assert str(name) in repr(pool)


def test_a_call_by_message_times_out_while_it_waits_or_runs(system: actorpool.System, name: str) -> None:
    if system.directory is None:
        pytest.skip("simpleSystemBase has no real timeouts")
    pool = system.shared_pool(name)
    pool.add(EchoWorker, resource="echo")
    with pytest.raises(CallTimeout, match="is being interrupted"):
        pool.call("echo", "sleep", 20, timeout=0.1)
    assert pool.call("echo", "echo", "goes on") == "goes on"


def test_a_process_that_dies_under_a_call_by_message_is_told(system: actorpool.System, name: str) -> None:
    if system.directory is None:
        pytest.skip("simpleSystemBase has no processes")
    pool = system.shared_pool(name)
    id = pool.add(EchoWorker, resource="echo", revive=True)
    with pytest.raises(WorkerDied):
        pool.call("echo", "crash")
    deadline = time.monotonic() + 5
    while pool.info(id).closed:
        assert time.monotonic() < deadline
    assert pool.call("echo", "echo", "revived") == "revived"


def test_a_lost_connection_is_opened_anew_by_message(
    system: actorpool.System, name: str, tmp_path: Any, eventually: Any
) -> None:
    pool = system.shared_pool(name)
    gate = tmp_path / "gate"
    gate.touch()
    id = pool.add(Door, {"gate": str(gate)}, revive=True)
    assert pool.call("door", "shut") is None
    eventually(lambda: not pool.info(id).closed)
    assert pool.call("door", "pid")


class Reader(Actor):
    """Calls a shared pool from inside an actor system: the request goes to the manager, the answer comes back."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        if isinstance(message, tuple):
            manager, request = message
            self.asker = sender
            self.send(manager, request)
        elif isinstance(message, (Ok, Err)):
            self.send(self.asker, message)


def test_an_actor_calls_a_shared_pool(system: actorpool.System, name: str) -> None:
    ask(system, AddConnection(name, EchoWorker, resource="echo")).unwrap()
    reader = system.actor_system.createActor(Reader)
    try:
        request = SharedCall(name, "echo", "add", (40, 2))
        answer = system.actor_system.ask(reader, (system.manager, request), 10)
        assert (answer.unwrap(), answer.ref) == (42, request.ref)
    finally:
        system.actor_system.tell(reader, actorpool.supervisors.supervised.ActorExitRequest())  # type: ignore[attr-defined]


def test_a_cancelled_call_by_message_is_not_run(system: actorpool.System, name: str, tmp_path: Any) -> None:
    if system.directory is None:
        pytest.skip("simpleSystemBase runs each call in the thread that asks")
    log = tmp_path / "log"
    ask(system, AddConnection(name, Book, {"log": str(log)})).unwrap()
    with system.actor_system.private() as context:
        running = SharedCall(name, "book", "wait", (0.4, "runs"))
        waiting = SharedCall(name, "book", "write", ("waits",))
        context.tell(system.manager, running)
        context.tell(system.manager, waiting)
        context.tell(system.manager, CancelCall(name, ref=waiting.ref))
        assert context.listen(5).unwrap() == "runs"
        context.tell(system.manager, last := SharedCall(name, "book", "write", ("last",)))
        assert context.listen(5).ref == last.ref
    assert log.read_text().split() == ["runs", "last"]
