"""Frames of a process that has no right to what it sends."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import actorpool
from actorpool._protocol import reports, requests
from actorpool.serialization import pickling
from actorpool.transport import bodies, frames, paths
from actorpool.transport.client import ClientConn, Gone, NotDelivered
from actorpool.workers import EchoWorker


@pytest.fixture(scope="module")
def pool() -> Iterator[actorpool.Pool]:
    with actorpool.start(log_level="CRITICAL") as node:
        yield node.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)


def in_another_process(pool: actorpool.Pool, *data: bytes) -> None:
    """Write that into the pool's socket, and wait for the answer to a last question or for the end."""
    path = pool._transport.path  # type: ignore[attr-defined]
    pid = os.fork()
    if pid == 0:
        try:
            line = ClientConn(path)
            line.sock.sendall(b"".join(data) + frames.frame(frames.ASK, 99, pickling.dumps(requests.Status())))
            line.receive(99)
        except (Gone, NotDelivered):
            pass
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("kind", [frames.CHECKIN, frames.ABANDON])
def test_a_lease_is_ended_by_its_own_process_only(pool: actorpool.Pool, kind: int) -> None:
    with pool.checkout() as lease:
        in_another_process(pool, frames.frame(kind, lease.id))
        assert pool.status().monitors == 1
        assert lease.echo(1) == 1
    assert pool.status().monitors == 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [(frames.CONTROL, reports.Revoked(1, 1)), (frames.ROUTED, requests.Suspend()), (frames.PERFORMED, None)],
)
def test_nobody_speaks_for_a_worker_or_for_the_manager(pool: actorpool.Pool, kind: int, message: object) -> None:
    in_another_process(pool, frames.frame(kind, 0, pickling.dumps(message)))
    assert pool.echo(1) == 1
    assert pool.status().state == "ready"


def test_a_request_that_comes_twice_is_taken_once(pool: actorpool.Pool) -> None:
    ask = bodies.pack_checkout(5.0, True, None, None)
    with pool.checkout():
        before = pool.status().waiting
        in_another_process(pool, frames.frame(frames.CHECKOUT, 7, ask), frames.frame(frames.CHECKOUT, 7, ask))
        assert pool.status().waiting == before
    assert pool.echo(1) == 1


def test_the_manager_answers_a_question_that_cannot_be_read(pool: actorpool.Pool) -> None:
    line = ClientConn(paths.manager(pool._transport.endpoint.directory))  # type: ignore[attr-defined]
    line.send(frames.ASK, 1, b"no pickle")
    kind, body = line.receive(1)
    assert kind == frames.ERROR
    assert "cannot be read" in str(frames.load_error(body))
