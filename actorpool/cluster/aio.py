"""`AsyncClusterPool`: the verbs of `ClusterPool` as coroutines on the running event loop."""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Callable, Coroutine
from typing import Any

from actorpool.client.aio import AsyncCheckout, AsyncLease, AsyncTransaction
from actorpool.client.lease import transaction_options
from actorpool.cluster.calls import FarCall
from actorpool.cluster.commands import adrive
from actorpool.cluster.lease import AsyncClusterLease
from actorpool.cluster.plans import LOOKING, STARTING, Grant, Plans
from actorpool.config import check_request
from actorpool.core.cluster.figures import ClusterStatus, by_worker, merged_metrics, merged_stats
from actorpool.status import LeaseInfo, PoolMetrics, WorkerInfo

AnyLease = AsyncLease | AsyncClusterLease


class AsyncClusterPool:
    """`ClusterPool` for asyncio. Cancelling a task interrupts what runs for it, on whatever host. Got by `pool.aio`.

    Args:
        plans: of the pool.
        pool: the `ClusterPool`, by which it is pickled.
    """

    def __init__(self, plans: Plans, pool: Any) -> None:
        self.name = plans.pool
        self._plans = plans
        self._pool = pool

    def __reduce__(self) -> tuple[Any, ...]:
        return (operator.attrgetter("aio"), (self._pool,))

    async def run(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        checkout_timeout: float | None = None,
        call_timeout: float | None = None,
        host: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run `fn(connection, *args, **kwargs)` in a worker; as `ClusterPool.run`."""
        return await self._run(FarCall("run", fn, args, kwargs, {}), checkout_timeout, call_timeout, host)

    with_connection = run

    async def call(
        self,
        method: str,
        /,
        *args: Any,
        checkout_timeout: float | None = None,
        call_timeout: float | None = None,
        host: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a `@method` of a worker; as `ClusterPool.call`."""
        return await self._run(FarCall("call", method, args, kwargs, {}), checkout_timeout, call_timeout, host)

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.call, name)

    async def _run(
        self, call: FarCall, checkout_timeout: float | None, call_timeout: float | None, host: str | None
    ) -> Any:
        near = self._plans.near(call, checkout_timeout, call_timeout) if host is None else None
        asked = None
        if near is not None:
            own, alone = near
            asked = time.monotonic()
            try:
                return await own.later()
            except Exception as error:
                if not self._plans.goes_on(error, alone):
                    raise
        return await adrive(self._plans.run(call, checkout_timeout, call_timeout, host, asked))

    def checkout(
        self, *, block: bool = True, timeout: float | None = None, key: Any = None, host: str | None = None
    ) -> Any:
        """Lease a worker: `async with pool.aio.checkout() as lease:`, or awaited; as `ClusterPool.checkout`."""
        return AsyncCheckout(functools.partial(self._lease, block, timeout, None, key, host))

    async def _lease(
        self, block: bool, timeout: float | None, call_timeout: float | None, key: Any = None, host: str | None = None
    ) -> Any:
        got = await adrive(self._plans.checkout(block, timeout, key, host))
        lease = AsyncClusterLease(self._plans, got) if isinstance(got, Grant) else got
        if call_timeout is not None:
            lease._call_timeout = call_timeout
        return lease

    async def checkin(self, lease: AnyLease) -> None:
        """Give a lease back.

        Raises:
            ValueError: it has ended.
        """
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
        host: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """A database transaction in one of the two forms of `Pool.transaction`, on one host."""
        options = transaction_options(isolation, read_only)
        if fn is not None:
            call = FarCall("transaction", fn, args, kwargs, options)
            return self._run(call, checkout_timeout, call_timeout, host)
        lease = functools.partial(self._lease, True, checkout_timeout, call_timeout, None, host)
        return AsyncTransaction(lease, {**options, **kwargs})

    # -- looking and operating ------------------------------------------------------------------------------

    async def status(self, host: str | None = None) -> ClusterStatus:
        """The figures of all hosts as one; as `ClusterPool.status`."""
        return self._plans.summed(await adrive(self._plans.everywhere("status", host=host)))

    async def workers(self, host: str | None = None) -> list[WorkerInfo]:
        """One line for each worker process, with its host."""
        return self._plans.at_hosts(await adrive(self._plans.everywhere("workers", host=host)))

    async def leases(self, host: str | None = None) -> list[LeaseInfo]:
        """One line for each lease that is out, of all hosts."""
        results = self._plans.named(await adrive(self._plans.everywhere("leases", host=host)))
        return [lease for leases in results.values() for lease in leases]

    async def metrics(self, host: str | None = None) -> PoolMetrics:
        """The last samples of each host."""
        results = await adrive(self._plans.everywhere("metrics", host=host))
        return merged_metrics(list(self._plans.named(results).values()))

    async def worker_stats(self, timeout: float = 1.0, host: str | None = None) -> dict[tuple[str, int], Any]:
        """As `ClusterPool.worker_stats`."""
        return by_worker(self._plans.named(await adrive(self._plans.everywhere("worker_stats", timeout, host=host))))

    async def database_stats(self, timeout: float = 1.0, host: str | None = None) -> dict[str, Any]:
        """As `ClusterPool.database_stats`."""
        results = await adrive(self._plans.everywhere("database_stats", timeout, host=host))
        return merged_stats(list(self._plans.named(results).values()))

    async def sessions(self, host: str | None = None) -> list[Any]:
        """As `ClusterPool.sessions`."""
        results = self._plans.named(await adrive(self._plans.everywhere("sessions", host=host)))
        return [session for sessions in results.values() for session in sessions]

    async def end_session(self, key: Any) -> bool:
        """As `ClusterPool.end_session`."""
        return await adrive(self._plans.end_session(key))

    async def resize(self, size: int | None = None, max_overflow: int | None = None) -> None:
        """Change the sizes of all hosts together; as `ClusterPool.resize`."""
        check_request("resize", size=size, max_overflow=max_overflow)
        await adrive(self._plans.asked("resize", self.name, size, max_overflow, STARTING))

    async def suspend(self, host: str | None = None) -> None:
        """As `ClusterPool.suspend`."""
        await self._operate("suspend", host=host)

    async def resume(self, host: str | None = None) -> None:
        """As `ClusterPool.resume`."""
        await self._operate("resume", host=host)

    async def drain(self, timeout: float = 5.0, host: str | None = None) -> None:
        """As `ClusterPool.drain`."""
        await self._operate("drain", timeout, host=host, patience=timeout + LOOKING)

    async def recycle(self, timeout: float | None = None, restart: bool = False, host: str | None = None) -> None:
        """As `ClusterPool.recycle`."""
        await self._operate("recycle", timeout, restart, host=host, patience=timeout and timeout + LOOKING)

    async def clear_cache(self, host: str | None = None) -> None:
        """As `ClusterPool.clear_cache`."""
        await self._operate("clear_cache", host=host)

    async def _operate(self, verb: str, *args: Any, host: str | None, patience: float | None = LOOKING) -> None:
        results = await adrive(self._plans.everywhere(verb, *args, host=host, patience=patience))
        self._plans.require(results)

    def __repr__(self) -> str:
        return f"<asyncio side of {self._pool!r}>"
