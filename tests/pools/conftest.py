"""One node for each module, one pool for each test, PostgreSQL through a network that can be broken."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import actorpool
from actorpool.workers import PostgresWorker
from tests.workers.pgserver import PgServer
from tests.workers.proxy import Proxy

StartPool = Callable[..., actorpool.Pool]
"""`start(worker, **fields)`: a pool under a fresh name, of two workers and no overflow unless told otherwise."""

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    """A system that the tests of one module share."""
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


@pytest.fixture
def start(node: actorpool.System) -> Iterator[StartPool]:
    """Start a pool; it is stopped after the test."""
    names: list[str] = []

    def make(worker: Any, **fields: Any) -> actorpool.Pool:
        names.append(f"pool{next(_numbers)}")
        return node.start_pool(names[-1], worker=worker, **{"size": 2, "max_overflow": 0, **fields})

    yield make
    for name in names:
        with suppress(actorpool.PoolNotFound):
            node.stop_pool(name, timeout=0.5)


@pytest.fixture
def postgres(pg: PgServer, start: StartPool) -> StartPool:
    """Start a pool of the server: `postgres(worker_args={...}, **fields)`."""

    def make(worker_args: dict[str, Any] | None = None, **fields: Any) -> actorpool.Pool:
        return start(PostgresWorker, worker_args={"conninfo": pg.dsn, **(worker_args or {})}, **fields)

    return make


@pytest.fixture
def proxy(pg: PgServer, proxy_to: Callable[[Any], Proxy]) -> Proxy:
    """The network between `through` and the server."""
    return proxy_to(pg.socket_path)


@pytest.fixture
def through(pg: PgServer, proxy: Proxy, postgres: StartPool) -> StartPool:
    """As `postgres`, through the proxy; what is away is tried again at least every 0.2 s."""
    way = pg.parameters(host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable")

    def make(worker_args: dict[str, Any] | None = None, **fields: Any) -> actorpool.Pool:
        fields = {"checkout_timeout": 3.0, "backoff_min": 0.05, "backoff_max": 0.2, **fields}
        return postgres(worker_args={"conninfo": way, "connect_timeout": 1.0, **(worker_args or {})}, **fields)

    return make
