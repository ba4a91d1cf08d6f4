"""A pool whose process is killed comes back as its operators have left it, not as it was once configured."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

import actorpool
from actorpool.errors import CheckoutTimeout
from actorpool.testing import eventually
from actorpool.workers import EchoWorker


@pytest.fixture
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


def process_of(node: actorpool.System, *path: str) -> int:
    """The process of a pool, or of the manager above all pools."""
    found = next(child for child in node.tree().children if child.id == "manager")
    for id in path:
        found = next(child for child in found.children if child.id == id)
    return found.pid or 0


def kill(node: actorpool.System, *path: str) -> None:
    os.kill(eventually(lambda: process_of(node, *path)), signal.SIGKILL)


def test_a_resized_pool_that_is_killed_keeps_its_size(node: actorpool.System) -> None:
    pool = node.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
    pid = process_of(node, "db")
    for turn, size in enumerate((3, 2, 4)):
        pool.resize(size, max_overflow=turn)
        os.kill(pid, signal.SIGKILL)
        status = eventually(lambda: pool.status(), timeout=10)
        assert (status.size, status.max_overflow, status.total) == (size, turn, size)
        assert status.checkouts == 0, "it was not killed"
        assert pool.echo(turn) == turn
        pid = eventually(lambda: process_of(node, "db"))


def test_a_resized_pool_keeps_its_size_through_the_deaths_of_managers(node: actorpool.System) -> None:
    pool = node.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
    pool.resize(2)
    for _ in range(2):
        kill(node)
        assert eventually(lambda: pool.status(), timeout=10).size == 2
    kill(node, "db")
    assert eventually(lambda: pool.status(), timeout=10).size == 2


def test_a_suspended_pool_that_is_killed_serves_nobody_until_it_is_resumed(node: actorpool.System) -> None:
    pool = node.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
    pool.suspend()
    kill(node, "db")
    assert eventually(lambda: pool.status(), timeout=10).state == "suspended"
    with pytest.raises(CheckoutTimeout, match="suspended"):
        pool.echo(1, checkout_timeout=0.1)
    pool.resume()
    assert pool.echo(2) == 2
    kill(node, "db")
    assert pool.echo(3, checkout_timeout=10) == 3
