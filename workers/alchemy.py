"""Any database that SQLAlchemy speaks to. SQLAlchemy is imported by `open`, in the worker, not before."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actorpool.errors import InvalidConfig, PermanentError
from actorpool.workers.arguments import given_instead, misspelt
from actorpool.workers.driver_settings import DriverSettings
from actorpool.workers.login_errors import login_error
from actorpool.workers.sql import Result, SqlWorker
from actorpool.workers.sqlite_session import clean_up, is_in_memory, take_back
from actorpool.workers.statements import POSTGRES_RESTORE

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.orm import Session

    from actorpool.workers.alchemy_session import AutocommitConnection

log = logging.getLogger("actorpool")


class SqlAlchemyWorker(SqlWorker):
    """One SQLAlchemy connection; `run(fn)` gets a `Connection`, or an ORM `Session` on it.

    The `Connection` is in autocommit mode; `with conn.begin():` in `fn` is a real transaction all the same. A
    `Session` begins one with its first use, as ever: `fn` commits it, or `transaction(fn)` does.

    `execute(query, params)`: with a dict (or nothing) for `params` the query is SQLAlchemy's `text` with `:name`
    placeholders; with a list or tuple it goes to the driver as it is, in the driver's own style.

    `reset` rolls back, and cleans or replaces a session that any statement, also one of `fn`, has altered. After
    `run(fn)` the next lease gets a new `Connection`, on the same connection of the driver. Streaming
    costs bounded memory in the worker where SQLAlchemy streams for the database: PostgreSQL, SQLite, MariaDB, MySQL.

    Args:
        url: the engine URL, such as `"postgresql+psycopg://..."`; never shown.
        session: have `run(fn)` get a `Session`.
        configure: called with every new `Connection`, so also after each lease in which `fn` had the one before.
        **engine_args: for `create_engine`.

    Raises:
        InvalidConfig: `url` is missing, or the name of an argument is misspelt.
    """

    def __init__(
        self,
        url: Any = None,
        session: bool = False,
        configure: Callable[[Any], Any] | None = None,
        log_queries: bool = False,
        **engine_args: Any,
    ) -> None:
        super().__init__(log_queries=log_queries)
        problems = misspelt(SqlAlchemyWorker, engine_args)
        if not url:
            problems["url"] = "is required: an engine URL of SQLAlchemy" + given_instead(engine_args)
        if problems:
            raise InvalidConfig(type(self).__name__, problems)
        self._url = url
        self._engine_args = engine_args
        self.gives_session = session
        self.configure = configure
        self._engine: Engine | None = None
        self._conn: AutocommitConnection | None = None
        self._orm: Session | None = None
        self._handed_out = False
        self._engine_options: Any = None
        self._settings: DriverSettings  # of the driver's connection, as it was made
        self._info: dict[Any, Any] = {}  # what SQLAlchemy itself has noted about it
        self._below: dict[str, Any] = {}  # in a sandbox, by savepoint: what SQLAlchemy had begun before

    def __repr__(self) -> str:
        if self._engine is None:
            return "<SqlAlchemyWorker, not connected>"
        return f"<SqlAlchemyWorker {self._engine.url.render_as_string(hide_password=True)}>"

    # -- hooks --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and configure.

        Raises:
            PermanentError: SQLAlchemy or the driver is missing, the URL is wrong, or the server refuses the login.
        """
        if self._engine is None:
            self._engine = self._make_engine()
            self._engine_options = self._engine.get_execution_options()
        from sqlalchemy.exc import DBAPIError

        from actorpool.workers.alchemy_session import AutocommitConnection

        try:
            self._conn = AutocommitConnection(self._engine)
        except DBAPIError as error:
            why = login_error(str(error.orig))
            if why is not None:
                raise PermanentError(f"{self!r}: {error.orig}; {why.advice}", cause=error) from error
            raise
        except TypeError as error:
            raise PermanentError(f"{self!r}: the driver refuses its arguments: {error}", cause=error) from error
        try:
            self._settings = DriverSettings(self._conn.connection.dbapi_connection)
            self._info = dict(self._conn.info)
            self._configure()
        except BaseException:
            self.close()
            raise
        self._connected()

    def _make_engine(self) -> Engine:
        try:
            from sqlalchemy import create_engine
            from sqlalchemy.exc import ArgumentError, NoSuchModuleError
            from sqlalchemy.pool import NullPool
        except ImportError as error:
            raise PermanentError(
                f"SqlAlchemyWorker needs SQLAlchemy ({error}): pip install 'actorpool[sqlalchemy]'", cause=error
            ) from error
        try:
            return create_engine(self._url, **{"poolclass": NullPool, **self._engine_args})
        except NoSuchModuleError as error:
            raise PermanentError(f"SqlAlchemyWorker: {error}; correct the URL, or install the dialect") from error
        except ImportError as error:
            text = f"SqlAlchemyWorker: the driver is missing ({error}); install it where the workers run"
            raise PermanentError(text, cause=error) from error
        except (ArgumentError, TypeError, ValueError) as error:
            # The error may quote the URL with its password: neither its text nor the cause may travel.
            raise PermanentError(
                f"SqlAlchemyWorker: create_engine refuses the URL or an option ({type(error).__name__}); "
                'give "dialect+driver://user@host/database"'
            ) from None

    def _configure(self) -> None:
        if self.configure is not None:
            self.configure(self._conn)
            if self._live.in_real_transaction:
                self._live.commit()
        self._live.settle()
        self._live.dirty = self._handed_out = False

    def check(self) -> None:
        """Run `SELECT 1`."""
        self._live.exec_driver_sql("SELECT 1").close()
        self._live.settle()

    def reset(self) -> None:
        """Roll back, and undo what altered the session: by a statement, or by a new connection where there is none."""
        self._drop_cursors()
        conn, orm = self._live, self._orm
        if conn.in_real_transaction:
            if orm is None or orm.new or orm.dirty or orm.deleted or orm.info.get("wrote"):
                log.warning("%s: rolled back a transaction that its lease left open; commit it", self)
            conn.rollback()
        self._close_orm()
        self._forget_levels()
        conn.settle()
        if conn.engine.get_execution_options() is not self._engine_options:
            self._replace(new_engine=True)
        elif not conn.dirty or self._clean(conn):
            self._renew(conn)
        else:
            self._replace()

    def _renew(self, conn: AutocommitConnection) -> None:
        """Make the next lease find a `Connection` as new, where this one was altered or `fn` had it."""
        if not conn.dirty and not self._handed_out:
            return
        if self._handed_out:
            driver = conn.connection.dbapi_connection
            if isinstance(driver, sqlite3.Connection):
                take_back(driver)
            self._settings.put_back(driver)
            conn.info.clear()
            conn.info.update(self._info)
            self._conn = conn.renewed()
        self._configure()

    def _clean(self, conn: AutocommitConnection) -> bool:
        """Undo what statements have altered; False where that takes another connection."""
        driver = conn.connection.dbapi_connection
        if conn.dialect.name == "postgresql":
            conn.exec_driver_sql(POSTGRES_RESTORE, execution_options={"no_parameters": True})
        elif isinstance(driver, sqlite3.Connection) and is_in_memory(driver):
            clean_up(driver)
        else:
            return False
        return True

    def _replace(self, new_engine: bool = False) -> None:
        self.close()
        if new_engine:
            self._engine = None
        self.open()

    def close(self) -> None:
        """Disconnect."""
        conn, self._conn = self._conn, None
        self._cursors.clear()
        try:
            self._close_orm()
            if conn is not None:
                conn.close()
        except Exception as error:  # it is broken: what matters is that it is let go
            log.debug("closing a broken connection: %s", error)

    def _close_orm(self) -> None:
        orm, self._orm = self._orm, None
        if orm is not None:
            orm.close()

    @property
    def _live(self) -> AutocommitConnection:
        if self._conn is None:
            from sqlalchemy.exc import ResourceClosedError

            raise ResourceClosedError("the connection is closed")
        self._free_connection()
        return self._conn

    @property
    def connection(self) -> Any:
        """The `Connection`, or the `Session` of this lease."""
        self._handed_out = True
        if not self.gives_session:
            return super().connection
        self._check_block()
        if self._orm is None:
            from actorpool.workers.alchemy_session import orm_session

            self._live.settle()
            self._orm = orm_session(self._live, self._floor > 0)
        return self._orm

    def is_disconnect(self, error: BaseException) -> bool:
        """Whether SQLAlchemy has given the connection up, which it also does after an interrupt."""
        return (
            self._conn is None
            or self._conn.closed
            or self._conn.invalidated
            or getattr(error, "connection_invalidated", False) is True
        )

    # -- the driver ---------------------------------------------------------------------------------------

    def _execute(self, query: str, params: Any) -> Any:
        return self._run(query, params, {})

    def _run(self, query: str, params: Any, options: dict[str, Any]) -> Any:
        from sqlalchemy import text

        by_name = params is None or isinstance(params, Mapping)
        if by_name or (params and isinstance(params, list) and isinstance(params[0], Mapping)):
            return self._live.execute(text(query), params, execution_options=options)
        if isinstance(params, list) and not (params and isinstance(params[0], tuple)):
            params = tuple(params)
        return self._live.exec_driver_sql(query, params, execution_options=options)

    def _result(self, query: str, params: Any) -> Result:
        result = self._execute(query, params)
        if not result.returns_rows:
            return Result(rowcount=result.rowcount)
        rows = [tuple(row) for row in result]
        return Result(tuple(result.keys()), rows, len(rows))

    def _executemany(self, query: str, rows: Sequence[Any]) -> int:
        if not rows:
            return 0
        many = [row if isinstance(row, Mapping) else tuple(row) for row in rows]
        return int(self._run(query, many, {}).rowcount)

    def _stream(self, query: str, params: Any, batch: int) -> Any:
        from actorpool.workers.alchemy_session import HeldCursor

        if self._live.dialect.name == "postgresql" and not self.in_transaction:
            # SQLAlchemy's own cursor on the server would be gone before the first row.
            return HeldCursor(self._execute, query, params, self._cursor_name)
        return self._run(query, params, {"stream_results": True, "max_row_buffer": batch})

    def _begin(self, isolation: str | None, read_only: bool, **options: Any) -> None:
        if options:
            raise ValueError(f"begin() takes isolation and read_only, not {', '.join(options)}")
        conn = self._live
        if read_only and conn.dialect.name == "sqlite":
            raise ValueError("SQLite has no read-only transactions by way of SQLAlchemy; SqliteWorker has")
        conn.begin(isolation.upper() if isolation else None)
        if read_only:
            conn.exec_driver_sql("SET TRANSACTION READ ONLY")

    def _commit(self) -> None:
        if self._orm is not None:
            self._orm.commit()  # flushes; a transaction that was open before the Session remains open
        conn = self._live
        if conn.in_real_transaction:
            if conn.dialect.name == "postgresql":
                conn.exec_driver_sql("SELECT 1")  # raises where COMMIT would silently roll back: a statement has failed
            conn.commit()

    def _rollback(self) -> None:
        self._close_orm()
        if self._live.in_real_transaction:
            self._live.rollback()

    def _savepoint(self, statement: str) -> None:
        verb, *_, name = statement.split()
        if self._floor and verb != "SAVEPOINT":
            self._end_above(name, keep=verb == "RELEASE")
        elif self._orm is not None:
            self._orm.flush()
        self._live.exec_driver_sql(statement)
        if self._floor and verb == "SAVEPOINT":
            self._below[name] = self._live.get_nested_transaction()

    # -- in a sandbox -------------------------------------------------------------------------------------

    def _begin_deferred(self) -> None:
        self._live.begin(immediate=False)

    def _enclose(self, on: bool) -> None:
        self._live.before_statement = self._refuse_control if on else None

    def _end_above(self, savepoint: str, keep: bool) -> None:
        """End what SQLAlchemy has begun since that savepoint, which goes with it; only SQLAlchemy does not know."""
        conn, orm, below = self._live, self._orm, self._below.get(savepoint)
        if orm is not None and keep:
            orm.flush()
        elif orm is not None and below is None:
            orm.rollback()
        while (nested := conn.get_nested_transaction()) is not None and nested is not below:
            if orm is not None and orm.in_transaction():
                orm.commit() if keep else orm.rollback()
            if conn.get_nested_transaction() is nested:
                nested.commit() if keep else nested.rollback()

    @property
    def _left_open(self) -> bool:
        return self._live.in_nested_transaction() or (self._orm is not None and self._orm.in_transaction())

    def _undo(self) -> None:
        self._close_orm()
        while (nested := self._live.get_nested_transaction()) is not None:
            nested.rollback()

    @property
    def in_transaction(self) -> bool:
        return self._conn is not None and not self._conn.closed and self._conn.in_real_transaction
