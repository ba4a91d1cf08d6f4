"""Databases of every kind that a SQL worker serves, and small questions to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from actorpool.workers import PostgresWorker, SqlWorker

OpenPostgres = Callable[..., PostgresWorker]
"""`open_postgres(conninfo=None, **arguments)`."""

KINDS = [
    "sqlite",
    "postgres",
    "dbapi-sqlite3",
    "dbapi-psycopg",
    "dbapi-pymysql",
    "alchemy-sqlite",
    "alchemy-psycopg",
    "alchemy-pymysql",
]


@dataclass
class Database:
    """A database and how to make workers for it; `mark` is the placeholder for positional parameters."""

    kind: str
    make: Callable[..., SqlWorker]
    mark: str
    made: list[SqlWorker]

    def open(self, **more: Any) -> SqlWorker:
        worker = self.make(**more)
        worker.open()
        self.made.append(worker)
        return worker

    def open_with_table(self) -> SqlWorker:
        """A worker in whose database the table `t` (id, name) is."""
        worker = self.open()
        worker.execute("CREATE TABLE t (id integer PRIMARY KEY, name varchar(100))")
        worker.reset()
        return worker

    @property
    def is_sqlite(self) -> bool:
        return "sqlite" in self.kind

    @property
    def is_mariadb(self) -> bool:
        return "pymysql" in self.kind


def names(worker: SqlWorker) -> list[Any]:
    return [row[0] for row in worker.execute("SELECT name FROM t ORDER BY id")]


def add(worker: SqlWorker, number: int, name: str = "x") -> None:
    worker.execute(f"INSERT INTO t VALUES ({number}, '{name}')")


def fill(db: Database, worker: SqlWorker, rows: int) -> None:
    worker.executemany(f"INSERT INTO t VALUES ({db.mark}, {db.mark})", [(number, "x") for number in range(rows)])


def backend(worker: PostgresWorker) -> int:
    return int(worker.connection.info.backend_pid)


def prepared(worker: PostgresWorker) -> int:
    """How many statements the server itself says are prepared."""
    with psycopg.ClientCursor(worker.connection) as cursor:
        return int(cursor.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()[0])  # type: ignore[index]
