"""Any database with a DB-API 2 (PEP 249) driver: PyMySQL, oracledb, pyodbc, psycopg2, ...

DB-API has no word for autocommit, for an open transaction, or for what a session remembers. How the worker does
without is said below; where the raw connection was used (`run(fn)`), it assumes what is safe.
"""

from __future__ import annotations

import importlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from actorpool.errors import InvalidConfig, PermanentError
from actorpool.workers.arguments import given_instead, misspelt
from actorpool.workers.autocommit import Autocommit, autocommit_of
from actorpool.workers.buffered_rows import unbuffered_cursor
from actorpool.workers.driver_settings import DriverSettings
from actorpool.workers.login_errors import login_error, without_quoted
from actorpool.workers.sandboxed import InSandbox
from actorpool.workers.sql import Result, SqlWorker
from actorpool.workers.sqlite_session import clean_up, is_in_memory, take_back
from actorpool.workers.statements import alters_session

log = logging.getLogger("actorpool")

_CONNECTION_ERRORS = ("OperationalError", "InterfaceError")


class DbapiWorker(SqlWorker):
    """One connection of a DB-API 2 driver; `run(fn)` gets the driver's own connection object.

    Autocommit is switched on where the driver has `autocommit` (an attribute or a method), and off between `begin`
    and its end. With any other driver each statement outside `begin` is followed by `commit()`, and `fn` has to
    commit what it does. `params` are in the driver's own style (`?`, `%s`, `:name`); savepoints and options of
    `begin` are standard SQL.

    `reset` rolls back, and replaces a session that was altered by a statement run through the worker (settings,
    temporary tables, locks). After `run(fn)` autocommit is switched on again, and what drivers keep as attributes
    (factories, converters, limits) is put back; a SQLite file is opened anew. What `fn` alters in the server's session
    by statements on the raw connection cannot be seen: give `on_reset` where it may.
    A call that is interrupted costs the connection: it is unknown how much of the answer was read.

    Args:
        module_or_factory: a module with `connect`, its name, `"module:function"`, or a callable that connects.
        configure: called with every new connection.
        on_reset: called with the connection after each lease that ran anything; `"reconnect"` replaces it.
        check_statement: what any session answers quickly.
        stream_cursor: makes, given the connection, a cursor that does not fetch a whole result at once, for drivers
            whose usual one does (psycopg2: `lambda c: c.cursor("stream")`, in a transaction). PyMySQL and mysqlclient
            are known and need none.
        **connect_args: for the driver's `connect`.

    Raises:
        InvalidConfig: names every bad argument.
    """

    def __init__(
        self,
        module_or_factory: Any = None,
        configure: Callable[[Any], Any] | None = None,
        on_reset: Callable[[Any], Any] | str | None = None,
        check_statement: str = "SELECT 1",
        stream_cursor: Callable[[Any], Any] | None = None,
        log_queries: bool = False,
        **connect_args: Any,
    ) -> None:
        super().__init__(log_queries=log_queries)
        problems = misspelt(DbapiWorker, connect_args)
        named = isinstance(module_or_factory, str) and module_or_factory
        if not named and not callable(module_or_factory) and not hasattr(module_or_factory, "connect"):
            told = "is required: a DB-API module, its name, or a callable that connects"
            problems["module_or_factory"] = told + given_instead(connect_args)
        if on_reset not in (None, "reconnect") and not callable(on_reset):
            problems["on_reset"] = f'must be a callable, "reconnect" or None, not {on_reset!r}'
        if problems:
            raise InvalidConfig(type(self).__name__, problems)
        self._driver = module_or_factory
        self._connect_args = connect_args
        self.configure = configure
        self.on_reset = on_reset
        self.check_statement = check_statement
        self.stream_cursor = stream_cursor
        self._conn: Any = None
        self._commits: Autocommit | None = None
        self._settings: DriverSettings  # as `configure` left them
        self._begun = self._altered = self._handed_out = False
        self._torn = False  # interrupted in the middle of a statement

    def __repr__(self) -> str:
        name = self._driver if isinstance(self._driver, str) else getattr(self._driver, "__name__", "a factory")
        return f"<DbapiWorker {name}{', not connected' if self._conn is None else ''}>"

    # -- hooks --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and configure.

        Raises:
            PermanentError: the driver is missing or refuses its arguments, or the server refuses the login.
        """
        connect = self._factory()
        try:
            self._conn = connect(**self._connect_args)
        except TypeError as error:
            raise PermanentError(f"{self!r}: connect() refuses its arguments: {error}", cause=error) from error
        except Exception as error:
            if _is_a(error, "ProgrammingError"):
                # It may quote what it cannot read, which may hold a password: the cause must not travel either.
                told = without_quoted(str(error))
                raise PermanentError(f"{self!r}: connect() refuses its arguments: {told}; correct them") from None
            why = login_error(str(error))
            if why is not None:
                raise PermanentError(f"{self!r}: {error}; {why.advice}", cause=error) from error
            raise
        try:
            self._commits = autocommit_of(self._conn)
            if self.configure is not None:
                self.configure(self._conn)
                self._live.commit()
            self._settings = DriverSettings(self._conn)
        except BaseException:
            self.close()
            raise
        self._begun = self._altered = self._handed_out = self._torn = False
        self._connected()

    def _factory(self) -> Callable[..., Any]:
        driver = self._driver
        if isinstance(driver, str):
            name, _, function = driver.partition(":")
            try:
                driver = importlib.import_module(name)
                driver = getattr(driver, function) if function else driver
            except (ImportError, AttributeError) as error:
                raise PermanentError(
                    f"DbapiWorker: the driver {self._driver!r} cannot be imported ({error}); install it where the "
                    'workers run, or correct its name ("module" or "module:function")',
                    cause=error,
                ) from error
        return getattr(driver, "connect", driver)  # type: ignore[no-any-return]

    def check(self) -> None:
        """Run `check_statement`."""
        cursor = self._live.cursor()
        cursor.execute(self.check_statement)
        cursor.fetchall()
        cursor.close()

    def reset(self) -> None:
        """Roll back what may be open; replace the session, or have `on_reset` clean it, where that is needed.

        Raises:
            ConnectionError: a statement was interrupted; the connection is opened anew.
        """
        if self._torn:
            raise ConnectionError(f"{self!r}: a statement was interrupted in the middle of its answer")
        of_sqlite = isinstance(self._conn, sqlite3.Connection)
        if self._handed_out and of_sqlite:
            take_back(self._live)
        super().reset()
        if of_sqlite and (self._altered or self._handed_out) and is_in_memory(self._conn):
            clean_up(self._conn)  # closing it would lose the database
            self._take_back()
        elif self._altered or self.on_reset == "reconnect" or (of_sqlite and self._handed_out):
            self.close()
            self.open()
        elif self._handed_out:
            self._take_back()
        if callable(self.on_reset):
            self.on_reset(self._conn)
            self._live.commit()
        self._altered = self._handed_out = False

    def _take_back(self) -> None:
        """Put back what the driver lets be seen of what `fn` may have done on the raw connection."""
        self._live.rollback()  # only the driver knows whether `fn` has left something open
        self._settings.put_back(self._conn)
        self._ended()

    def close(self) -> None:
        """Disconnect."""
        conn, self._conn = self._conn, None
        self._begun = False
        self._cursors.clear()
        if conn is not None:
            try:
                conn.close()
            except Exception as error:  # drivers may refuse to close what is broken
                log.debug("closing a broken connection: %s", error)

    @property
    def connection(self) -> Any:
        """The driver's connection object; from here on the worker cannot know what is done with it."""
        self._handed_out = True
        return InSandbox(super().connection) if self._floor else super().connection

    @property
    def _live(self) -> Any:
        if self._conn is None:
            raise ConnectionError(f"{self!r}: the connection is closed")
        self._free_connection()
        return self._conn

    def is_disconnect(self, error: BaseException) -> bool:
        """After an interrupt, and after an error of the driver's connection class when the connection answers no more.

        The same classes (`OperationalError`, `InterfaceError`) also stand for a lock timeout or a missing table.
        """
        if self._conn is None or isinstance(error, KeyboardInterrupt):
            return not isinstance(self._conn, sqlite3.Connection)
        return _of_connection_class(error) and not self._answers()

    def _answers(self) -> bool:
        try:
            self.check()
        except Exception as error:
            return not _of_connection_class(error)  # refused in a failed transaction: it does answer
        return True

    # -- the driver ---------------------------------------------------------------------------------------

    def _result(self, query: str, params: Any) -> Result:
        try:
            result = super()._result(query, params)
            self._commit_each()  # not before the rows are read: some drivers drop them
        except BaseException as error:
            self._tear(error)
            if not self._torn and not self.in_transaction and self._commits is not None:
                self._commits.failed()
            raise
        return result

    def _tear(self, error: BaseException) -> None:
        if not isinstance(error, Exception) and not isinstance(self._conn, sqlite3.Connection):
            self._torn = True

    def _commit_each(self) -> None:
        if not self._begun and self._commits is not None:
            self._commits.done()

    def _execute(self, query: str, params: Any) -> Any:
        return self._run(self._live.cursor(), query, params)

    def _stream(self, query: str, params: Any, batch: int) -> Any:
        conn = self._live
        cursor = unbuffered_cursor(conn) if self.stream_cursor is None else self.stream_cursor(conn)
        cursor.arraysize = batch
        return self._run(cursor, query, params)

    def _run(self, cursor: Any, query: str, params: Any) -> Any:
        self._altered = self._altered or alters_session(query)
        try:
            if params is None:
                cursor.execute(query)  # drivers tell "no parameters" from an empty list of them
            else:
                cursor.execute(query, params)
        except BaseException as error:
            self._tear(error)
            if not self._torn:
                cursor.close()
            raise
        return cursor

    def _executemany(self, query: str, rows: Sequence[Any]) -> int:
        cursor = self._live.cursor()
        try:
            cursor.executemany(query, rows)
            return int(cursor.rowcount)
        except BaseException as error:
            self._tear(error)
            raise
        finally:
            if not self._torn:
                cursor.close()

    def _begin(self, isolation: str | None, read_only: bool, **options: Any) -> None:
        if options:
            raise ValueError(f"begin() takes isolation and read_only, not {', '.join(options)}")
        assert self._commits is not None
        self._free_connection()
        self._commits.begin(isolation, read_only)
        self._begun = True

    def _begin_deferred(self) -> None:
        assert self._commits is not None
        self._commits.begin_deferred()
        self._begun = True

    def _commit(self) -> None:
        self._live.commit()
        self._ended()

    def _rollback(self) -> None:
        self._live.rollback()
        self._ended()

    def _ended(self) -> None:
        self._begun = False
        if self._commits is not None:
            self._commits.ended()

    def _savepoint(self, statement: str) -> None:
        self._run(self._live.cursor(), statement, None).close()

    @property
    def in_transaction(self) -> bool:
        return self._conn is not None and (self._begun or getattr(self._conn, "in_transaction", False) is True)


def _of_connection_class(error: BaseException) -> bool:
    return _is_a(error, *_CONNECTION_ERRORS)


def _is_a(error: BaseException, *names: str) -> bool:
    """Whether the error is of one of PEP 249's classes, which each driver has of its own."""
    return any(cls.__name__ in names for cls in type(error).__mro__)
