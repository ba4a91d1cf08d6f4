"""`AsyncPool` and `AsyncLease`: the verbs of `Pool` and `Lease` as coroutines on the running event loop."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Hashable, Mapping
from types import TracebackType
from typing import Any, Protocol

from actorpool._protocol import requests
from actorpool._protocol.requests import HandleFacts
from actorpool.client import client_errors, sandboxes
from actorpool.client._aio_sandboxes import AnyAsyncioTransport, aio_transport
from actorpool.client._calls import CallRequest, LeaseHandle, NotStarted, Replaced, function_call
from actorpool.client._transport import LEARNING, PoolTransport, pauses, stack_of_caller
from actorpool.client.lease import transaction_options
from actorpool.config import check_checkout, check_request
from actorpool.process import HOST
from actorpool.status import LeaseInfo, PoolMetrics, PoolStatus, SessionInfo, WorkerInfo, sum_stats
from actorpool.workers import sql


class AsyncLease:
    """One worker for one caller; see `Lease`. Got by `AsyncPool.checkout`.

    A call that is cancelled is interrupted in the worker, and the lease is over: what it had done is not known.

    Attributes:
        id: the lease's number within its pool.
        worker_id, worker_pid: the worker. They change if that worker dies before the first call reaches it.
        host: the name of the worker's host, which is this one.
        closed: whether the lease has ended; always true for a forked copy.
    """

    host = HOST

    def __init__(
        self,
        link: AnyAsyncioTransport,
        hold: LeaseHandle,
        timeout: float,
        call_timeout: float | None,
        key: Hashable = None,
    ) -> None:
        self._transport = link
        self._hold = hold
        self._key = key
        hold.promised = link.pool
        self._timeout = timeout
        self._call_timeout = call_timeout

    @property
    def id(self) -> int:
        """The lease's number within its pool."""
        return self._hold.lease

    @property
    def worker_id(self) -> int:
        """The worker's number within its pool."""
        return self._hold.worker_id

    @property
    def worker_pid(self) -> int:
        """The worker's process."""
        return self._hold.worker_pid

    @property
    def fresh(self) -> bool:
        """Whether the worker holds nothing that a former lease of the key has left; always true without a key."""
        return self._hold.fresh

    @property
    def lost(self) -> str | None:
        """Why what there was of the key is gone ("died", "evicted", ...), if it is known."""
        return self._hold.lost

    @property
    def closed(self) -> bool:
        """Whether the lease has ended."""
        return not self._hold.ours

    async def run(self, fn: Callable[..., Any], /, *args: Any, call_timeout: float | None = None, **kwargs: Any) -> Any:
        """Run `fn(connection, *args, **kwargs)` in the worker's process; as `Lease.run`."""
        return await self._perform(
            function_call(fn, args, kwargs, self._call_timeout if call_timeout is None else call_timeout)
        )

    with_connection = run

    async def call(self, method: str, /, *args: Any, call_timeout: float | None = None, **kwargs: Any) -> Any:
        """Call a `@method` of the worker; as `Lease.call`."""
        timeout = self._call_timeout if call_timeout is None else call_timeout
        return await self._perform(CallRequest(method, args, kwargs, timeout))

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.call, name)

    def iterate(self, query: str, params: Any = None, batch: int = 1000) -> AsyncIterator[tuple[Any, ...]]:
        """The rows of a query one by one, `batch` of them in memory at a time (SQL workers)."""
        return sql.aiterate(self, query, params, batch)

    async def _perform(self, work: CallRequest) -> Any:
        hold = self._hold
        if not hold.ours:
            raise client_errors.expired(self._transport.pool, hold)
        try:
            return await self._transport.call(hold, work)
        except NotStarted as refusal:
            if hold.used or not hold.fresh:  # what the session held is lost with its worker: the caller has to know
                raise refusal.error from None
            error = refusal.error
        return await self._elsewhere(work, error)

    async def _elsewhere(self, work: CallRequest, error: BaseException) -> Any:
        """The first call met a dead or disconnected worker: the lease moves to another one, unseen by the caller."""
        deadline = self._transport.now() + self._timeout
        former = self._hold
        for pause in pauses():
            self._transport.checkin(self._hold)
            try:
                self._hold = await self._transport.another(deadline, pause, error, self._key)
            except Replaced:
                raise client_errors.expired(self._transport.pool, former) from None
            self._hold.promised = self._transport.pool
            if self._hold.pool_pid != former.pool_pid:  # the pool itself was restarted, and its leases are over
                self._transport.checkin(self._hold)
                raise client_errors.expired(self._transport.pool, former)
            try:
                return await self._transport.call(self._hold, work)
            except NotStarted as refusal:
                error = refusal.error
        raise AssertionError

    async def checkin(self) -> None:
        """End the lease; the worker is reset and goes to the next caller. Nothing if it has ended already."""
        self._transport.checkin(self._hold)

    async def __aenter__(self) -> AsyncLease:
        if not self._hold.ours:
            raise client_errors.expired(self._transport.pool, self._hold)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._transport.checkin(self._hold)

    def __reduce__(self) -> Any:
        raise TypeError("a lease belongs to its process and loop: pass the pool, and check out a lease there")

    def __repr__(self) -> str:
        hold = self._hold
        worker = f"worker {hold.worker_id} pid {hold.worker_pid}"
        return (
            f"<async lease {hold.lease} of pool {self._transport.pool!r}, {worker}, {'open' if hold.ours else 'ended'}>"
        )


class AsyncCheckout:
    """What `checkout()` returns: to be awaited, or entered by `async with`."""

    def __init__(self, lease: Callable[[], Awaitable[AsyncLease]]) -> None:
        self._get = lease
        self._lease: AsyncLease | None = None

    def __await__(self) -> Generator[Any, None, AsyncLease]:
        return self._get().__await__()

    async def __aenter__(self) -> AsyncLease:
        self._lease = await self._get()
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._lease is not None
        await self._lease.checkin()


class AsyncTransaction:
    """`async with pool.aio.transaction() as tx:`: see `lease.Transaction`."""

    def __init__(self, lease: Callable[[], Awaitable[AsyncLease]], options: Mapping[str, Any]) -> None:
        self._get = lease
        self._options = options
        self._lease: AsyncLease | None = None

    async def __aenter__(self) -> AsyncLease:
        self._lease = lease = await self._get()
        try:
            await lease.call("begin_block", **self._options)
        except BaseException:
            await lease.checkin()
            raise
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        lease, self._lease = self._lease, None
        assert lease is not None
        try:
            if error is None:
                await lease.call("end_block")
            elif not lease.closed:
                await lease.call("end_block", False)
        except Exception:
            if error is None:
                raise
            # The caller's own exception goes on; what could not be rolled back here, the worker's reset does.
        finally:
            await lease.checkin()
        return isinstance(error, sql.Rollback)


class _Handle(Protocol):
    """What an `AsyncPool` shares with the `Pool` it belongs to."""

    name: str
    _transport: PoolTransport
    _known: HandleFacts | None


class AsyncPool:
    """`Pool` for asyncio: no thread per call, any number of event loops, uvloop as well. Got by `pool.aio`.

    Cancelling a task at any await loses no worker: a checkout is cancelled, a call interrupted and its lease over.

    Args:
        pool: the handle whose pool it is.
    """

    def __init__(self, pool: _Handle) -> None:
        self._pool = pool
        self.name = pool.name
        self._transport = aio_transport(pool._transport)

    def __reduce__(self) -> tuple[Any, ...]:
        return (AsyncPool, (self._pool,))

    async def _learn(self, timeout: float | None) -> tuple[HandleFacts, float]:
        """As `Pool._learn`."""
        began = self._transport.now()
        facts = self._pool._known = await self._transport.facts(LEARNING if timeout is None else timeout)
        return facts, self._transport.now() - began

    # -- work ---------------------------------------------------------------------------------------------

    async def run(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        checkout_timeout: float | None = None,
        call_timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run `fn(connection, *args, **kwargs)` in a worker's process; as `Pool.run`."""
        return await self._run(function_call(fn, args, kwargs, call_timeout), checkout_timeout)

    with_connection = run

    async def call(
        self,
        method: str,
        /,
        *args: Any,
        checkout_timeout: float | None = None,
        call_timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a `@method` of a worker; as `Pool.call`."""
        return await self._run(CallRequest(method, args, kwargs, call_timeout), checkout_timeout)

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.call, name)

    async def _run(self, work: CallRequest, checkout_timeout: float | None) -> Any:
        limit = work.timeout
        if limit is not None or checkout_timeout is not None:
            check_request("call", call_timeout=limit, checkout_timeout=checkout_timeout)
        while True:
            facts, spent = self._pool._known, 0.0
            if facts is None:
                facts, spent = await self._learn(checkout_timeout)
            work.timeout = facts.call_timeout if limit is None else limit
            timeout = facts.checkout_timeout if checkout_timeout is None else checkout_timeout
            stack = stack_of_caller() if facts.stacks else None
            try:
                return await self._way().run(work, max(timeout - spent, 0.0) if spent else timeout, stack)
            except Replaced:
                self._pool._known = None

    def _way(self) -> AnyAsyncioTransport:
        link = sandboxes.route(self._pool._transport)
        return self._transport if link is self._pool._transport else aio_transport(link)

    # -- leases -------------------------------------------------------------------------------------------

    def checkout(self, *, block: bool = True, timeout: float | None = None, key: Hashable = None) -> AsyncCheckout:
        """Lease a worker: `async with pool.aio.checkout() as lease:`, or awaited; as `Pool.checkout` otherwise."""
        return AsyncCheckout(functools.partial(self._lease, block, timeout, None, key))

    async def _lease(
        self, block: bool, timeout: float | None, call_timeout: float | None, key: Hashable = None
    ) -> AsyncLease:
        if block is not True or timeout is not None or key is not None:
            check_checkout(block, timeout, key)
        while True:
            facts, spent = self._pool._known, 0.0
            if facts is None:
                facts, spent = await self._learn(timeout)
            longest = facts.checkout_timeout if timeout is None else timeout
            link = self._way()
            stack = stack_of_caller() if facts.stacks else None
            try:
                hold = await link.checkout(max(longest - spent, 0.0), block, stack, key)
            except Replaced:
                self._pool._known = None
            else:
                sandboxes.entered(link.link, hold)
                limit = facts.call_timeout if call_timeout is None else call_timeout
                return AsyncLease(link, hold, longest, limit, key)

    async def checkin(self, lease: AsyncLease) -> None:
        """Give a lease back.

        Raises:
            ValueError: it is no lease of this pool, or it has ended.
        """
        if not isinstance(lease, AsyncLease) or lease._transport.link.where != self._pool._transport.where:
            raise ValueError(f"pool {self.name!r}: {lease!r} is no lease of this pool")
        if lease.closed:
            raise ValueError(f"pool {self.name!r}: {lease!r} has ended already, it cannot be checked in")
        await lease.checkin()

    def transaction(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *args: Any,
        isolation: str | None = None,
        read_only: bool = False,
        checkout_timeout: float | None = None,
        call_timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """A database transaction in one of the two forms of `Pool.transaction`, with its arguments.

        `await transaction(fn, ...)`, or `async with transaction(isolation=...) as tx:`.
        """
        options = transaction_options(isolation, read_only)
        if fn is not None:
            return self._run(CallRequest("transact", (fn, args, kwargs, options), {}, call_timeout), checkout_timeout)
        lease = functools.partial(self._lease, True, checkout_timeout, call_timeout)
        return AsyncTransaction(lease, {**options, **kwargs})

    # -- looking and operating ------------------------------------------------------------------------------

    async def status(self) -> PoolStatus:
        """The pool's figures."""
        return await self._transport.ask(requests.Status())  # type: ignore[no-any-return]

    async def workers(self) -> list[WorkerInfo]:
        """One line for each worker process."""
        return await self._transport.ask(requests.Workers())  # type: ignore[no-any-return]

    async def leases(self) -> list[LeaseInfo]:
        """One line for each lease that is out."""
        return await self._transport.ask(requests.Leases())  # type: ignore[no-any-return]

    async def sessions(self) -> list[SessionInfo]:
        """As `Pool.sessions`."""
        return await self._transport.ask(requests.Sessions())  # type: ignore[no-any-return]

    async def end_session(self, key: Hashable) -> bool:
        """As `Pool.end_session`."""
        return await self._transport.ask(requests.EndSession(key))  # type: ignore[no-any-return]

    async def metrics(self) -> PoolMetrics:
        """The last 100 samples."""
        return await self._transport.ask(requests.Metrics())  # type: ignore[no-any-return]

    async def worker_stats(self, timeout: float = 1.0) -> dict[int, Any]:
        """As `Pool.worker_stats`."""
        told = await self._transport.ask(requests.GatherStats(timeout), timeout + client_errors.grace(5.0))
        return {worker: stats.open() for worker, stats in told.items()}

    async def database_stats(self, timeout: float = 1.0) -> dict[str, Any]:
        """As `Pool.database_stats`."""
        return sum_stats(await self.worker_stats(timeout), await self.status())

    async def resize(self, size: int | None = None, max_overflow: int | None = None) -> None:
        """As `Pool.resize`."""
        await self._transport.ask(requests.Resize(size, max_overflow))

    async def suspend(self) -> None:
        """As `Pool.suspend`."""
        await self._transport.ask(requests.Suspend())

    async def resume(self) -> None:
        """As `Pool.resume`."""
        await self._transport.ask(requests.Resume())

    async def drain(self, timeout: float = 5.0) -> None:
        """As `Pool.drain`."""
        await self._transport.ask(requests.Drain(timeout), None)

    async def recycle(self, timeout: float | None = None, restart: bool = False) -> None:
        """As `Pool.recycle`."""
        await self._transport.ask(requests.Recycle(timeout, restart), None)

    async def clear_cache(self) -> None:
        """As `Pool.clear_cache`."""
        await self._transport.ask(requests.ClearCache())

    def __repr__(self) -> str:
        return f"<asyncio side of {self._pool!r}>"
