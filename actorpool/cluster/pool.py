"""`ClusterPool`: the verbs of `Pool` for a pool whose workers are on several hosts."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from actorpool.client.lease import Lease, Transaction, transaction_options
from actorpool.cluster.calls import FarCall
from actorpool.cluster.client import Client
from actorpool.cluster.commands import drive
from actorpool.cluster.lease import ClusterLease
from actorpool.cluster.plans import LOOKING, STARTING, Grant, Plans
from actorpool.config import check_request
from actorpool.core.cluster.figures import ClusterStatus, by_worker, merged_metrics, merged_stats
from actorpool.status import LeaseInfo, PoolMetrics, WorkerInfo

if TYPE_CHECKING:
    from actorpool.cluster.aio import AsyncClusterPool


class ClusterPool:
    """A handle of a pool that is spread over hosts: thread-safe, picklable (on any host of the cluster), cheap.

    Calls go to this host's own share first, at the speed of a `Pool`; to another host when that is full or absent.
    First come, first served holds for each host. `host=` of a verb names the only host that is meant.

    Args:
        client: of this process.
        name: the pool's name.
        rebuild: makes the handle anew from the name, in another process.
    """

    def __init__(self, client: Client, name: str, rebuild: Callable[[str], Any] | None = None) -> None:
        self.name = name
        self._client = client
        self._plans = Plans(client, name)
        self._rebuild = rebuild
        self._dispatcher: Any = None
        self._aio: AsyncClusterPool | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._rebuild is None:
            raise TypeError("this handle belongs to its process")
        return (self._rebuild, (self.name,))

    # -- work ---------------------------------------------------------------------------------------------

    def run(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        checkout_timeout: float | None = None,
        call_timeout: float | None = None,
        host: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run `fn(connection, *args, **kwargs)` in a worker and return its result; as `Pool.run`.

        Args:
            checkout_timeout: longest wait for a worker in seconds, on whatever host; None is the pool's.
            call_timeout: longest run in seconds; None is the pool's.
            host: the name or the id of the only host that is meant.

        Raises:
            WorkerDied: the worker, its host or the way to it was lost during the call, which is not repeated.
            PoolDown: no host of the pool is left; the text names the hosts.
        """
        return self._run(FarCall("run", fn, args, kwargs, {}), checkout_timeout, call_timeout, host)

    with_connection = run

    def call(
        self,
        method: str,
        /,
        *args: Any,
        checkout_timeout: float | None = None,
        call_timeout: float | None = None,
        host: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a `@method` of a worker; as `run` otherwise."""
        return self._run(FarCall("call", method, args, kwargs, {}), checkout_timeout, call_timeout, host)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.call, name)

    def _run(self, call: FarCall, checkout_timeout: float | None, call_timeout: float | None, host: str | None) -> Any:
        near = self._plans.near(call, checkout_timeout, call_timeout) if host is None else None
        asked = None
        if near is not None:
            own, alone = near
            asked = time.monotonic()
            try:
                return own.now()
            except Exception as error:
                if not self._plans.goes_on(error, alone):
                    raise
        return drive(self._plans.run(call, checkout_timeout, call_timeout, host, asked))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn(connection, *args, **kwargs)` run in a worker, without waiting for it; as `Pool.submit`."""
        if self._dispatcher is None:
            from actorpool.cluster.dispatcher import ClusterDispatcher  # not at the top: asyncio only where needed

            self._dispatcher = ClusterDispatcher(self)
        return self._dispatcher.submit(fn, args, kwargs)  # type: ignore[no-any-return]

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Any]:
        """`fn(connection, *row)` of each row of the iterables; as `Pool.map`."""
        from actorpool.client.mapping import mapped  # not at the top: few programs use it
        from actorpool.workers.executing import run_chunk_with

        return mapped(self.submit, run_chunk_with, fn, iterables, timeout, chunksize)

    # -- leases -------------------------------------------------------------------------------------------

    def checkout(
        self, *, block: bool = True, timeout: float | None = None, key: Any = None, host: str | None = None
    ) -> Lease | ClusterLease:
        """Lease a worker: `with pool.checkout() as lease:`. `lease.host` says where.

        Args:
            block: False raises `PoolFull` at once when every worker is out.
            timeout: longest wait in seconds; None is the pool's.
            key: as of `Pool.checkout`. A key belongs to one host, and moves only when that host's share does.
            host: the name or the id of the only host that is meant.
        """
        got = drive(self._plans.checkout(block, timeout, key, host))
        return ClusterLease(self._plans, got) if isinstance(got, Grant) else got

    def checkin(self, lease: Lease | ClusterLease) -> None:
        """Give a lease back; the same as `lease.checkin()`.

        Raises:
            ValueError: it is no lease of this pool, or it has ended.
        """
        own = None if isinstance(lease, ClusterLease) else self._client.local(self.name, self._client.engine.here)
        if own is not None:
            own.checkin(lease)
        elif not isinstance(lease, ClusterLease) or lease._plans.pool != self.name:
            raise ValueError(f"pool {self.name!r}: {lease!r} is no lease of this pool")
        elif lease.closed:
            raise ValueError(f"pool {self.name!r}: {lease!r} has ended already, it cannot be checked in")
        else:
            lease.checkin()

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
        """A database transaction (SQL workers), in one of the two forms of `Pool.transaction`, on one host."""
        options = transaction_options(isolation, read_only)
        if fn is not None:
            return self._run(FarCall("transaction", fn, args, kwargs, options), checkout_timeout, call_timeout, host)
        return Transaction(functools.partial(self._lease, checkout_timeout, call_timeout, host), {**options, **kwargs})

    def _lease(self, timeout: float | None, call_timeout: float | None, host: str | None) -> Any:
        lease = self.checkout(timeout=timeout, host=host)
        if call_timeout is not None:
            lease._call_timeout = call_timeout
        return lease

    # -- looking ------------------------------------------------------------------------------------------

    def status(self, host: str | None = None) -> ClusterStatus:
        """The figures of all hosts as one; `.hosts` has those of each, None of one that does not answer."""
        return self._plans.summed(drive(self._plans.everywhere("status", host=host)))

    def workers(self, host: str | None = None) -> list[WorkerInfo]:
        """One line for each worker process, with its host."""
        return self._plans.at_hosts(drive(self._plans.everywhere("workers", host=host)))

    def leases(self, host: str | None = None) -> list[LeaseInfo]:
        """One line for each lease that is out, of all hosts."""
        results = self._plans.named(drive(self._plans.everywhere("leases", host=host)))
        return [lease for leases in results.values() for lease in leases]

    def metrics(self, host: str | None = None) -> PoolMetrics:
        """The last samples of each host."""
        return merged_metrics(list(self._plans.named(drive(self._plans.everywhere("metrics", host=host))).values()))

    def worker_stats(self, timeout: float = 1.0, host: str | None = None) -> dict[tuple[str, int], Any]:
        """What the workers' own `stats()` tell, by host's name and worker id, without those that are busy."""
        return by_worker(self._plans.named(drive(self._plans.everywhere("worker_stats", timeout, host=host))))

    def database_stats(self, timeout: float = 1.0, host: str | None = None) -> dict[str, Any]:
        """What SQL workers have done, summed over all hosts; as `Pool.database_stats`."""
        results = drive(self._plans.everywhere("database_stats", timeout, host=host))
        return merged_stats(list(self._plans.named(results).values()))

    def sessions(self, host: str | None = None) -> list[Any]:
        """The keys under which workers are parked or leased, on all hosts."""
        results = self._plans.named(drive(self._plans.everywhere("sessions", host=host)))
        return [session for sessions in results.values() for session in sessions]

    # -- operating ----------------------------------------------------------------------------------------

    def resize(self, size: int | None = None, max_overflow: int | None = None) -> None:
        """Change the sizes of all hosts together; returns once each host has its new share. None: as it is."""
        check_request("resize", size=size, max_overflow=max_overflow)
        drive(self._plans.asked("resize", self.name, size, max_overflow, STARTING))

    def suspend(self, host: str | None = None) -> None:
        """Serve nobody new, on each host that the pool has now; as `Pool.suspend`."""
        self._plans.require(drive(self._plans.everywhere("suspend", host=host)))

    def resume(self, host: str | None = None) -> None:
        """End a suspension or a drain."""
        self._plans.require(drive(self._plans.everywhere("resume", host=host)))

    def drain(self, timeout: float = 5.0, host: str | None = None) -> None:
        """Suspend, and return when every lease is back; as `Pool.drain`."""
        self._plans.require(drive(self._plans.everywhere("drain", timeout, host=host, patience=timeout + LOOKING)))

    def recycle(self, timeout: float | None = None, restart: bool = False, host: str | None = None) -> None:
        """Replace every connection, one at a time on each host; as `Pool.recycle`."""
        patience = None if timeout is None else timeout + LOOKING
        self._plans.require(drive(self._plans.everywhere("recycle", timeout, restart, host=host, patience=patience)))

    def clear_cache(self, host: str | None = None) -> None:
        """Have every worker forget its prepared statements before its next call."""
        self._plans.require(drive(self._plans.everywhere("clear_cache", host=host)))

    def end_session(self, key: Any) -> bool:
        """End what a worker keeps under a key, on the host that the key belongs to; as `Pool.end_session`."""
        return drive(self._plans.end_session(key))

    @property
    def aio(self) -> AsyncClusterPool:
        """The same verbs as coroutines, on the running event loop."""
        if self._aio is None:
            from actorpool.cluster.aio import AsyncClusterPool  # not at the top: asyncio only where it is used

            self._aio = AsyncClusterPool(self._plans, self)
        return self._aio

    def __repr__(self) -> str:
        return f"<pool {self.name!r} of cluster {self._client.name!r}>"
