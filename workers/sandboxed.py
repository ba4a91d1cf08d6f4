"""Sandboxes of a SQL worker: whatever is done in one is undone at its end, and nothing is ever committed.

The sandbox is one transaction, `begin` a savepoint in it. Outside of `begin` every statement must be its own
transaction, as it is without a sandbox; so a savepoint, the guard, is around every call there. It keeps a statement
that fails from spoiling the whole transaction (PostgreSQL), and it tells when other code has ended that transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from actorpool.errors import ActorPoolError
from actorpool.workers.statements import MIXED, transaction_verb
from actorpool.workers.transactions import Transactional

log = logging.getLogger("actorpool")

GUARD = "actorpool_guard"
T = TypeVar("T")

ESCAPED = (
    "the transaction of the sandbox was ended from inside, and what was done in it may have been committed: by a "
    "COMMIT past the worker's methods, or by a statement that commits by itself (such as MySQL's CREATE TABLE)"
)
REFUSED = (
    "in a sandbox, BEGIN, COMMIT and ROLLBACK as statements would end it: use begin(), commit() and rollback() of the "
    "worker, transaction(), or what the driver's connection has for transactions"
)


class Sandboxed(Transactional):
    """The part of a SQL worker that can keep all it does in one transaction that is rolled back."""

    _guarded = False
    _escaped = False
    _end_refused = False

    def _begin_deferred(self) -> None:
        """For a driver: open a transaction that locks nothing before it has to; others are to be open beside it."""
        self._begin(None, False)

    def _enclose(self, on: bool) -> None:
        """For a driver: `commit()` and `rollback()` of the raw connection do nothing from now on; or do again."""

    @property
    def _left_open(self) -> bool:
        """For a driver: whether `fn` has begun a transaction of its own by the raw connection, and left it open."""
        return False

    def _undo(self) -> None:
        """For a driver: end what `fn` has left open by the raw connection; the guard takes its effects back."""

    # -- called by the session ------------------------------------------------------------------------------

    def begin_sandbox(self) -> None:
        """Open a sandbox.

        Raises:
            ActorPoolError: a transaction is open.
        """
        if self.in_transaction:
            raise ActorPoolError("a sandbox cannot begin inside a transaction: end that first")
        self._forget_levels()
        self._begin_deferred()
        self._levels.append("")
        self._floor = 1
        self._guarded = self._escaped = False
        self._enclose(True)

    def in_sandbox(self, call: Callable[[], T]) -> T:
        """Run one call of a sandbox.

        Raises:
            ActorPoolError: the sandbox's transaction is over, or was to be ended by a statement.
            BaseException: whatever `call` raises.
        """
        self._check_inside()
        self._end_refused = False
        if not self._guarded:
            self._savepoint(f"SAVEPOINT {GUARD}")
            self._guarded = True
        try:
            result = call()
        except BaseException as error:
            self._unguard()
            if self._end_refused and isinstance(error, Exception) and not isinstance(error, ActorPoolError):
                raise ActorPoolError(REFUSED) from error
            raise
        self._unguard()
        self._check_inside()
        return result

    def end_turn(self) -> None:
        """Back to where a turn began: what it has left open is rolled back."""
        self._forget_blocks()
        self._undo()
        if not self._guarded:
            return
        if self.depth:
            log.warning("%s: rolled back a transaction that its lease left open; commit it, or use transaction()", self)
        del self._levels[self._floor :]
        self._back_to_guard()

    def end_sandbox(self) -> None:
        """Undo everything; raises the driver's own errors."""
        self._enclose(False)
        self._forget_levels()
        self._guarded = False
        if self.in_transaction:
            self._rollback()

    # -- the guard ----------------------------------------------------------------------------------------

    def _check_inside(self) -> None:
        if self._escaped or not self.in_transaction:
            self._escaped = True
            raise ActorPoolError(ESCAPED)

    def _unguard(self) -> None:
        """Take the guard away, unless a transaction of the user's goes on after this call."""
        if self.depth or self._left_open:
            return
        self._guarded = False  # first: an interrupt may come in between
        try:
            self._savepoint(f"RELEASE SAVEPOINT {GUARD}")
        except Exception:  # a statement has failed, and PostgreSQL takes no other before it is undone
            self._back_to_guard()

    def _back_to_guard(self) -> None:
        self._guarded = False
        try:
            self._savepoint(f"ROLLBACK TO SAVEPOINT {GUARD}")
            self._savepoint(f"RELEASE SAVEPOINT {GUARD}")
        except Exception as error:
            log.debug("the guard of the sandbox is gone: %s", error)
            self._escaped = True

    # -- transaction control as statements --------------------------------------------------------------------

    def _control(self, query: str) -> bool:
        """Whether a statement was BEGIN, COMMIT or ROLLBACK; then it has been done, by a savepoint.

        Raises:
            ActorPoolError: it comes with others in one text.
        """
        verb = transaction_verb(query) if self._floor else None
        if verb is None:
            return False
        if verb == MIXED:
            raise ActorPoolError(REFUSED)
        getattr(self, verb)()
        return True

    def _refuse_control(self, query: str) -> None:
        """For a driver that sees the statements of `fn`: those that would end the sandbox do not reach the server."""
        if self._floor and transaction_verb(query) is not None:
            self._end_refused = True
            raise ActorPoolError(REFUSED)


class InSandbox:
    """A driver's connection as `fn` gets it in a sandbox: the same, but it neither commits nor rolls back."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    def commit(self) -> None:
        """Nothing, as in autocommit mode."""

    def rollback(self) -> None:
        """Nothing, as in autocommit mode."""

    def __enter__(self) -> InSandbox:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)
