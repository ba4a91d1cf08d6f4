"""How a DB-API driver is made to commit each statement: PEP 249 has no word for autocommit."""

from __future__ import annotations

import logging
import sqlite3
from typing import Any

log = logging.getLogger("actorpool")


class Autocommit:
    """A driver that has no `autocommit`: by saying so after each statement."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    def begin(self, isolation: str | None, read_only: bool) -> None:
        """Open a transaction, or have the driver do so with the next statement."""
        wishes = [f"ISOLATION LEVEL {isolation}"] * bool(isolation) + ["READ ONLY"] * read_only
        try:
            for wish in wishes:
                self.say(f"SET TRANSACTION {wish}")
        except BaseException:
            self.conn.rollback()
            self.ended()
            raise

    def begin_deferred(self) -> None:
        """Open a transaction that locks nothing before it has to."""
        self.begin(None, False)

    def say(self, statement: str) -> None:
        cursor = self.conn.cursor()
        cursor.execute(statement)
        cursor.close()

    def ended(self) -> None:
        """The transaction is over."""

    def done(self) -> None:
        """A statement outside a transaction has succeeded."""
        self.conn.commit()

    def failed(self) -> None:
        """A statement outside a transaction has failed."""
        try:
            self.conn.rollback()
        except Exception as error:  # the statement's own error says more
            log.debug("rollback after a failed statement: %s", error)


class _BySwitch(Autocommit):
    """`connection.autocommit`, an attribute or a method."""

    def __init__(self, conn: Any) -> None:
        super().__init__(conn)
        self.set(True)

    def set(self, on: bool) -> None:
        if callable(self.conn.autocommit):
            self.conn.autocommit(on)
        else:
            self.conn.autocommit = on

    def begin(self, isolation: str | None, read_only: bool) -> None:
        self.set(False)
        super().begin(isolation, read_only)

    def ended(self) -> None:
        self.set(True)

    def done(self) -> None:
        pass

    def failed(self) -> None:
        pass


class _ByStatement(Autocommit):
    """sqlite3, which is told to leave transactions alone: its own idea of when to begin one leaves out too much."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        super().__init__(conn)
        self.ended()

    def ended(self) -> None:
        self.conn.isolation_level = None

    def begin(self, isolation: str | None, read_only: bool) -> None:
        if read_only:
            raise ValueError("sqlite3 has no read-only transactions by way of DB-API; SqliteWorker has")
        self.say("BEGIN IMMEDIATE")  # serializable, whatever level was asked for

    def begin_deferred(self) -> None:
        self.say("BEGIN DEFERRED")

    def done(self) -> None:
        pass

    def failed(self) -> None:
        pass


def autocommit_of(conn: Any) -> Autocommit:
    """The way of this connection."""
    if isinstance(conn, sqlite3.Connection):
        return _ByStatement(conn)
    return _BySwitch(conn) if hasattr(conn, "autocommit") else Autocommit(conn)
