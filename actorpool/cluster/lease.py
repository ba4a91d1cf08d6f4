"""Leases of workers on other hosts: the attributes and verbs of `Lease` and `AsyncLease`."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any

from actorpool.cluster.calls import FarCall
from actorpool.cluster.commands import Plan, adrive, drive
from actorpool.cluster.plans import Grant, Plans
from actorpool.workers import sql


class FarLease:
    """What both kinds have: the facts, and the end.

    Attributes:
        id: the lease's number within its host's pool.
        worker_id, worker_pid: the worker, on its host.
        host: the host's name.
        fresh, lost: of a keyed lease: the worker holds nothing of the key, and why, if it is known.
        closed: whether the lease has ended; always true for a forked copy.
    """

    def __init__(self, plans: Plans, grant: Grant, call_timeout: float | None = None) -> None:
        self._plans = plans
        self._grant = grant
        self._call_timeout = call_timeout
        self._pid = os.getpid()

    @property
    def id(self) -> int:
        """The lease's number within its host's pool."""
        return self._grant.facts["id"]  # type: ignore[no-any-return]

    @property
    def worker_id(self) -> int:
        """The worker's number within its host's pool."""
        return self._grant.facts["worker_id"]  # type: ignore[no-any-return]

    @property
    def worker_pid(self) -> int:
        """The worker's process, on its host."""
        return self._grant.facts["worker_pid"]  # type: ignore[no-any-return]

    @property
    def host(self) -> str:
        """The name of the worker's host."""
        return self._grant.host_name

    @property
    def fresh(self) -> bool:
        """Whether the worker holds nothing of the lease's key."""
        return bool(self._grant.facts.get("fresh", True))

    @property
    def lost(self) -> str | None:
        """Why what there was of the key is gone ("died", "evicted", ...), if it is known."""
        return self._grant.facts.get("lost")

    @property
    def closed(self) -> bool:
        """Whether the lease has ended."""
        return not self._grant.open or self._pid != os.getpid()

    def _perform(self, verb: str, what: Any, args: Any, kwargs: Any, call_timeout: float | None) -> Plan[Any]:
        if self._pid != os.getpid():
            raise self._grant.expired()
        limit = self._call_timeout if call_timeout is None else call_timeout
        return self._plans.perform(self._grant, FarCall(verb, what, args, kwargs, {}), limit)

    def _end(self) -> None:
        if self._pid == os.getpid():
            self._grant.give_back()

    def __del__(self) -> None:
        if getattr(self, "_grant", None) is None or self.closed or not self._grant.give_back():
            return
        text = f"lease {self.id} of pool {self._plans.pool!r} on host {self.host} was dropped while open"
        advice = "and is checked in now: use `with pool.checkout() as lease:`"
        warnings.warn(f"{text}, {advice}", ResourceWarning, source=self, stacklevel=2)

    def __reduce__(self) -> Any:
        raise TypeError("a lease belongs to its process: pass the pool, and check out a lease there")

    def __repr__(self) -> str:
        state = "ended" if self.closed else "open"
        worker = f"worker {self.worker_id} pid {self.worker_pid}"
        return f"<lease {self.id} of pool {self._plans.pool!r} on host {self.host}, {worker}, {state}>"


class ClusterLease(FarLease):
    """A worker on another host, for one caller; see `actorpool.Lease`."""

    def run(self, fn: Callable[..., Any], /, *args: Any, call_timeout: float | None = None, **kwargs: Any) -> Any:
        """Run `fn(connection, *args, **kwargs)` in the worker; as `Lease.run`."""
        return drive(self._perform("run", fn, args, kwargs, call_timeout))

    with_connection = run

    def call(self, method: str, /, *args: Any, call_timeout: float | None = None, **kwargs: Any) -> Any:
        """Call a `@method` of the worker; as `Lease.call`."""
        return drive(self._perform("call", method, args, kwargs, call_timeout))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.call, name)

    def iterate(self, query: str, params: Any = None, batch: int = 1000) -> Iterator[tuple[Any, ...]]:
        """The rows of a query one by one, `batch` of them in memory at a time (SQL workers)."""
        return sql.iterate(self.call, query, params, batch)

    def checkin(self) -> None:
        """End the lease; nothing if it has ended already."""
        self._end()

    def __enter__(self) -> ClusterLease:
        if self.closed:
            raise self._grant.expired()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()


class AsyncClusterLease(FarLease):
    """A worker on another host, for one caller; see `actorpool.AsyncLease`."""

    async def run(self, fn: Callable[..., Any], /, *args: Any, call_timeout: float | None = None, **kwargs: Any) -> Any:
        """Run `fn(connection, *args, **kwargs)` in the worker; as `Lease.run`."""
        return await adrive(self._perform("run", fn, args, kwargs, call_timeout))

    with_connection = run

    async def call(self, method: str, /, *args: Any, call_timeout: float | None = None, **kwargs: Any) -> Any:
        """Call a `@method` of the worker; as `Lease.call`."""
        return await adrive(self._perform("call", method, args, kwargs, call_timeout))

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.call, name)

    def iterate(self, query: str, params: Any = None, batch: int = 1000) -> AsyncIterator[tuple[Any, ...]]:
        """The rows of a query one by one, `batch` of them in memory at a time (SQL workers)."""
        return sql.aiterate(self, query, params, batch)

    async def checkin(self) -> None:
        """End the lease; nothing if it has ended already."""
        self._end()

    async def __aenter__(self) -> AsyncClusterLease:
        if self.closed:
            raise self._grant.expired()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
