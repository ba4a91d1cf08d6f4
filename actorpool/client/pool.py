"""`Pool`: the handle of a pool. A name and an address; the work is done by its transport (channel or messages)."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from actorpool._protocol import requests
from actorpool._protocol.requests import HandleFacts
from actorpool.client import _sticky, client_errors, sandboxes
from actorpool.client._blocking import THREADS, drive
from actorpool.client._calls import Attempt, CallRequest, function_call
from actorpool.client._channel import ChannelTransport
from actorpool.client._handle import PoolHandle
from actorpool.client._transport import PoolTransport
from actorpool.client.lease import Lease, Transaction, transaction_options
from actorpool.config import check_request
from actorpool.serialization import functions, pickling
from actorpool.status import LeaseInfo, PoolMetrics, PoolStatus, SessionInfo, WorkerInfo, sum_stats
from actorpool.transport import frames
from actorpool.transport.paths import Endpoint

if TYPE_CHECKING:
    from actorpool.client.aio import AsyncPool
    from actorpool.client.futures import PoolDispatcher


class Pool(PoolHandle):
    """A handle of a pool: thread-safe, fork-safe, picklable, cheap.

    Any attribute that is no verb of the handle is a one-shot call of a worker's method: `db.execute("select 1")`.
    A pool or a manager that is restarted is found again without anybody's help.

    Args:
        endpoint: the system's channel (or the directory of it), or a transport of another kind.
        name: the pool's name.
        facts: settings of the pool that the handle goes by; None has them asked for when first needed.
        process: the process of the pool that has told them (see `PoolTransport.expected`); None: they hold for any.
    """

    _most_turns = 1000
    """Calls of `submit` at once, if the pool has so many workers."""

    def __init__(
        self, endpoint: Endpoint | PoolTransport | str, name: str, facts: HandleFacts | None = None, process: Any = None
    ) -> None:
        transport = endpoint if isinstance(endpoint, PoolTransport) else ChannelTransport(endpoint, name)
        super().__init__(name, transport, facts)
        self._aio: AsyncPool | None = None
        self._dispatchers: dict[int, PoolDispatcher] = {}  # by pid: what was submitted before a fork is the parent's
        if process is not None:
            self._transport.expected = process

    def __reduce__(self) -> tuple[Any, ...]:
        transport = self._transport
        by_name = isinstance(transport, ChannelTransport) and transport.sandbox is None
        return (Pool, (transport.endpoint if by_name else transport, self.name, self._known, transport.expected))  # type: ignore[attr-defined]

    # -- work ---------------------------------------------------------------------------------------------

    def run(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        checkout_timeout: float | None = None,
        call_timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run `fn(connection, *args, **kwargs)` in a worker's process and return its result.

        Args:
            fn: a function; by reference where the worker can import it, else by value (a lambda, `__main__`).
            checkout_timeout: longest wait for a worker in seconds; None is the pool's.
            call_timeout: longest run in seconds; None is the pool's.

        Raises:
            CheckoutTimeout, TooManyWaiting, QueueShed, CircuitOpen, WorkerUnavailable, PoolStopped: no worker.
            PoolNotFound, PoolDown, SystemDown: no pool.
            CallTimeout: it ran too long and was interrupted.
            WorkerDied: the worker died during it; it may have taken effect and is not repeated.
            BaseException: what `fn` raised, with its own type and the remote traceback as its cause.
        """
        return self._run(function_call(fn, args, kwargs, call_timeout), checkout_timeout)

    with_connection = run

    def call(
        self,
        method: str,
        /,
        *args: Any,
        checkout_timeout: float | None = None,
        call_timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a `@method` of a worker; as `run` otherwise.

        Raises:
            MethodNotFound: the worker has no such method.
        """
        return self._run(CallRequest(method, args, kwargs, call_timeout), checkout_timeout)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self.call, name)

    def _run(self, work: CallRequest, checkout_timeout: float | None) -> Any:
        """By a sticky lease of this process, if there is one, in as few steps as can be."""
        path, facts = self._transport.sticky_path, self._known
        attempt = None
        if path is not None and facts is not None and not sandboxes.used:
            limit = work.timeout
            if limit is not None or checkout_timeout is not None:
                check_request("call", call_timeout=limit, checkout_timeout=checkout_timeout)
            payload = work.payload  # what cannot be sent fails before a worker is taken
            lease = _sticky.take(path)
            if lease is not None:
                began = time.perf_counter()
                if limit is None:
                    work.timeout = facts.call_timeout
                answer = _sticky.call(path, lease, work, payload)
                if answer.__class__ is tuple and answer[0] == frames.RESULT:
                    try:
                        return pickling.loads(answer[1])
                    except Exception:  # told in words
                        return client_errors.result(answer[1])
                work.timeout = limit
                attempt = Attempt(lease, answer, began)
        return self._transport.value(drive(self._run_by(THREADS, work, checkout_timeout, attempt)))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn(connection, *args, **kwargs)` run in a worker, without waiting for it and without a thread for it.

        The future waits for a worker without a limit, and can be cancelled until its function begins. Once it has, the
        pool's `call_timeout` counts.

        Raises:
            RuntimeError: at the end of the interpreter.
            TypeError: `fn` is no function.
        """
        functions.check_callable(fn)
        dispatcher = self._dispatchers.get(os.getpid())
        if dispatcher is None:
            from actorpool.client.futures import PoolDispatcher  # not at the top: asyncio is loaded only where needed

            dispatcher = self._dispatchers.setdefault(os.getpid(), PoolDispatcher(self))
        return dispatcher.submit(fn, args, kwargs)

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Any]:
        """`fn(connection, *row)` of each row of the iterables, which are taken at once; the results in order.

        Closing or dropping the iterator cancels what has not begun, and so does an exception, which it raises.

        Args:
            timeout: seconds from now until the last result has to be there (`TimeoutError`); None is no limit.
            chunksize: rows that are one call: a worker that dies, or an exception, costs that many.
        """
        check_request("map", call_timeout=timeout)
        from actorpool.client.mapping import mapped  # not at the top: few programs use it
        from actorpool.workers.executing import run_chunk_with

        return mapped(self.submit, run_chunk_with, fn, iterables, timeout, chunksize)

    # -- leases -------------------------------------------------------------------------------------------

    def checkout(self, *, block: bool = True, timeout: float | None = None, key: Hashable = None) -> Lease:
        """Lease a worker: `with pool.checkout() as lease:`.

        Args:
            block: False raises `PoolFull` at once when every worker is out.
            timeout: longest wait in seconds; None is the pool's, 0 takes an idle worker or fails.
            key: hashable and picklable. The lease is *keyed*: given back, its worker is parked as it is, and the next
                checkout of that key, by whatever process, gets that very worker or waits for it. `lease.fresh` says
                whether the worker holds nothing of the key.

        Raises:
            As `run`, and `PoolFull`.
            InvalidConfig: `timeout` or `key` cannot be one.
        """
        made_of = drive(self._checkout_by(THREADS, block, timeout, key))
        return Lease(*made_of, key)

    def checkin(self, lease: Lease) -> None:
        """Give a lease back; the same as `lease.checkin()`.

        Raises:
            ValueError: it is no lease of this pool, or it has ended.
        """
        self._check_own(lease, Lease)
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
        **kwargs: Any,
    ) -> Any:
        """A database transaction (SQL workers), in one of two forms.

        `transaction(fn, *args, **kwargs)` runs `fn(connection, ...)` as `run` does, inside one transaction.
        `with transaction() as tx:` is a lease in a transaction.
        Either commits at the end, and rolls back on an exception or when the caller dies. `Rollback` only rolls back.

        Args:
            fn: the function of the first form; it is run once, also after a serialization failure.
            isolation: `"serializable"`, `"repeatable read"`, `"read committed"`, `"read uncommitted"`; None is the
                database's default. Like the next three, it is never passed to `fn`.
            read_only: have the database refuse writes.
            checkout_timeout, call_timeout: as for `run`; of the second form, `call_timeout` bounds each call.
            **kwargs: of `fn`; of the second form, what else the database has (PostgreSQL: `deferrable`).

        Raises:
            As `run`; MethodNotFound: the worker knows no transactions.
        """
        options = transaction_options(isolation, read_only)
        if fn is not None:
            return self._run(CallRequest("transact", (fn, args, kwargs, options), {}, call_timeout), checkout_timeout)
        return Transaction(functools.partial(self._lease, checkout_timeout, call_timeout), {**options, **kwargs})

    def _lease(self, timeout: float | None, call_timeout: float | None) -> Lease:
        lease = self.checkout(timeout=timeout)
        if call_timeout is not None:
            lease._call_timeout = call_timeout
        return lease

    # -- looking ------------------------------------------------------------------------------------------

    def _ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        return drive(self._transport.ask(THREADS, request, timeout))

    def status(self) -> PoolStatus:
        """The pool's figures; answered also while the pool is saturated."""
        return self._ask(requests.Status())  # type: ignore[no-any-return]

    def workers(self) -> list[WorkerInfo]:
        """One line for each worker process."""
        return self._ask(requests.Workers())  # type: ignore[no-any-return]

    def leases(self) -> list[LeaseInfo]:
        """One line for each lease that is out."""
        return self._ask(requests.Leases())  # type: ignore[no-any-return]

    def sessions(self) -> list[SessionInfo]:
        """One line for each key whose state a worker holds, in use or parked."""
        return self._ask(requests.Sessions())  # type: ignore[no-any-return]

    def end_session(self, key: Hashable) -> bool:
        """End what a worker holds of a key, at once or when its lease is given back; whether there was anything."""
        return self._ask(requests.EndSession(key))  # type: ignore[no-any-return]

    def metrics(self) -> PoolMetrics:
        """The last 100 samples."""
        return self._ask(requests.Metrics())  # type: ignore[no-any-return]

    def worker_stats(self, timeout: float = 1.0) -> dict[int, Any]:
        """What the workers' own `stats()` tell, by worker id, without those that are busy for `timeout` seconds."""
        return drive(self._stats_by(THREADS, timeout))

    def database_stats(self, timeout: float = 1.0) -> dict[str, Any]:
        """What the workers' `stats()` tell in sum (SQL workers), since each of them started.

        Returns:
            `queries_executed`, `cache_hits`, `cache_misses`, `cache_size`, `connections_created` and `errors`, in sum;
            `available` (idle workers), `size`, `uptime` (seconds since the pool started), and `missing`: how many
            workers are not counted, because they were busy for `timeout` seconds.
        """
        return sum_stats(self.worker_stats(timeout), self.status())

    # -- operating ----------------------------------------------------------------------------------------

    def resize(self, size: int | None = None, max_overflow: int | None = None) -> None:
        """Change the size while it works: no lease breaks, surplus workers stop as they come back. None: as it is."""
        self._ask(requests.Resize(size, max_overflow))

    def suspend(self) -> None:
        """Grant no new leases; those that are out go on, waiters keep waiting within their timeouts."""
        self._ask(requests.Suspend())

    def resume(self) -> None:
        """End a suspension or a drain."""
        self._ask(requests.Resume())

    def drain(self, timeout: float = 5.0) -> None:
        """Suspend, and return when every lease is back; after `timeout` seconds what still runs is interrupted."""
        self._ask(requests.Drain(timeout), None)

    def recycle(self, timeout: float | None = None, restart: bool = False) -> None:
        """Replace every connection, one at a time, those in use when they come back; returns when done.

        Args:
            timeout: longest wait in seconds; None has no limit.
            restart: replace the processes as well.

        Raises:
            CallTimeout: not all are replaced yet; they will be.
        """
        self._ask(requests.Recycle(timeout, restart), None)

    def clear_cache(self) -> None:
        """Have every worker forget its prepared statements before its next call."""
        self._ask(requests.ClearCache())

    @property
    def aio(self) -> AsyncPool:
        """The same verbs as coroutines, on the running event loop."""
        if self._aio is None:
            from actorpool.client.aio import AsyncPool  # not at the top: asyncio is loaded only where it is used

            self._aio = AsyncPool(self)
        return self._aio

    def __repr__(self) -> str:
        return f"<pool {self.name!r} by {self._transport!r}>"
