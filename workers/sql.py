"""What every SQL worker has in common: statements, results, transactions, streaming. Imports no driver.

Outside a transaction every statement is its own transaction (autocommit). `begin` opens a transaction, a second `begin`
a savepoint in it; `commit` and `rollback` end the innermost. What a lease leaves open is rolled back by `reset`.
"""

from __future__ import annotations

import logging
import secrets
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actorpool.errors import ActorPoolError, MethodNotFound
from actorpool.workers.base import method
from actorpool.workers.buffered_rows import ReadToItsEnd, holds_connection
from actorpool.workers.sandboxed import Sandboxed
from actorpool.workers.transactions import Rollback, run_in_transaction

__all__ = ["Result", "Rollback", "SqlWorker", "iterate", "run_in_transaction"]

log = logging.getLogger("actorpool")

_ELSEWHERE = {
    "iterate": "iterate() reads rows within a lease: `with pool.checkout() as lease: for row in lease.iterate(query):`",
    "transaction": "transaction() is a verb of pools; in a lease call begin(), then commit() or rollback()",
    "cursor": "cursors do not leave their worker: use execute(), iterate(), or run(fn), which gives fn the connection",
}
"""Names that one may well look for here, and where to find the thing."""

_MOST_LOGGED = 500
"""Characters of a statement in the query log."""


@dataclass(frozen=True)
class Result:
    """What a statement returned; plain data, so it travels.

    Attributes:
        columns: names of the columns; empty when the statement returns no rows.
        rows: the rows, each a tuple.
        rowcount: rows returned or changed, as the driver counts them; -1 where it does not know.
    """

    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[Any, ...]] = ()
    rowcount: int = -1

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __bool__(self) -> bool:
        return True  # a result without rows is still one

    def scalar(self) -> Any:
        """The first column of the first row; None when there is no row."""
        return self.rows[0][0] if self.rows else None

    def dicts(self) -> list[dict[str, Any]]:
        """Each row as a dict by column name (the last one wins where names repeat)."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def __reduce__(self) -> tuple[Any, ...]:
        return (Result, (self.columns, self.rows, self.rowcount))  # half the size of pickled attributes


class SqlWorker(Sandboxed):
    """Base of the SQL workers. A driver's worker says how to connect, and the methods below marked abstract.

    Args:
        log_queries: log each statement with its duration at INFO on the logger `actorpool`; never its parameters.
    """

    def __init__(self, *, log_queries: bool = False) -> None:
        super().__init__()
        self.log_queries = log_queries
        self._cursors: dict[int, tuple[Any, int]] = {}  # id → (cursor, rows in a batch)
        self._cursor_number = 0
        self._cursors_prefix = f"actorpool_{secrets.token_hex(4)}"
        self._queries = 0
        self._errors = 0
        self._connections = 0
        self._connected_at: float | None = None

    # -- what a driver says -------------------------------------------------------------------------------

    @abstractmethod
    def _execute(self, query: str, params: Any) -> Any:
        """Run a statement; returns a cursor in the sense of DB-API."""

    @abstractmethod
    def _executemany(self, query: str, rows: Sequence[Any]) -> int:
        """Run a statement for each row, inside a transaction; returns the rows changed, or -1."""

    @abstractmethod
    def _stream(self, query: str, params: Any, batch: int) -> Any:
        """Run a statement; its rows are fetched bit by bit; returns a cursor."""

    # -- statements ---------------------------------------------------------------------------------------

    @method
    def execute(self, query: str, params: Any = None) -> Result:
        """Run one statement. `params` go in the driver's own placeholder style. Raises the driver's own errors."""
        if self._floor and self._control(query):
            return Result()
        return self._counted(self._result, query, params)

    @method
    def executemany(self, query: str, params: Sequence[Any]) -> Result:
        """Run one statement for each row of `params`: all or nothing. The result has a `rowcount` only."""
        return self._counted(self._many, query, params)

    def _counted(self, run: Callable[[str, Any], Result], query: str, params: Any) -> Result:
        self._check_block()
        self._queries += 1
        begun = time.perf_counter()
        try:
            return run(query, params)
        except Exception:
            self._errors += 1
            raise
        finally:
            if self.log_queries:
                log.info("%.1f ms: %s", (time.perf_counter() - begun) * 1000, query[:_MOST_LOGGED])

    def _result(self, query: str, params: Any) -> Result:
        cursor = self._execute(query, params)
        try:
            described = cursor.description  # once: psycopg makes it anew each time
            if described is None:
                return Result(rowcount=cursor.rowcount)
            rows = cursor.fetchall()
            if type(rows) is not list or (rows and type(rows[0]) is not tuple):
                rows = [_as_tuple(row) for row in rows]
            columns = tuple([column[0] for column in described])
            return Result(columns, rows, cursor.rowcount if cursor.rowcount >= 0 else len(rows))
        finally:
            cursor.close()

    def _many(self, query: str, params: Any) -> Result:
        rows = list(params)
        if not self.autocommits:
            return Result(rowcount=self._executemany(query, rows))
        self.begin()
        try:
            changed = self._executemany(query, rows)
            self.commit()
        except BaseException:
            self._unwind(0)
            raise
        return Result(rowcount=changed)

    # -- streaming ----------------------------------------------------------------------------------------

    @method
    def open_cursor(self, query: str, params: Any = None, batch: int = 1000) -> int:
        """Start a statement; its rows are fetched `batch` at a time; returns the cursor's id. See `iterate`."""
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ValueError(f"batch must be a whole number of at least 1, not {batch!r}")
        self._queries += 1
        try:
            cursor = self._stream(query, params, batch)
        except Exception:
            self._errors += 1
            raise
        self._cursor_number += 1
        self._cursors[self._cursor_number] = (cursor, batch)
        return self._cursor_number

    @method
    def fetch(self, cursor_id: int) -> list[tuple[Any, ...]]:
        """The next batch; fewer rows than `batch` are the last ones, and the cursor is closed."""
        if cursor_id not in self._cursors:
            raise ActorPoolError(f"cursor {cursor_id} is not open: it was read to its end, or its lease is over")
        cursor, batch = self._cursors[cursor_id]
        rows = [_as_tuple(row) for row in cursor.fetchmany(batch)]
        if len(rows) < batch:
            self.close_cursor(cursor_id)
        return rows

    @method
    def close_cursor(self, cursor_id: int) -> None:
        """Close a cursor before its end; one that is closed is left alone."""
        cursor, _ = self._cursors.pop(cursor_id, (None, 0))
        if cursor is not None:
            cursor.close()

    @property
    def _cursor_name(self) -> str:
        """A name for the next cursor on the server; unique, since a pooler may have workers share a session."""
        return f"{self._cursors_prefix}_{self._cursor_number}"

    def _free_connection(self) -> None:
        """To be called before the connection is used, where a stream may occupy it: the rest of that is read first."""
        for number, (cursor, batch) in self._cursors.items():
            if holds_connection(cursor):
                rows = ReadToItsEnd(cursor.fetchall())
                cursor.close()
                self._cursors[number] = (rows, batch)

    def find_method(self, name: str) -> Callable[..., Any] | None:
        """None: there is no such method. Raises `MethodNotFound` where it can say more than that."""
        if name in _ELSEWHERE:
            raise MethodNotFound(f"{type(self).__name__} has no method {name!r}: {_ELSEWHERE[name]}")
        return super().find_method(name)

    # -- housekeeping -------------------------------------------------------------------------------------

    @method
    def clear_cache(self) -> None:
        """Forget all prepared statements, here and in the database; nothing where the driver keeps none."""

    @method
    def stats(self) -> dict[str, Any]:
        """Counters since the worker started: statements, errors, the statement cache, connections; `uptime` in s."""
        up = 0.0 if self._connected_at is None else time.monotonic() - self._connected_at
        return {
            "queries_executed": self._queries,
            "errors": self._errors,
            "cache_hits": 0,
            "cache_misses": 0,
            "cache_size": 0,
            "connections_created": self._connections,
            "uptime": up,
        }

    def check(self) -> None:
        """One round trip that any SQL database answers."""
        self._execute("SELECT 1", None).close()

    def reset(self) -> None:
        """Close what was streamed and roll back, with a warning, what was left open."""
        self._drop_cursors()
        if self.in_transaction:
            log.warning("%s: rolled back a transaction that its lease left open; commit it, or use transaction()", self)
            self._rollback()
        self._forget_levels()

    def end_turn(self) -> None:
        """Within a sandbox, back to where this turn of it began."""
        self._drop_cursors()
        super().end_turn()

    def end_sandbox(self) -> None:
        """Undo all that was done in a sandbox."""
        self._drop_cursors()
        super().end_sandbox()

    def _connected(self) -> None:
        """To be called by `open` once the connection is there."""
        self._forget_levels()
        self._cursors.clear()
        self._connections += 1
        self._connected_at = time.monotonic()

    def _drop_cursors(self) -> None:
        cursors, self._cursors = self._cursors, {}
        for cursor, _ in cursors.values():
            try:
                cursor.close()
            except Exception as error:  # its transaction or connection is gone, and it with them
                log.debug("closing a cursor: %s", error)


def _as_tuple(row: Any) -> tuple[Any, ...]:
    return tuple(row.values()) if isinstance(row, Mapping) else tuple(row)


def iterate(
    call: Callable[..., Any], query: str, params: Any = None, batch: int = 1000
) -> Generator[tuple[Any, ...], None, None]:
    """The rows of `query`, one by one, with one batch in memory here and in the worker.

    Runs in the caller; a lease's own `call` serves as `call(method, *args)`. Leaving the loop early closes the cursor.
    """
    cursor = call("open_cursor", query, params, batch)
    finished = False
    try:
        while not finished:
            rows = call("fetch", cursor)
            finished = len(rows) < batch
            yield from rows
    except GeneratorExit:
        if not finished:
            try:
                call("close_cursor", cursor)
            except ActorPoolError:
                pass  # the lease is over, and the cursor with it
        raise


async def aiterate(
    lease: Any, query: str, params: Any = None, batch: int = 1000
) -> AsyncGenerator[tuple[Any, ...], None]:
    """As `iterate`, for a lease whose `call` is a coroutine. Runs on the caller's event loop."""
    cursor = await lease.call("open_cursor", query, params, batch)
    finished = False
    try:
        while not finished:
            rows = await lease.call("fetch", cursor)
            finished = len(rows) < batch
            for row in rows:
                yield row
    finally:
        if not finished and not lease.closed:
            await lease.call("close_cursor", cursor)
