"""Databases of every kind for the workers' tests, and an interrupt."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actorpool.workers import DbapiWorker, PostgresWorker, SqlAlchemyWorker, SqliteWorker, SqlWorker
from tests.workers.databases import KINDS, Database, OpenPostgres
from tests.workers.pgserver import PgServer
from tests.workers.proxy import Proxy


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


# -- databases of every kind ------------------------------------------------------------------------------


SLOW = ("alchemy-pymysql",)
"""Kinds whose worker and whose database are each in another kind as well."""


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KINDS])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of each kind; its workers are closed after the test."""
    kind: str = request.param
    file = str(tmp_path / "test.db")
    pg: Any = request.getfixturevalue("pg") if kind == "postgres" or "psycopg" in kind else None
    my: Any = request.getfixturevalue("mariadb") if "pymysql" in kind else None
    dsn = pg.dsn if pg else ""
    makers: dict[str, Callable[..., SqlWorker]] = {
        "sqlite": lambda **more: SqliteWorker(file, **more),
        "postgres": lambda **more: PostgresWorker(dsn, **more),
        "dbapi-sqlite3": lambda **more: DbapiWorker("sqlite3", database=file, **more),
        "dbapi-psycopg": lambda **more: DbapiWorker("psycopg", conninfo=dsn, **more),
        "dbapi-pymysql": lambda **more: DbapiWorker("pymysql", **my.parameters(), **more),
        "alchemy-sqlite": lambda **more: SqlAlchemyWorker(f"sqlite:///{file}", **more),
        "alchemy-psycopg": lambda **more: SqlAlchemyWorker(
            "postgresql+psycopg://", connect_args=pg.parameters(), **more
        ),
        "alchemy-pymysql": lambda **more: SqlAlchemyWorker("mysql+pymysql://", connect_args=my.parameters(), **more),
    }
    database = Database(kind, makers[kind], "?" if "sqlite" in kind else "%s", [])
    yield database
    for worker in database.made:
        worker.close()


# -- workers of the PostgreSQL ----------------------------------------------------------------------------


@pytest.fixture
def open_postgres(pg: PgServer) -> Iterator[OpenPostgres]:
    """Open a worker of the server, with other arguments as given; closed after the test."""
    made: list[PostgresWorker] = []

    def make(conninfo: Any = None, **more: Any) -> PostgresWorker:
        worker = PostgresWorker(pg.dsn if conninfo is None else conninfo, **more)
        worker.open()
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def proxy(pg: PgServer, proxy_to: Callable[[Any], Proxy]) -> Proxy:
    """The network between `through` and the PostgreSQL."""
    return proxy_to(pg.socket_path)


@pytest.fixture
def through(pg: PgServer, proxy: Proxy, open_postgres: OpenPostgres) -> OpenPostgres:
    """As `open_postgres`, through the proxy."""
    way = pg.parameters(host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable")
    return lambda **more: open_postgres(way, **more)
