"""The connection of a `SqliteWorker`, and what workers have to know of any connection of `sqlite3`."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import Any, Literal
from weakref import WeakSet


class Connection(sqlite3.Connection):
    """A `sqlite3.Connection` that can be told to leave its transaction alone, as in autocommit mode.

    Closing it also ends the statements of its cursors. SQLite would keep it open for a cursor that user code has kept,
    together with what the statement has locked.
    """

    sandboxed = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        cursor = super().cursor(*args, **kwargs)
        self._cursors.add(cursor)
        return cursor

    def execute(self, *args: Any) -> sqlite3.Cursor:
        return self.cursor().execute(*args)  # type: ignore[no-any-return]

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        return self.cursor().executemany(*args)  # type: ignore[no-any-return]

    def close(self) -> None:
        cursors, self._cursors = list(self._cursors), WeakSet()
        for cursor in cursors:
            with contextlib.suppress(sqlite3.ProgrammingError):  # of a class that did not make it
                cursor.close()
        super().close()

    def commit(self) -> None:
        if not self.sandboxed:
            super().commit()

    def rollback(self) -> None:
        if not self.sandboxed:
            super().rollback()

    def __exit__(self, *error: Any) -> Literal[False]:
        return False if self.sandboxed else super().__exit__(*error)

    def executescript(self, sql_script: str, /) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.cursor()
        if not self.sandboxed:
            return cursor.executescript(sql_script)
        statement = ""  # the original would commit first
        for part in sql_script.split(";"):
            statement += part + ";"
            if sqlite3.complete_statement(statement):
                cursor.execute(statement)
                statement = ""
        return cursor


def file_of(conn: sqlite3.Connection) -> str:
    """The path of the database's file; empty where it is in memory, and gone when the last connection is closed."""
    return str(conn.execute("PRAGMA database_list").fetchone()[2])


def is_in_memory(conn: sqlite3.Connection) -> bool:
    """Whether the database is gone when the connection is closed."""
    return not file_of(conn)


def is_shared_wal(conn: sqlite3.Connection) -> bool:
    """Whether there is a write-ahead log, which the last connection to close works off, and others may be open."""
    (journal,), (locking,) = (conn.execute(f"PRAGMA {name}_mode").fetchone() for name in ("journal", "locking"))
    return (journal, locking) == ("wal", "normal")


def _allow(*_: object) -> int:
    """An authorizer as good as none; `None` takes one away since Python 3.11 only, and forbids everything before."""
    return sqlite3.SQLITE_OK


def take_back(conn: sqlite3.Connection) -> None:
    """Make a connection that user code has had in its hands do what it is told, and nothing else."""
    conn.set_authorizer(_allow)
    conn.set_progress_handler(None, 0)
    conn.set_trace_callback(None)
    conn.text_factory = str
    conn.row_factory = None


def clean_up(conn: sqlite3.Connection) -> None:
    """Drop what a session has left in a connection that must not be closed: temporary things, attached databases."""
    kinds = ("trigger", "view", "index", "table")  # what depends on tables first
    left = conn.execute("SELECT type, name FROM sqlite_temp_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
    for kind in kinds:
        for found, name in left:
            if found == kind:
                quoted = name.replace('"', '""')
                conn.execute(f'DROP {kind} IF EXISTS temp."{quoted}"').close()
    for _, name, _ in conn.execute("PRAGMA database_list").fetchall():
        if name not in ("main", "temp"):
            quoted = name.replace('"', '""')
            conn.execute(f'DETACH DATABASE "{quoted}"').close()


def identity_of(path: str) -> tuple[int, int] | None:
    """Which file is there: device and number; None when there is none, or no path."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
