"""`Sessions`: one worker process for each conversation, kept while the conversation goes on."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, TypeVar

from actorpool.agents.conversations import current
from actorpool.agents.explaining import Failure, check_failure, settle
from actorpool.agents.held import Held, blocks, enter, held, leave
from actorpool.agents.hosting import Hosted, name_problem
from actorpool.agents.signatures import twins, without_self
from actorpool.agents.tools import CHECKOUT_TIMEOUT
from actorpool.client.aio import AsyncLease
from actorpool.client.lease import Lease
from actorpool.client.pool import Pool
from actorpool.config import PoolConfig, load_worker
from actorpool.errors import InvalidConfig, SessionLost
from actorpool.workers.base import methods_of

REMEMBERED = 10_000
"""Of so many conversations it is known which process of the pool has served them."""
L = TypeVar("L", Lease, AsyncLease)
RESTARTED = "the pool was restarted"


class Sessions(Hosted):
    """A worker for each conversation, on keyed leases: what one call leaves there, the next one finds.

    The key is that of `conversation(...)`, or what `key()` returns. Workers that no call uses are parked; when all are,
    and another conversation needs one, the one parked longest ends. A conversation whose state was lost is told once,
    by `SessionLost` at its next call; the call after that begins anew.

    Args:
        worker: a `Worker` class, or `"module:Class"`.
        worker_args: its arguments.
        size: worker processes.
        idle: seconds until a parked worker ends.
        key: a function that says which conversation a call belongs to; None: `conversation` does.
        failure: as for `Tools`.
        name: the pool's; with `start(system)`, one that another process has started by that name is used: so the
            processes of a program share their conversations.
        **fields: of `PoolConfig`. `max_overflow` is 0 and `checkout_timeout` 60 s here.

    Raises:
        InvalidConfig: names every bad field.
    """

    def __init__(
        self,
        worker: Any,
        worker_args: dict[str, Any] | None = None,
        *,
        size: int = 4,
        idle: float = 900.0,
        key: Callable[[], Hashable] | None = None,
        failure: Failure = None,
        name: str | None = None,
        **fields: Any,
    ) -> None:
        problems = {} if key is None or callable(key) else {"key": f"must be a function without arguments, not {key!r}"}
        for field, text in (("failure", check_failure(failure)), ("name", name_problem(name))):
            if text:
                problems[field] = text
        if "session_idle" in fields:
            problems["session_idle"] = "is called idle here"
        if problems:
            raise InvalidConfig("Sessions", problems)
        given = {"worker": worker, "worker_args": worker_args or {}, "size": size, "session_idle": idle, **fields}
        defaults = {"max_overflow": 0, "checkout_timeout": CHECKOUT_TIMEOUT}
        super().__init__("sessions", PoolConfig(**{**defaults, **given}), name)
        self._key_of = current if key is None else key
        self.failure = failure
        self._known: OrderedDict[Hashable, int] = OrderedDict()  # the pool's process that has served the key
        cls = load_worker(worker)
        self.tools = [self._tool(name, getattr(cls, name)) for name in methods_of(cls)]
        """The worker's methods as `async` functions, each with a blocking twin as `sync`."""

    def _tool(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def aio(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            key = self._key()
            try:
                if (around := held(self._pool, key)) is not None:
                    return await around.call(name, args, kwargs)
                async with self(key) as lease:
                    return await lease.call(name, *args, **kwargs)
            except Exception as error:
                return settle(self.failure, error)

        def blocking(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            key = self._key()
            try:
                if (around := held(self._pool, key)) is not None:
                    return around.call_blocking(name, args, kwargs)
                with self(key) as lease:
                    return lease.call(name, *args, **kwargs)
            except Exception as error:
                return settle(self.failure, error)

        made: Any = twins(without_self(method), aio, blocking)
        for function in (made, made.sync):
            function.__signature__ = function.__wrapped__.__signature__
            del function.__wrapped__
        return made  # type: ignore[no-any-return]

    def _key(self) -> Hashable:
        key = self._key_of()
        if key is None:
            raise LookupError(
                "this call belongs to no conversation: make it in a block `with conversation(...):`, or give key="
            )
        return key

    def __call__(self, key: Hashable) -> SessionLease:
        """`async with sessions(key) as lease:` (or `with`): the worker of a conversation for several calls.

        Tools of that conversation that are called in the block use its lease, and so does a block within the block.

        Raises:
            SessionLost: when the block is entered.
            RuntimeError: a block around it has it by `with`, and this one wants it by `async with`, or vice versa.
        """
        return SessionLease(self, key)

    def end(self, key: Hashable) -> bool:
        """End a conversation, at once or with the call that runs; whether there was one."""
        self._known.pop(key, None)
        return self._pool is not None and self._pool.end_session(key)

    def keys(self) -> list[Hashable]:
        """The conversations that have a worker now."""
        return [] if self._pool is None else [info.key for info in self._pool.sessions()]

    def loss(self, pool: Pool, key: Hashable, lease: Lease | AsyncLease) -> SessionLost | None:
        """What to raise where a conversation is entered of which the state is lost; told here, it is told nowhere else.

        None: the state is there, or the conversation is a new one.
        """
        former, present = self._known.pop(key, None), lease._handle.pool_pid
        if not lease.fresh or (lease.lost is None and former in (None, present)):
            self._known[key] = present
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return None
        reason = lease.lost or RESTARTED
        lease._handle.lost = None
        text = f"pool {pool.name!r}: what a worker held for {key!r} is gone ({reason}); the next call begins anew"
        return SessionLost(text, pool=pool.name, key=key, reason=reason)


class SessionLease:
    """The worker of a conversation in a block: see `Sessions.__call__`."""

    def __init__(self, sessions: Sessions, key: Hashable) -> None:
        self._sessions = sessions
        self._key = key
        self._lease: Any = None  # None as well where a block around this one has it
        self._outer = blocks()

    def __enter__(self) -> Lease:
        pool = self._sessions.start()
        around = held(pool, self._key)
        if around is not None:
            return self._of_block(around, Lease)
        lease = pool.checkout(key=self._key)
        error = self._sessions.loss(pool, self._key, lease)
        if error is not None:
            lease.checkin()
            raise error
        self._enter(pool, Held(lease))
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lease is not None:
            leave(self._outer)
            self._lease.checkin()

    async def __aenter__(self) -> AsyncLease:
        pool = self._sessions._pool or await self._sessions.started()
        around = held(pool, self._key)
        if around is not None:
            return self._of_block(around, AsyncLease)
        lease = await pool.aio.checkout(key=self._key)
        error = self._sessions.loss(pool, self._key, lease)
        if error is not None:
            await lease.checkin()
            raise error
        self._enter(pool, Held(lease, asyncio.get_running_loop()))
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lease is not None:
            leave(self._outer)
            await self._lease.checkin()

    def _enter(self, pool: Pool, lease: Held) -> None:
        self._lease, self._outer = lease.lease, blocks()
        enter(pool, self._key, lease)

    def _of_block(self, around: Held, kind: type[L]) -> L:
        if isinstance(around.lease, kind):
            return around.lease
        raise RuntimeError(
            f"a block around this one has the session of {self._key!r} as {type(around.lease).__name__}: use that one, "
            "or enter both by `with` or both by `async with`"
        )
