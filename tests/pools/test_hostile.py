"""No message and no frame of a client, whatever is in it, ends a pool, a shared pool or a worker."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

import actorpool
from actorpool import Checkout, Err, WithConnection
from actorpool.messages import Call, Ok, WhereIs
from actorpool.transport import paths
from actorpool.transport.client import ClientConn
from actorpool.workers import EchoWorker
from tests.hostile_messages import Bare, frames, spoiled, strangers

SOME = 500


@pytest.fixture(params=["node", "messages"])
def system(request: pytest.FixtureRequest, node: actorpool.System) -> Iterator[actorpool.System]:
    """A system with processes, and one that hosts all in this one."""
    if request.param == "node":
        yield node
        return
    with actorpool.start(base="simpleSystemBase", log_level="CRITICAL") as inside:
        yield inside


@pytest.fixture
def pool(system: actorpool.System) -> Iterator[actorpool.Pool]:
    yield system.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
    system.stop_pool("db", timeout=0.5)
    drain(system)


@pytest.fixture
def shared(system: actorpool.System) -> Iterator[actorpool.SharedPool]:
    pool = system.start_shared_pool("together")
    pool.add(EchoWorker, resource="echo")
    yield pool
    system.stop_pool("together", timeout=0.5)
    drain(system)


def ask(system: actorpool.System, address: Any, request: Any) -> Any:
    """The value of the answer to it; an answer to what was sent before may come first, and is passed over."""
    system.actor_system.tell(address, request)
    until = time.monotonic() + 10
    while (left := until - time.monotonic()) > 0:
        answer = system.actor_system.listen(left)
        if isinstance(answer, (Ok, Err)) and answer.ref == request.ref:
            return answer.unwrap()
    raise AssertionError(f"no answer to {request}")


def pid_of(system: actorpool.System, name: str) -> tuple[Any, ...]:
    """The process of a pool, and how often it was restarted."""
    nodes = [system.tree()]
    for node in nodes:
        nodes.extend(node.children)
    return next((node.pid, node.restarts) for node in nodes if node.id == name)


def tell(system: actorpool.System, address: Any, messages: list[Any]) -> None:
    """Send them all, and read what comes back, which is an error or an answer that can be asked for."""
    for number, message in enumerate(messages):
        there = system.directory is None
        system.actor_system.tell(address, message.made() if there and isinstance(message, Bare) else message)
        if number % 20 == 0:
            drain(system)
    drain(system)


def drain(system: actorpool.System) -> None:
    while system.actor_system.listen(0.01) is not None:
        pass


def hostile(known: dict[str, Any]) -> list[Any]:
    made = list(spoiled(known))
    return [*Random(3).sample(made, SOME), *strangers()]


@pytest.mark.slow
def test_no_message_ends_a_pool_or_a_worker_of_it(system: actorpool.System, pool: actorpool.Pool) -> None:
    before = pid_of(system, "db")
    address = ask(system, system.manager, WhereIs("db"))
    grant = ask(system, system.manager, Checkout("db"))
    worker = pool.workers()[0]
    messages = hostile({"pool": "db", "name": "db", "worker_id": worker.id, "lease": grant.lease, "method": "echo"})
    tell(system, grant.worker, messages)
    assert ask(system, grant.worker, Call(grant, "echo", (1,))) == 1
    assert pool.workers()[0].pid == worker.pid
    tell(system, address, messages)
    assert pid_of(system, "db") == before
    pool.resume()
    pool.resize(size=1, max_overflow=1)
    assert pool.echo(5, checkout_timeout=10.0) == 5
    assert pool.status().restarts == 0


@pytest.mark.slow
def test_no_message_ends_a_shared_pool(system: actorpool.System, shared: actorpool.SharedPool) -> None:
    before = pid_of(system, "together")
    address = ask(system, system.manager, WhereIs("together"))
    tell(system, address, hostile({"pool": "together", "name": "together", "worker_id": 1, "method": "echo"}))
    assert pid_of(system, "together") == before
    shared.add(EchoWorker, resource="echo2")
    assert shared.call("echo2", "echo", 1, timeout=10.0) == 1


def test_no_frame_ends_a_pool_or_a_worker_or_holds_up_who_calls(node: actorpool.System) -> None:
    pool = node.start_pool("frames", worker=EchoWorker, size=1, max_overflow=0)
    shared = node.start_shared_pool("framed")
    shared.add(EchoWorker, resource="echo")
    before = pid_of(node, "frames"), pid_of(node, "framed")
    directory = str(node.directory)
    slowest, worker = 0.0, None
    pools = [paths.pool(directory, "frames"), paths.pool(directory, "framed")]
    for number, (kind, ref, body) in enumerate(frames(Random(5), 3 * SOME, {"pool": "frames", "lease": 1})):
        worker = pool.workers()[0].pid if number % 30 == 0 else worker  # one that is asked to recycle has a new one
        line = ClientConn([*pools, paths.worker(directory, worker or 0)][number % 3])
        line.send(kind, ref, body)
        line.close()
        if number % 30 == 0:
            began = time.perf_counter()
            pool.resume()  # some of what was sent is what anybody may ask for
            pool.resize(size=1, max_overflow=0)
            assert pool.echo(number, checkout_timeout=20.0) == number
            slowest = max(slowest, time.perf_counter() - began)
    assert (pid_of(node, "frames"), pid_of(node, "framed")) == before
    assert shared.call("echo", "echo", 3, timeout=10.0) == 3
    assert slowest < 5.0
    node.stop_pool("frames", timeout=0.5)
    node.stop_pool("framed", timeout=0.5)


@pytest.mark.slow
def test_the_same_request_sent_again_while_it_waits_is_dropped(system: actorpool.System, pool: actorpool.Pool) -> None:
    tell_one = system.actor_system.tell
    lease = ask(system, system.manager, Checkout("db"))
    again: tuple[Any, ...] = (Checkout("db", timeout=20.0), WithConnection("db", _one, timeout=20.0))
    for request, _ in itertools.product(again, range(3)):
        tell_one(system.manager, request)
    assert pool.status().waiting == 2
    tell_one(system.manager, actorpool.Checkin(lease))
    granted = system.actor_system.listen(10)
    assert isinstance(granted, Ok)
    tell_one(system.manager, actorpool.Checkin(granted.value))
    assert system.actor_system.listen(10) == Ok(1, ref=again[1].ref)
    assert system.actor_system.listen(0.3) is None
    assert pool.status().monitors == 0


def _one(_connection: Any) -> int:
    return 1


@pytest.mark.slow
def test_an_answer_that_nobody_asked_for_is_not_answered(system: actorpool.System, pool: actorpool.Pool) -> None:
    address = ask(system, system.manager, WhereIs("db"))
    grant = ask(system, system.manager, Checkout("db"))
    for receiver in (address, grant.worker):
        for answer in (Ok(1, ref=7), Err(ValueError("x"), ref=7)):
            system.actor_system.tell(receiver, answer)
    assert system.actor_system.listen(0.3) is None
    system.actor_system.tell(system.manager, actorpool.Checkin(grant))
    assert pool.echo(1) == 1
