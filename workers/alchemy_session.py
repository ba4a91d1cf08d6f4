"""The SQLAlchemy connection of a `SqlAlchemyWorker`. Imports SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import PoolProxiedConnection

from actorpool.workers.statements import alters_session, is_harmless

UNKNOWN = "unknown"
"""Whether the driver is in autocommit mode, or at which level, is unknown after user code has had it."""


class AutocommitConnection(Connection):
    """A `Connection` in autocommit mode with a `begin()` that is a transaction nevertheless.

    SQLAlchemy begins one of its own at the first statement; here that one means nothing to the database, and is told
    from one that was asked for by `begin()` (or `begin_nested()`, or an ORM `Session`).
    """

    def __init__(self, engine: Engine, connection: PoolProxiedConnection | None = None) -> None:
        self._in_statement = False
        self._asked_for = False
        self._mode: str | None = None
        self.dirty = False
        self.before_statement: Callable[[str], Any] | None = None  # in a sandbox: raises for those that would end it
        super().__init__(engine, connection)
        event.listen(self, "before_cursor_execute", self._note)

    def renewed(self) -> AutocommitConnection:
        """A new object on the same connection of the driver; code that has kept this one finds it closed.

        Execution options, events and whatever else was put on this one are gone with it.
        """
        if "isolation_level" in self.get_execution_options():
            self.dialect.reset_isolation_level(self.connection.dbapi_connection)  # type: ignore[arg-type]
        fresh = AutocommitConnection(self.engine, self.connection)
        fresh._mode = UNKNOWN
        self._dbapi_connection = None  # which is not to be closed along
        self.close()
        return fresh

    @property
    def in_real_transaction(self) -> bool:
        """Whether a transaction that was asked for is open."""
        return self._asked_for and self.in_transaction()

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self._statement(super().execute, args, kwargs)

    def scalar(self, *args: Any, **kwargs: Any) -> Any:
        return self._statement(super().scalar, args, kwargs)

    def scalars(self, *args: Any, **kwargs: Any) -> Any:
        return self._statement(super().scalars, args, kwargs)

    def exec_driver_sql(self, *args: Any, **kwargs: Any) -> Any:
        return self._statement(super().exec_driver_sql, args, kwargs)

    def _statement(self, run: Any, args: Any, kwargs: Any) -> Any:
        outer, self._in_statement = self._in_statement, True
        try:
            return run(*args, **kwargs)
        finally:
            self._in_statement = outer

    def commit(self) -> None:
        """SQLAlchemy's own; in a sandbox nothing, as in autocommit mode."""
        if self.before_statement is None:
            super().commit()

    def rollback(self) -> None:
        """SQLAlchemy's own; in a sandbox nothing, as in autocommit mode."""
        if self.before_statement is None:
            super().rollback()

    def begin(self, isolation: str | None = None, immediate: bool = True) -> Any:
        """Begin; called by SQLAlchemy itself as well, in the middle of the first statement. In a sandbox a savepoint.

        Args:
            isolation: the level; None is the database's own.
            immediate: SQLite: take the write lock at once.
        """
        if self.before_statement is not None:
            return self.begin_nested()
        if self._in_statement and not self.in_transaction():
            self._asked_for = False
            self._switch_to("AUTOCOMMIT")
            return super().begin()
        self.settle()
        self._switch_to(isolation)
        self._asked_for = True
        transaction = super().begin()
        if self.dialect.name == "sqlite":  # its driver would begin late, and not for every statement
            try:
                self.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN DEFERRED")
            except BaseException:
                transaction.rollback()
                raise
        return transaction

    def settle(self) -> None:
        """End the transaction that SQLAlchemy believes in when only statements by themselves were run."""
        if self.in_transaction() and not self._asked_for:
            super().rollback()  # nothing is open in the database

    def _switch_to(self, mode: str | None) -> None:
        """Autocommit, an isolation level, or (None) the database's own level."""
        driver = self.connection.dbapi_connection
        if self.dialect.name == "sqlite":
            driver.isolation_level = None  # type: ignore[union-attr]
        elif mode is None and self._mode is not None:
            self.dialect.reset_isolation_level(driver)  # type: ignore[arg-type]
        elif mode != self._mode:
            self.dialect.set_isolation_level(driver, mode)  # type: ignore[arg-type]
        self._mode = mode

    def _note(self, conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if self.before_statement is not None:
            self.before_statement(statement)
        if not self.dirty:
            strict = self.dialect.name == "postgresql"  # its sessions are cheaply cleaned
            self.dirty = not is_harmless(statement) if strict else alters_session(statement)


class HeldCursor:
    """A cursor of PostgreSQL that outlives its statement: what streams outside a transaction.

    Args:
        run: runs a statement, with parameters or None; it is told the query first.
        query, params: what is to be read, as the worker got it.
        name: of the cursor, in the session.
    """

    def __init__(self, run: Callable[[str, Any], Any], query: str, params: Any, name: str) -> None:
        self._run = run
        self._name = name
        run(f"DECLARE {name} NO SCROLL CURSOR WITH HOLD FOR {query}", params).close()

    def fetchmany(self, size: int) -> Any:
        """The next rows; fewer than `size` are the last ones."""
        return self._run(f"FETCH {size} FROM {self._name}", None).fetchall()

    def close(self) -> None:
        """Have the server forget it."""
        self._run(f"CLOSE {self._name}", None).close()


def orm_session(connection: Connection, in_sandbox: bool = False) -> Session:
    """A `Session` on the connection that notes in its `info` whether it wrote anything.

    In a sandbox it commits and rolls back savepoints of its own.
    """
    session = Session(connection, join_transaction_mode="create_savepoint" if in_sandbox else "conditional_savepoint")

    @event.listens_for(session, "after_flush")
    def flushed(*_: Any) -> None:
        session.info["wrote"] = True

    @event.listens_for(session, "do_orm_execute")
    def executed(state: Any) -> None:
        if not state.is_select:
            session.info["wrote"] = True

    return session
