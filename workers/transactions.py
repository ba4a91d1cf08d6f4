"""Transactions of a SQL worker: how they nest, how they end. Knows no driver, and no statements but savepoints."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actorpool.errors import ActorPoolError
from actorpool.workers.base import Worker, method

log = logging.getLogger("actorpool")

ISOLATION_LEVELS = ("read uncommitted", "read committed", "repeatable read", "serializable")


class Rollback(Exception):
    """Raised inside `Pool.transaction(fn)`: roll back, and return `value` to the caller instead of an error."""

    def __init__(self, value: Any = None) -> None:
        super().__init__(value)
        self.value = value


class Transactional(Worker, ABC):
    """The part of a SQL worker that opens and ends transactions; a driver says how by the abstract methods."""

    def __init__(self) -> None:
        self._levels: list[str] = []  # "" for the transaction itself, then a name for each savepoint
        self._blocks: list[int] = []  # for each open block, the depth at which it began
        self._block_over = ""  # the verb that has ended the innermost block from inside
        self._floor = 0  # how many levels belong to a sandbox: they are not the user's to end

    @abstractmethod
    def _begin(self, isolation: str | None, read_only: bool, **options: Any) -> None:
        """Open a transaction."""

    @abstractmethod
    def _commit(self) -> None:
        """Commit the open transaction."""

    @abstractmethod
    def _rollback(self) -> None:
        """Roll the open transaction back."""

    @abstractmethod
    def _savepoint(self, statement: str) -> None:
        """Run a savepoint statement."""

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open, however it was opened."""

    @property
    @abstractmethod
    def _live(self) -> Any:
        """The driver's connection; raises the driver's own error when there is none."""

    @property
    def connection(self) -> Any:
        """The driver's connection, for `fn`."""
        self._check_block()
        return self._live

    # -- transactions -------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """How many `begin`s are open; what belongs to a sandbox does not count."""
        if not self.in_transaction:
            self._levels.clear()  # a statement of the user's, or the server, has ended it
        return max(len(self._levels) - self._floor, 0)

    @property
    def autocommits(self) -> bool:
        """Whether a statement is its own transaction now; in a sandbox that is outside of `begin`."""
        return not self.in_transaction or (self._floor > 0 and not self.depth)

    @method
    def begin(self, isolation: str | None = None, read_only: bool = False, **options: Any) -> None:
        """Open a transaction, or a savepoint in the one that is open. In a sandbox the options have no effect.

        Args:
            isolation: one of `ISOLATION_LEVELS`; None is the database's default.
            read_only: have the database refuse writes.
            **options: what else the database has (PostgreSQL: `deferrable`; SQLite: `mode`).

        Raises:
            ValueError: an unknown level, or an option for a savepoint.
        """
        self._check_block()
        outermost = self.autocommits
        if not self.in_transaction:
            self._levels.clear()
            self._begin(checked_isolation(isolation), read_only, **options)
            self._levels.append("")
            return
        if (isolation or read_only or options) and not outermost:
            raise ValueError("a transaction is open, so begin() makes a savepoint, which takes no options")
        checked_isolation(isolation)  # a sandbox has begun before, so it has no say any more
        name = f"actorpool_{len(self._levels) + 1}"
        self._savepoint(f"SAVEPOINT {name}")
        self._levels.append(name)

    @method
    def commit(self) -> None:
        """Commit the innermost `begin`. Raises `ActorPoolError` when nothing is open."""
        name = self._innermost("commit")
        if name:
            self._savepoint(f"RELEASE SAVEPOINT {name}")
            self._levels.pop()
        else:
            self._commit()
            self._levels.clear()
        self._note_end("commit")

    @method
    def rollback(self) -> None:
        """Roll the innermost `begin` back. Raises `ActorPoolError` when nothing is open."""
        name = self._innermost("rollback")
        if name:
            self._savepoint(f"ROLLBACK TO SAVEPOINT {name}")
            self._savepoint(f"RELEASE SAVEPOINT {name}")
            self._levels.pop()
        else:
            self._rollback()
            self._levels.clear()
        self._note_end("rollback")

    @method
    def begin_block(self, **options: Any) -> None:
        """`begin` for a block of code that ends with `end_block`, such as `with pool.transaction():`.

        `commit` and `rollback` inside the block end it early; until it is left, it takes no more statements, which
        would stand for themselves.
        """
        self.begin(**options)
        self._blocks.append(self.depth)

    @method
    def end_block(self, commit: bool = True) -> None:
        """End the innermost block, and what was begun in it and left open. Nothing, where it was ended from inside."""
        if not self._blocks:
            raise ActorPoolError("end_block: no block is open; its connection was lost, and its transaction with it")
        depth = self._blocks.pop()
        over, self._block_over = self._block_over, ""
        if over:
            return
        if not commit:
            self._unwind(depth - 1)
            return
        while self.depth > depth:
            self.commit()
        self.commit()

    def _note_end(self, verb: str) -> None:
        if self._blocks and len(self._levels) - self._floor < self._blocks[-1]:
            self._block_over = verb

    def _check_block(self) -> None:
        if self._block_over:
            raise ActorPoolError(
                f"{self._block_over}() has ended the transaction of this block: leave the block before going on"
            )

    def _innermost(self, verb: str) -> str:
        if self.autocommits:
            raise ActorPoolError(f"{verb}: no transaction is open; call begin() first, or use transaction()")
        return self._levels[-1] if self._levels else ""

    @method
    def transact(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        """`fn(connection, *args, **kwargs)` inside one transaction, in one call; see `run_in_transaction`."""
        return run_in_transaction(self, fn, args, kwargs, options)

    def _unwind(self, depth: int) -> None:
        """Roll back until only `depth` levels are open; what fails here is left to `reset`."""
        try:
            while self.depth > depth:
                self.rollback()
        except Exception as error:
            log.debug("rollback failed, the session is reset later: %s", error)

    def _forget_levels(self) -> None:
        self._levels.clear()
        self._floor = 0
        self._forget_blocks()

    def _forget_blocks(self) -> None:
        self._blocks.clear()
        self._block_over = ""


def checked_isolation(level: str | None) -> str | None:
    """The isolation level in SQL's own words.

    Raises:
        ValueError: there is no such level.
    """
    if level is None:
        return None
    words = str(level).lower().replace("_", " ").replace("-", " ")
    if words not in ISOLATION_LEVELS:
        raise ValueError(f"isolation must be one of {', '.join(ISOLATION_LEVELS)} or None, not {level!r}")
    return words


def run_in_transaction(
    worker: Transactional,
    fn: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Run `fn(worker.connection, *args, **kwargs)` in a transaction, or in a savepoint of the one that is open.

    Commits when `fn` returns; rolls back on whatever it raises, an interrupt included, and passes that on. `Rollback`
    is the exception that only means "roll back": its `value` is returned. Runs in the worker's process.

    Args:
        options: for `begin`: `isolation`, `read_only`, ...
    """
    outside = worker.depth
    worker.begin(**dict(options or {}))
    try:
        result = fn(worker.connection, *args, **dict(kwargs or {}))
        worker.commit()
        return result
    except Rollback as wish:
        worker.rollback()
        return wish.value
    except BaseException:
        worker._unwind(outside)
        raise
