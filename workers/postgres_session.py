"""The psycopg connection of a `PostgresWorker`: it notes what is run on it, by any code. Imports psycopg.

Everything that goes to the server passes `Connection.wait`. A statement run through our cursors is read first and
vouched for; whatever else waits (another class of cursor, a setter, a two-phase commit) makes the session dirty.

What psycopg itself keeps of a session is in the connection object. It is not put back piece by piece: the session goes
on in a new object, see `Session.renewed`.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any, ClassVar

import psycopg
from psycopg import errors
from psycopg.adapt import AdaptersMap
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import tuple_row
from psycopg.sql import Composable

from actorpool.workers.statements import POSTGRES_RESTORE, is_harmless

if not (3, 2) <= tuple(map(int, psycopg.__version__.split(".")[:2])) < (3, 4):  # this module uses names not public
    raise ImportError(f"psycopg {psycopg.__version__} is not among the versions 3.2 and 3.3 that are known to work")
from psycopg._preparing import Prepare, PrepareManager  # to count and to clear, nothing else

log = logging.getLogger("actorpool")

# What psycopg itself sends for transactions and pipelines, and fetches of what was vouched for before.
_OWN = {"_commit_gen", "_rollback_gen", "_enter_gen", "_exit_gen", "_fetch_gen", "_sync_gen", "_communicate_gen"}
_IN_TRANSACTION = (TransactionStatus.INTRANS, TransactionStatus.INERROR, TransactionStatus.ACTIVE)
STOP_WITHIN = 1.0  # seconds that the server has to end a command that was interrupted
LOOK_EVERY = 0.02
"""Seconds between two looks at signals while an answer is waited for: so long may an interrupt take to be noticed."""
_FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY)


@dataclass
class Counters:
    """Figures of one worker; they outlive its connections."""

    queries: int = 0
    errors: int = 0
    hits: int = 0
    misses: int = 0


class Statements(PrepareManager):
    """psycopg's cache of prepared statements, which decides what is prepared; here it also counts."""

    def __init__(self) -> None:
        super().__init__()
        self.counters = Counters()
        self.last_was_prepared = False

    def get(self, query: Any, prepare: bool | None = None) -> tuple[Prepare, bytes]:
        found = super().get(query, prepare)
        self.last_was_prepared = found[0] is Prepare.YES
        if self.last_was_prepared:
            self.counters.hits += 1
        elif self.prepare_threshold is not None and prepare is not False:
            self.counters.misses += 1
        return found

    @property
    def size(self) -> int:
        """How many statements are prepared."""
        return len(self._names)

    def forget(self) -> None:
        """Forget every statement without telling the server, which has been told."""
        self._counts.clear()
        self._names.clear()
        self._to_flush.clear()


class _Closed:
    """In the place of libpq's connection, for code that has kept a connection object beyond its lease."""

    status = ConnStatus.BAD

    def __getattr__(self, name: str) -> Any:
        raise psycopg.OperationalError("the connection is closed: it was of a lease that is over")


_SETTINGS = (
    "row_factory", "cursor_factory", "server_cursor_factory", "prepare_threshold", "prepared_max",
    "_autocommit", "_isolation_level", "_read_only", "_deferrable",
)  # fmt: skip


class Settings:
    """What a connection object is set to: a copy, which later changes of the object do not reach."""

    def __init__(self, session: PgConnection) -> None:
        self._values = {name: getattr(session, name) for name in _SETTINGS}
        self._values |= {name: value for name, value in vars(session).items() if name not in session.attributes}
        self._adapters = None if session._adapters is None else AdaptersMap(session._adapters)
        self._notice_handlers = session._notice_handlers.copy()
        self._notify_handlers = session._notify_handlers.copy()

    def apply(self, session: PgConnection) -> None:
        """Set a new object to the same."""
        for name, value in self._values.items():
            setattr(session, name, value)
        session._adapters = None if self._adapters is None else AdaptersMap(self._adapters)
        session._notice_handlers = self._notice_handlers.copy()
        session._notify_handlers = self._notify_handlers.copy()


class PgConnection(psycopg.Connection[Any]):
    """A connection that knows whether anything may have changed its session, and counts its statements.

    Attributes:
        dirty: something may have changed the session of the server.
        vouched: the thread with traffic that was read before; 0: none.
        before_statement: in a sandbox; raises for statements that would end it.
    """

    attributes: ClassVar[frozenset[str]] = frozenset()
    """Names of those that a new object has."""

    def __init__(self, pgconn: Any) -> None:
        super().__init__(pgconn)
        self._prepared = self.statements = Statements()
        self.cursor_factory = PgCursor
        self.dirty = False
        self.vouched = 0
        self._plans_lost = False
        self._readable = select.poll()
        self._readable.register(pgconn.socket, select.POLLIN)
        self.before_statement: Callable[[str], Any] | None = None
        if not PgConnection.attributes:
            PgConnection.attributes = frozenset(vars(self))

    def __repr__(self) -> str:
        if self.closed:
            return "<PostgreSQL session, closed>"
        info = self.info
        return f"<PostgreSQL session {info.user}@{info.host}:{info.port}/{info.dbname} backend {info.backend_pid}>"

    def commit(self) -> None:
        """psycopg's own; in a sandbox nothing, as in autocommit mode."""
        if self.before_statement is None:
            super().commit()

    def rollback(self) -> None:
        """psycopg's own; in a sandbox nothing, as in autocommit mode."""
        if self.before_statement is None:
            super().rollback()

    def wait(self, gen: Any, interval: float = LOOK_EVERY, *args: Any, **kwargs: Any) -> Any:
        """psycopg's own, through which all traffic goes."""
        if self.vouched != get_ident() and gen.__name__ not in _OWN:
            self.dirty = True
        return super().wait(gen, interval, *args, **kwargs)

    def note(self, query: Any) -> Any:
        """Read a statement, and vouch for this thread's traffic until `vouched` is taken back.

        What may change the session makes it dirty.

        Returns:
            The statement to send: composed SQL is composed once, so that what is sent is what was read.
        """
        if isinstance(query, Composable):
            query = query.as_bytes(self)
        text = _text(query)
        if self.before_statement is not None:
            self.before_statement(text)
        if self._plans_lost:
            self.drop_plans()
        self.statements.counters.queries += 1
        if not self.dirty and not is_harmless(text):
            self.dirty = True
        self.vouched = get_ident()  # last: composing runs code of the user's, which may raise
        return query

    @property
    def state(self) -> TransactionStatus:
        """The transaction's status as libpq has it; does not ask the server."""
        return TransactionStatus(self.pgconn.transaction_status)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, failed ones included."""
        return self.pgconn.transaction_status in _IN_TRANSACTION

    # -- what the worker runs -----------------------------------------------------------------------------

    def statement(self, query: Any, params: Any) -> PgCursor:
        """Run one statement; the rows are tuples, whatever the connection's own `row_factory` makes of rows."""
        cursor = PgCursor(self, row_factory=tuple_row)
        cursor.execute(query, params)
        return cursor

    def many(self, query: Any, rows: Sequence[Any]) -> int:
        """Run one statement for each row; returns the rows changed."""
        with PgCursor(self, row_factory=tuple_row) as cursor:
            cursor.executemany(query, rows)
            return cursor.rowcount

    def stream(self, query: Any, params: Any, name: str) -> Any:
        """Declare a cursor on the server; outside a transaction the server keeps its result (WITH HOLD).

        So other statements of the session still commit by themselves while it is read.
        """
        cursor = psycopg.ServerCursor(self, name, row_factory=tuple_row, withhold=not self.in_transaction)
        self.statements.counters.queries += 1
        try:
            return cursor.execute(query, params)
        except BaseException as error:
            self.statements.counters.errors += isinstance(error, psycopg.Error)
            cursor.close()
            raise

    def commit_or_say(self) -> None:
        """Commit; a transaction in which a statement has failed is rolled back, and that is said.

        Raises:
            psycopg.errors.InFailedSqlTransaction: COMMIT would have rolled back without a word.
        """
        if self.state == TransactionStatus.INERROR:
            self.round_trip("ROLLBACK")
            raise errors.InFailedSqlTransaction(
                "the transaction was rolled back instead of committed, because a statement in it had failed"
            )
        self.commit()

    def drop_plans(self, timeout: float | None = None) -> None:
        """Forget all prepared statements, here at once, and on the server as soon as it takes that.

        Names are never used twice, so the server may keep some that are forgotten here for a while.
        """
        self.statements.forget()
        self._plans_lost = self.state == TransactionStatus.INERROR or self._pipeline is not None
        if not self._plans_lost:
            self.round_trip("DEALLOCATE ALL", timeout)

    def clean(self, timeout: float, settings: str) -> bool:
        """Undo what the last lease left: no round trip when there is nothing, one when there is.

        Args:
            settings: statements that make the worker's own settings again, after all were reset.

        Returns:
            Whether settings were reset.

        Raises:
            psycopg.OperationalError: the connection is closed, broken or still busy.
        """
        if self.pgconn.pipeline_status != PipelineStatus.OFF:
            raise psycopg.OperationalError("the connection was left in a pipeline")
        state = self.state
        if state == TransactionStatus.IDLE and not self.dirty:
            return False
        if state not in (TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR):
            raise psycopg.OperationalError(f"the connection is of no more use: {state.name.lower()}")
        commands = []
        if state != TransactionStatus.IDLE:
            log.warning("%s: rolled back a transaction that its lease left open; commit it, or use transaction()", self)
            commands.append("ROLLBACK")
        was_dirty = self.dirty
        if was_dirty:
            commands += [POSTGRES_RESTORE, settings] if settings else [POSTGRES_RESTORE]
        self.round_trip("; ".join(commands), timeout)
        while was_dirty and self.pgconn.notifies() is not None:
            pass  # what was still heard before UNLISTEN
        self.dirty = False
        return was_dirty

    def renewed(self, settings: Settings) -> PgConnection:
        """The same session of the server in a new object, which is set to `settings`.

        Whatever was put on this object (adapters, handlers, factories, unread notifications) is gone with it, and
        code that has kept it finds it closed.
        """
        fresh = PgConnection(self.pgconn)
        fresh.pgconn.nonblocking = 1  # as psycopg leaves it when it has connected
        fresh._prepared = fresh.statements = self.statements
        fresh._plans_lost = self._plans_lost
        settings.apply(fresh)
        self.pgconn = _Closed()  # type: ignore[assignment]
        return fresh

    def has_news(self) -> bool:
        """Whether the server has sent something since its last answer; does not ask it."""
        return bool(self._readable.poll(0))

    # -- below psycopg ------------------------------------------------------------------------------------

    def may_run_again(self, error: psycopg.Error) -> bool:
        """Whether a statement failed only because its plan is lost: it has done nothing, and may be run once more."""
        lost = isinstance(error, errors.InvalidSqlStatementName) or (
            # "cached plan must not change result type", in whatever language the server speaks
            isinstance(error, errors.FeatureNotSupported) and self.statements.last_was_prepared
        )
        if lost:
            self.drop_plans()
        return lost and self.state == TransactionStatus.IDLE and self._pipeline is None

    def round_trip(self, command: str, timeout: float | None = None) -> list[PGresult]:
        """Run `command` (several statements are fine) past psycopg's cache of statements.

        Returns the result of each statement.

        Args:
            timeout: longest wait for the answer, seconds.

        Raises:
            psycopg.Error: the server refused, is gone, or did not answer in time; then the connection is closed.
            BaseException: a signal handler's; the server was told to stop, and its answer is not left to the next one.
        """
        pgconn = self.pgconn
        if pgconn.status != ConnStatus.OK or pgconn.pipeline_status != PipelineStatus.OFF:
            raise psycopg.OperationalError("the connection is closed, or was left in a pipeline")
        try:
            pgconn.send_query(command.encode())
            pgconn.flush()
            results = self._answers(timeout)
        except BaseException as error:
            if not isinstance(error, psycopg.Error):
                self._stop_command()
            raise
        for result in results:
            if result.status not in _FINE:
                raise errors.error_from_result(result)
        return results

    def _answers(self, timeout: float | None) -> list[PGresult]:
        pgconn = self.pgconn
        results: list[PGresult] = []
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            while pgconn.is_busy():
                if not self._readable.poll(None if deadline is None else max(deadline - time.monotonic(), 0) * 1000):
                    self.close()  # its answer may still come, and would be taken for that of another question
                    raise psycopg.OperationalError(f"the server did not answer within {timeout:g} s")
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                return results
            results.append(result)

    def _stop_command(self) -> None:
        """End a command whose answer nobody waits for: read what the server says, or close."""
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            try:
                self.pgconn.get_cancel().cancel()
                self._answers(STOP_WITHIN)
            except psycopg.Error:
                self.close()


class PgCursor(psycopg.Cursor[Any]):
    """A cursor that reads its statements before they are sent, and runs them again when only their plan was lost."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        session = self._session
        query = session.note(query)
        try:
            try:
                return super().execute(query, params, **options)
            except psycopg.Error as error:
                if not session.may_run_again(error):
                    raise
            return super().execute(query, params, **options)
        except psycopg.Error:
            session.statements.counters.errors += 1
            raise
        finally:
            session.vouched = 0

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
        session = self._session
        query = session.note(query)
        try:
            super().executemany(query, params_seq, **options)
        except psycopg.Error:
            session.statements.counters.errors += 1
            raise
        finally:
            session.vouched = 0

    @property
    def _session(self) -> PgConnection:
        return self._conn  # type: ignore[return-value]


def _text(query: Any) -> str:
    if isinstance(query, str):
        return query
    return query.decode(errors="replace") if isinstance(query, bytes) else "of a kind that is not known"
