"""`AsyncPool` and `AsyncLease`: the verbs of `Pool` and `Lease` as coroutines on the running event loop."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Hashable, Mapping
from types import TracebackType
from typing import Any

from actorpool._protocol import requests
from actorpool.client._asyncio import TASKS
from actorpool.client._calls import CallRequest, NotStarted, function_call
from actorpool.client._handle import PoolHandle
from actorpool.client.lease import BaseLease, transaction_options
from actorpool.status import LeaseInfo, PoolMetrics, PoolStatus, SessionInfo, WorkerInfo, sum_stats
from actorpool.workers import sql


class AsyncLease(BaseLease):
    """One worker for one caller; see `Lease`. Got by `AsyncPool.checkout`.

    A call that is cancelled is interrupted in the worker, and the lease is over: what it had done is not known.

    Attributes:
        id: the lease's number within its pool.
        worker_id, worker_pid: the worker. They change if that worker dies before the first call reaches it.
        host: the name of the worker's host, which is this one.
        fresh, lost: of a keyed lease.
        closed: whether the lease has ended; always true for a forked copy.
    """

    _named = "async lease"

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
        self._check_open()
        try:
            answer = await self._transport.perform(TASKS, self._handle, work)
        except NotStarted as refusal:
            error = refusal.error
        else:
            return self._transport.value(answer, TASKS)
        return self._transport.value(await self._elsewhere(TASKS, work, error), TASKS)

    async def checkin(self) -> None:
        """End the lease; the worker is reset and goes to the next caller. Nothing if it has ended already."""
        self._transport.checkin(self._handle, TASKS)

    async def __aenter__(self) -> AsyncLease:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._transport.checkin(self._handle, TASKS)


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


class AsyncPool:
    """`Pool` for asyncio: no thread per call, any number of event loops, uvloop as well. Got by `pool.aio`.

    Cancelling a task at any await loses no worker: a checkout is cancelled, a call interrupted and its lease over.

    Args:
        pool: the handle whose pool it is.
    """

    def __init__(self, pool: PoolHandle) -> None:
        self._pool = pool
        self.name = pool.name

    def __reduce__(self) -> tuple[Any, ...]:
        return (AsyncPool, (self._pool,))

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
        answer = await self._pool._run_by(TASKS, work, checkout_timeout)
        return self._pool._transport.value(answer, TASKS)

    # -- leases -------------------------------------------------------------------------------------------

    def checkout(self, *, block: bool = True, timeout: float | None = None, key: Hashable = None) -> AsyncCheckout:
        """Lease a worker: `async with pool.aio.checkout() as lease:`, or awaited; as `Pool.checkout` otherwise."""
        return AsyncCheckout(functools.partial(self._lease, block, timeout, None, key))

    async def _lease(
        self, block: bool, timeout: float | None, call_timeout: float | None, key: Hashable = None
    ) -> AsyncLease:
        transport, handle, longest, limit = await self._pool._checkout_by(TASKS, block, timeout, key)
        return AsyncLease(transport, handle, longest, limit if call_timeout is None else call_timeout, key)

    async def checkin(self, lease: AsyncLease) -> None:
        """Give a lease back.

        Raises:
            ValueError: it is no lease of this pool, or it has ended.
        """
        self._pool._check_own(lease, AsyncLease)
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

    async def _ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        return await self._pool._transport.ask(TASKS, request, timeout)

    async def status(self) -> PoolStatus:
        """The pool's figures."""
        return await self._ask(requests.Status())  # type: ignore[no-any-return]

    async def workers(self) -> list[WorkerInfo]:
        """One line for each worker process."""
        return await self._ask(requests.Workers())  # type: ignore[no-any-return]

    async def leases(self) -> list[LeaseInfo]:
        """One line for each lease that is out."""
        return await self._ask(requests.Leases())  # type: ignore[no-any-return]

    async def sessions(self) -> list[SessionInfo]:
        """As `Pool.sessions`."""
        return await self._ask(requests.Sessions())  # type: ignore[no-any-return]

    async def end_session(self, key: Hashable) -> bool:
        """As `Pool.end_session`."""
        return await self._ask(requests.EndSession(key))  # type: ignore[no-any-return]

    async def metrics(self) -> PoolMetrics:
        """The last 100 samples."""
        return await self._ask(requests.Metrics())  # type: ignore[no-any-return]

    async def worker_stats(self, timeout: float = 1.0) -> dict[int, Any]:
        """As `Pool.worker_stats`."""
        return await self._pool._stats_by(TASKS, timeout)

    async def database_stats(self, timeout: float = 1.0) -> dict[str, Any]:
        """As `Pool.database_stats`."""
        return sum_stats(await self.worker_stats(timeout), await self.status())

    async def resize(self, size: int | None = None, max_overflow: int | None = None) -> None:
        """As `Pool.resize`."""
        await self._ask(requests.Resize(size, max_overflow))

    async def suspend(self) -> None:
        """As `Pool.suspend`."""
        await self._ask(requests.Suspend())

    async def resume(self) -> None:
        """As `Pool.resume`."""
        await self._ask(requests.Resume())

    async def drain(self, timeout: float = 5.0) -> None:
        """As `Pool.drain`."""
        await self._ask(requests.Drain(timeout), None)

    async def recycle(self, timeout: float | None = None, restart: bool = False) -> None:
        """As `Pool.recycle`."""
        await self._ask(requests.Recycle(timeout, restart), None)

    async def clear_cache(self) -> None:
        """As `Pool.clear_cache`."""
        await self._ask(requests.ClearCache())

    def __repr__(self) -> str:
        return f"<asyncio side of {self._pool!r}>"
