"""Frames of a process that has no right to what it sends."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import actorpool
from actorpool import protocol
from actorpool.channel import bodies, paths, wire
from actorpool.channel.line import Gone, Line, NotDelivered
from actorpool.serialization import pickling
from actorpool.workers import EchoWorker


@pytest.fixture(scope="module")
def pool() -> Iterator[actorpool.Pool]:
    with actorpool.start(log_level="CRITICAL") as node:
        yield node.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)


def in_another_process(pool: actorpool.Pool, *data: bytes) -> None:
    """Write that into the pool's socket, and wait for the answer to a last question or for the end."""
    path = pool._link.path  # type: ignore[attr-defined]
    pid = os.fork()
    if pid == 0:
        try:
            line = Line(path)
            line.sock.sendall(b"".join(data) + wire.frame(wire.ASK, 99, pickling.dumps(protocol.Status())))
            line.receive(99)
        except (Gone, NotDelivered):
            pass
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("kind", [wire.CHECKIN, wire.ABANDON])
def test_a_lease_is_ended_by_its_own_process_only(pool: actorpool.Pool, kind: int) -> None:
    with pool.checkout() as lease:
        in_another_process(pool, wire.frame(kind, lease.id))
        assert pool.status().monitors == 1
        assert lease.echo(1) == 1
    assert pool.status().monitors == 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [(wire.CONTROL, protocol.Revoked(1, 1)), (wire.ROUTED, protocol.Suspend()), (wire.PERFORMED, None)],
)
def test_nobody_speaks_for_a_worker_or_for_the_manager(pool: actorpool.Pool, kind: int, message: object) -> None:
    in_another_process(pool, wire.frame(kind, 0, pickling.dumps(message)))
    assert pool.echo(1) == 1
    assert pool.status().state == "ready"


def test_a_request_that_comes_twice_is_taken_once(pool: actorpool.Pool) -> None:
    ask = bodies.pack_checkout(5.0, True, None, None)
    with pool.checkout():
        before = pool.status().waiting
        in_another_process(pool, wire.frame(wire.CHECKOUT, 7, ask), wire.frame(wire.CHECKOUT, 7, ask))
        assert pool.status().waiting == before
    assert pool.echo(1) == 1


def test_the_manager_answers_a_question_that_cannot_be_read(pool: actorpool.Pool) -> None:
    line = Line(paths.manager(pool._link.endpoint.directory))  # type: ignore[attr-defined]
    line.send(wire.ASK, 1, b"no pickle")
    kind, body = line.receive(1)
    assert kind == wire.ERROR
    assert "cannot be read" in str(wire.load_error(body))
