"""A lease: one worker for one caller, until it is checked in."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import TracebackType
from typing import Any

from actorpool.client import client_errors
from actorpool.client._blocking import THREADS, drive
from actorpool.client._calls import CallRequest, LeaseHandle, NotStarted, Replaced, function_call
from actorpool.client._driver import Driver
from actorpool.client._transport import PoolTransport, pauses
from actorpool.process import HOST
from actorpool.workers import sql


class BaseLease:
    """What `Lease` and `AsyncLease` have in common: facts, and where the first call goes if its worker is lost."""

    host = HOST

    def __init__(
        self,
        transport: PoolTransport,
        handle: LeaseHandle,
        timeout: float,
        call_timeout: float | None,
        key: Hashable = None,
    ) -> None:
        self._transport = transport
        self._handle = handle
        self._key = key
        handle.warns_of = transport.pool
        self._timeout = timeout
        self._call_timeout = call_timeout

    @property
    def id(self) -> int:
        """The lease's number within its pool."""
        return self._handle.id

    @property
    def worker_id(self) -> int:
        """The worker's number within its pool."""
        return self._handle.worker_id

    @property
    def worker_pid(self) -> int:
        """The worker's process."""
        return self._handle.worker_pid

    @property
    def fresh(self) -> bool:
        """Whether the worker holds nothing that a former lease of the key has left; always true without a key."""
        return self._handle.fresh

    @property
    def lost(self) -> str | None:
        """Why what there was of the key is gone ("died", "evicted", ...), if it is known."""
        return self._handle.lost

    @property
    def closed(self) -> bool:
        """Whether the lease has ended; always true for a forked copy."""
        return not self._handle.ours

    def _check_open(self) -> None:
        if not self._handle.ours:
            raise client_errors.expired(self._transport.pool, self._handle)

    async def _elsewhere(self, driver: Driver, work: CallRequest, error: BaseException) -> Any:
        """The first call met a dead or disconnected worker: the lease moves to another one, unseen by the caller.

        Returns:
            The answer.
        """
        if self._handle.used or not self._handle.fresh:
            raise error  # what the session held is lost with its worker: the caller has to know
        transport, former = self._transport, self._handle
        deadline = time.perf_counter() + self._timeout
        for pause in pauses():
            transport.checkin(self._handle, driver)
            try:
                self._handle = await transport.another(driver, deadline, pause, error, self._key)
            except Replaced:
                raise client_errors.expired(transport.pool, former) from None
            self._handle.warns_of = transport.pool
            if self._handle.pool_pid != former.pool_pid:  # the pool itself was restarted, and its leases are over
                transport.checkin(self._handle, driver)
                raise client_errors.expired(transport.pool, former)
            try:
                return await transport.perform(driver, self._handle, work)
            except NotStarted as refusal:
                error = refusal.error
        raise AssertionError

    def __reduce__(self) -> Any:
        raise TypeError("a lease belongs to its process: pass the pool, and check out a lease there")

    def __repr__(self) -> str:
        handle = self._handle
        state = "open" if handle.ours else "ended"
        worker = f"worker {handle.worker_id} pid {handle.worker_pid}"
        return f"<{self._named} {handle.id} of pool {self._transport.pool!r}, {worker}, {state}>"

    _named = "lease"


class Lease(BaseLease):
    """One worker for one caller; got by `Pool.checkout`, ended by `checkin` or by leaving its `with` block.

    Any attribute that is no verb of the lease is a method of the worker: `lease.execute("select 1")`. May be used by
    another thread than the one that got it; the worker runs one call at a time. A lease that is dropped while it is
    open is checked in, with a `ResourceWarning`.

    Attributes:
        id: the lease's number within its pool.
        worker_id, worker_pid: the worker. They change if that worker dies before the first call reaches it.
        host: the name of the worker's host, which is this one.
        fresh, lost: of a keyed lease.
        closed: whether the lease has ended.
    """

    def run(self, fn: Callable[..., Any], /, *args: Any, call_timeout: float | None = None, **kwargs: Any) -> Any:
        """Run `fn(connection, *args, **kwargs)` in the worker's process and return its result.

        Args:
            fn: a function; by reference where the worker can import it, else by value.
            call_timeout: longest run in seconds; None is the pool's.

        Raises:
            LeaseExpired: the lease has ended.
            CallTimeout, WorkerDied: the call failed so, and the lease has ended.
            BaseException: what `fn` raised.
        """
        return self._perform(
            function_call(fn, args, kwargs, self._call_timeout if call_timeout is None else call_timeout)
        )

    with_connection = run

    def call(self, method: str, /, *args: Any, call_timeout: float | None = None, **kwargs: Any) -> Any:
        """Call a `@method` of the worker; as `run` otherwise.

        Raises:
            MethodNotFound: the worker has no such method.
        """
        return self._perform(
            CallRequest(method, args, kwargs, self._call_timeout if call_timeout is None else call_timeout)
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.call, name)

    def iterate(self, query: str, params: Any = None, batch: int = 1000) -> Iterator[tuple[Any, ...]]:
        """The rows of a query one by one, `batch` of them in memory at a time (SQL workers)."""
        return sql.iterate(self.call, query, params, batch)

    def _perform(self, work: CallRequest) -> Any:
        handle = self._handle
        if not handle.ours:
            raise client_errors.expired(self._transport.pool, handle)
        try:
            return self._transport.call_now(handle, work)
        except NotStarted as refusal:
            error = refusal.error
        return self._transport.value(drive(self._elsewhere(THREADS, work, error)))

    def checkin(self) -> None:
        """End the lease: the worker is reset and goes to the next caller, or (keyed) is kept as it is for its key.

        Nothing if it has ended already.
        """
        self._transport.checkin(self._handle)

    def __enter__(self) -> Lease:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.checkin()


def transaction_options(isolation: str | None, read_only: bool) -> dict[str, Any]:
    """What a worker's `begin` is told; defaults are left out, so that it may be one that does not know them."""
    options = {"isolation": isolation, "read_only": read_only}
    return {name: value for name, value in options.items() if value}


class Transaction:
    """`with pool.transaction() as tx:`: a lease in a transaction; committed at the end, rolled back on an exception.

    `tx.rollback()` or `tx.commit()` ends it early; the block then takes no more statements. If the caller dies, the
    worker's reset rolls back.
    """

    def __init__(self, checkout: Callable[[], Lease], options: Mapping[str, Any]) -> None:
        self._checkout = checkout
        self._options = options
        self._lease: Lease | None = None

    def __enter__(self) -> Lease:
        self._lease = lease = self._checkout()
        try:
            lease.call("begin_block", **self._options)
        except BaseException:
            lease.checkin()
            raise
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        lease, self._lease = self._lease, None
        assert lease is not None
        try:
            if error is None:
                lease.call("end_block")
            elif not lease.closed:
                lease.call("end_block", False)
        except Exception:
            if error is None:
                raise
            # The caller's own exception goes on; what could not be rolled back here, the worker's reset does.
        finally:
            lease.checkin()
        return isinstance(error, sql.Rollback)
