"""Real servers and a breakable network for the workers' tests."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.workers.pgserver import PgServer, serve
from tests.workers.proxy import Proxy
from tests.workers.webserver import WebServer


@pytest.fixture(scope="session")
def pg_server() -> Iterator[PgServer]:
    """A real PostgreSQL, shared by all tests of the run."""
    with serve() as server:
        yield server


@pytest.fixture
def pg(pg_server: PgServer) -> Iterator[PgServer]:
    """The PostgreSQL, with an empty schema `public` before and after the test."""
    clean = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO public"
    pg_server.query(clean)
    yield pg_server
    pg_server.query(clean)


@pytest.fixture
def proxy_to() -> Iterator[Callable[[Any], Proxy]]:
    """Make a `Proxy` to a target; all are closed after the test."""
    made: list[Proxy] = []

    def make(target: Any) -> Proxy:
        made.append(Proxy(target))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A real HTTP server on loopback."""
    server = WebServer()
    yield server
    server.close()


class Interrupted(KeyboardInterrupt):
    """What the interrupt of a worker's host raises in the running call."""


@pytest.fixture
def interrupting() -> Iterator[Callable[[float], Any]]:
    """`with interrupting(0.2):` interrupts the main thread once after that time, as a worker's host does."""

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR2, interrupt)

    @contextmanager
    def soon(delay: float) -> Iterator[None]:
        timer = threading.Timer(delay, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR2))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    yield soon
    signal.signal(signal.SIGUSR2, before)
