"""SQLite in a worker: one connection, autocommit, interruptible statements.

`":memory:"` gives each worker a database of its own, gone with the connection; a file is shared by all workers.

Much of a connection cannot be asked for, let alone put back: functions, collations, handlers, limits. So what user code
had in its hands is not put back piece by piece: the next lease gets a new connection to the same database.
"""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actorpool.errors import InvalidConfig, PermanentError
from actorpool.workers.arguments import given_instead, misspelt
from actorpool.workers.base import method
from actorpool.workers.sql import SqlWorker
from actorpool.workers.sqlite_session import Connection, file_of, identity_of, is_shared_wal, take_back

STEPS = 10_000
"""Instructions of SQLite's machine between two looks at Python's signals: so an interrupt meets a running statement.

Measured with counts, sums and recursion over 10^5 rows: a look every 0.07 ms, at no measurable cost (with 1 000 it
would be 3 %).
"""

_OPTIONS = ("detect_types", "isolation_level", "check_same_thread", "factory", "uri", "autocommit")
MODES = ("deferred", "immediate", "exclusive")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ASKS = re.compile(r"(table|index|foreign_key)_x?(info|list|check)|(integrity|quick)_check|wal_checkpoint|optimize")
"""Pragmas with an argument that is part of a question, not a setting."""
_IN_MEMORY = re.compile(r":memory:|file:(:memory:.*|.*[?&]mode=memory\b.*)")
_numbers = itertools.count(1)
_SESSION_ONLY = (
    sqlite3.SQLITE_CREATE_TEMP_TABLE,
    sqlite3.SQLITE_CREATE_TEMP_INDEX,
    sqlite3.SQLITE_CREATE_TEMP_VIEW,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_DETACH,
)


class SqliteWorker(SqlWorker):
    """A SQLite connection; `run(fn)` gets the `sqlite3.Connection`, in autocommit mode.

    A statement that is interrupted ends with `sqlite3.OperationalError("interrupted")`. While SQLite waits for
    another connection's lock (up to `timeout`) it cannot be interrupted.

    Args:
        database: a path, a `file:` URI, or `":memory:"`.
        timeout: longest wait for another connection's lock, seconds.
        pragmas: settings made on every new connection, e.g. `{"journal_mode": "wal", "foreign_keys": True}`.
        configure: called with every new connection after the pragmas.
        begin_mode: how `begin` locks: `"immediate"` takes the write lock at once, so that two transactions that read
            and then write wait for each other instead of failing with "database is locked". Read-only: deferred.
        cached_statements: prepared statements that the driver keeps.
        **options: for `sqlite3.connect`.

    Raises:
        InvalidConfig: names every bad argument.
    """

    def __init__(
        self,
        database: str | os.PathLike[str] = "",
        timeout: float = 5.0,
        pragmas: Mapping[str, Any] | None = None,
        configure: Callable[[sqlite3.Connection], Any] | None = None,
        begin_mode: str = "immediate",
        cached_statements: int = 128,
        log_queries: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(log_queries=log_queries)
        pragmas = dict(pragmas or {})
        problems = misspelt(SqliteWorker, options, _OPTIONS)
        if not isinstance(database, (str, os.PathLike)) or not os.fspath(database):
            told = given_instead(options)
            problems["database"] = f'is required: a path, a file: URI or ":memory:", not {database!r}{told}'
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
            problems["timeout"] = f"must be a number of at least 0, not {timeout!r}"
        if begin_mode not in MODES:
            problems["begin_mode"] = f"must be one of {', '.join(MODES)}, not {begin_mode!r}"
        if isinstance(cached_statements, bool) or not isinstance(cached_statements, int) or cached_statements < 0:
            problems["cached_statements"] = f"must be a whole number of at least 0, not {cached_statements!r}"
        ours = sorted({"isolation_level", "check_same_thread", "autocommit"} & options.keys())
        if ours:
            problems[ours[0]] = "belongs to the worker: it runs in autocommit mode and begins transactions by itself"
        bad = [name for name in pragmas if not _NAME.match(str(name))]
        if bad:
            problems["pragmas"] = f"{', '.join(map(repr, bad))}: no name of a pragma"
        if problems:
            raise InvalidConfig(type(self).__name__, problems)
        self.database = os.fspath(database)
        self.timeout = timeout
        self.pragmas = pragmas
        self.configure = configure
        self.begin_mode = begin_mode
        self.cached_statements = cached_statements
        self.options = options
        self._conn: sqlite3.Connection | None = None
        self._source = self.database  # what is connected to
        self._path = ""  # of the file; none in memory
        self._identity: tuple[int, int] | None = None  # which file that was when it was opened
        self._altered = False  # something of the session is no longer as `open` left it
        self._handed_out = False  # `fn` has had the connection
        self._read_only = False
        self._statements: OrderedDict[str, None] = OrderedDict()  # what the driver's own cache of this size holds
        self._hits = self._misses = 0

    def __repr__(self) -> str:
        return f"<SqliteWorker {self.database!r}>"

    # -- hooks --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and configure.

        Raises:
            PermanentError: the directory is missing, or the file is no database.
        """
        folder = os.path.dirname(self.database)
        if folder and not self.database.startswith("file:") and not os.path.isdir(folder):
            raise PermanentError(f"{self!r}: there is no directory {folder!r}; create it")
        in_memory = _IN_MEMORY.fullmatch(self.database) and "cache=shared" not in self.database
        # A database in memory needs a name, or no second connection could take it over from the first.
        self._source = f"file:actorpool-{next(_numbers)}?mode=memory&cache=shared" if in_memory else self.database
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            self.close()
            if "not a database" in str(error):
                raise PermanentError(
                    f"{self!r}: the file is not a SQLite database ({error}); give another path, or a database's file",
                    cause=error,
                ) from error
            raise
        except TypeError as error:
            raise PermanentError(f"{self!r}: sqlite3.connect refuses these arguments: {error}", cause=error) from error
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        self._conn = conn = sqlite3.connect(
            self._source,
            timeout=self.timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=self.cached_statements,
            **{"uri": self._source.startswith("file:"), "factory": Connection, **self.options},
        )
        conn.set_progress_handler(_look_at_signals, STEPS)
        self._path = file_of(conn)
        self._identity = identity_of(self._path)
        conn.execute("PRAGMA schema_version").fetchone()  # SQLite opens lazily: have it read the file now
        for name, value in self.pragmas.items():
            conn.execute(f"PRAGMA {name} = {_pragma_value(value)}").close()
        if self.configure is not None:
            self.configure(conn)
        conn.set_authorizer(self._note)
        self._altered = self._handed_out = self._read_only = False
        self._statements.clear()
        self._connected()

    def _note(self, action: int, first: str | None, second: str | None, *_: object) -> int:
        """SQLite's authorizer, asked when a statement is compiled: it sees everything.

        It forbids nothing but to end the transaction of a sandbox.
        """
        if self._floor and action == sqlite3.SQLITE_TRANSACTION:
            self._end_refused = True
            return sqlite3.SQLITE_DENY
        if action in _SESSION_ONLY or (action == sqlite3.SQLITE_PRAGMA and second and not _ASKS.fullmatch(str(first))):
            self._altered = True
        return sqlite3.SQLITE_OK

    def reset(self) -> None:
        """Roll back; a new connection where the session was altered, or user code has had the old one.

        That takes 0.1 ms (0.2 with a write-ahead log, 0.03 in memory), `pragmas` and `configure` not counted.
        """
        if self._handed_out:
            take_back(self._live)
        super().reset()
        if self._altered or self._handed_out:
            self._renew()
        else:
            self._set_read_only(False)

    def _renew(self) -> None:
        """Connect to the same database anew; where that may overlap, before the old connection is closed.

        The last connection to close takes a database in memory along. It also works off a write-ahead log, which may
        take long.
        """
        old, self._conn = self._live, None
        self._cursors.clear()
        try:
            if self._path and not is_shared_wal(old):
                old.close()
            self._connect()
        finally:
            old.close()

    def close(self) -> None:
        """Disconnect; an open transaction is rolled back by SQLite."""
        conn, self._conn = self._conn, None
        self._cursors.clear()
        if conn is not None:
            conn.close()

    @property
    def _live(self) -> sqlite3.Connection:
        if self._conn is None:
            raise sqlite3.ProgrammingError("the connection is closed")
        return self._conn

    @property
    def connection(self) -> Any:
        """The `sqlite3.Connection` of this lease; the next one finds another."""
        self._handed_out = True
        return super().connection

    def needs_check(self) -> bool:
        """The file was deleted, or another one put in its place."""
        return self._identity is not None and self._identity != identity_of(self._path)

    def check(self) -> None:
        """`SELECT 1`. Raises `sqlite3.OperationalError` also where the file is not the one that was opened."""
        if self.needs_check():
            raise sqlite3.OperationalError(f"{self._path!r} was deleted or replaced since it was opened")
        super().check()

    def is_disconnect(self, error: BaseException) -> bool:
        """A connection that user code has closed, or a file that was replaced (SQLite then refuses to write)."""
        if not isinstance(error, sqlite3.Error):
            return False
        try:
            self._live.total_changes  # noqa: B018 (asks whether it is closed)
        except sqlite3.ProgrammingError:
            return True
        return self.needs_check()

    # -- the driver ---------------------------------------------------------------------------------------

    def _execute(self, query: str, params: Any) -> sqlite3.Cursor:
        cursor = sqlite3.Cursor(self._live)
        cursor.row_factory = None  # rows travel as tuples, whatever `configure` made of them
        cursor.execute(query, () if params is None else params)
        self._remember(query)
        return cursor

    def _stream(self, query: str, params: Any, batch: int) -> sqlite3.Cursor:
        return self._execute(query, params)

    def _executemany(self, query: str, rows: Sequence[Any]) -> int:
        cursor = self._live.executemany(query, rows)
        self._remember(query)
        try:
            return cursor.rowcount
        finally:
            cursor.close()

    def _remember(self, query: str) -> None:
        if query in self._statements:
            self._hits += 1
            self._statements.move_to_end(query)
            return
        self._misses += 1
        self._statements[query] = None
        if len(self._statements) > self.cached_statements:
            self._statements.popitem(last=False)

    def _begin(self, isolation: str | None, read_only: bool, mode: str | None = None, **options: Any) -> None:
        if options:
            raise ValueError(f"SQLite's begin() takes isolation, read_only and mode, not {', '.join(options)}")
        mode = mode or ("deferred" if read_only else self.begin_mode)
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        # Every level is met: SQLite's transactions are serializable.
        self._live.execute(f"BEGIN {mode}").close()
        self._set_read_only(read_only)

    def _commit(self) -> None:
        self._live.execute("COMMIT").close()
        self._set_read_only(False)

    def _rollback(self) -> None:
        if self.in_transaction:
            self._live.execute("ROLLBACK").close()
        self._set_read_only(False)

    def _set_read_only(self, wanted: bool) -> None:
        if wanted is not self._read_only:
            altered = self._altered
            self._live.execute(f"PRAGMA query_only = {int(wanted)}").close()
            self._read_only, self._altered = wanted, altered

    def _savepoint(self, statement: str) -> None:
        self._live.execute(statement).close()

    def _begin_deferred(self) -> None:
        self._begin(None, False, "deferred")

    def _enclose(self, on: bool) -> None:
        if isinstance(self._conn, Connection):
            self._conn.sandboxed = on
        self._live.set_authorizer(self._note)  # statements compiled before are to ask it again

    @property
    def in_transaction(self) -> bool:
        return self._conn is not None and self._conn.in_transaction

    @method
    def clear_cache(self) -> None:
        """Push every prepared statement out of the driver's cache, which has no other way to be emptied."""
        for number in range(self.cached_statements):
            self._live.execute(f"SELECT {number}").close()
        self._statements.clear()

    @method
    def stats(self) -> dict[str, Any]:
        """As every SQL worker's; the cache's figures are those of statements run through the worker's methods."""
        cache = {"cache_hits": self._hits, "cache_misses": self._misses, "cache_size": len(self._statements)}
        return {**super().stats(), **cache}


def _look_at_signals() -> None:
    """SQLite calls this in the middle of a statement; being Python, it lets pending signal handlers run first."""


def _pragma_value(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (int, float)):
        return repr(value)
    return "'" + str(value).replace("'", "''") + "'"
