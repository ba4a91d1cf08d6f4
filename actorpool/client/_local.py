"""Workers without a pool, and the way to them: each lease makes a worker in this process, and ends it.

Arguments and results are pickled, as between processes, so what works here works there.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from actorpool._protocol import requests, sandboxes
from actorpool.client import client_errors
from actorpool.client._at_fork import condition, renewed
from actorpool.client._calls import CallRequest, LeaseHandle
from actorpool.client._local_sandbox import LocalLease, LocalSandbox, TurnHandle, over
from actorpool.client._local_sessions import LocalSessions
from actorpool.config import PoolConfig, load_worker
from actorpool.core.machine import Backoff, Quantiles, Retry
from actorpool.errors import ActorPoolError, CheckoutTimeout, PermanentError, PoolNotFound
from actorpool.messages import Err, Ok
from actorpool.process import HOST
from actorpool.serialization.pickling import Pickled, dumps, loads
from actorpool.status import LeaseInfo, PoolMetrics, PoolStatus, WorkerInfo
from actorpool.transport import frames
from actorpool.workers.base import RetryAfter
from actorpool.workers.worker_session import Unavailable, WorkerSession

log = logging.getLogger("actorpool")


class LocalWorkers:
    """The workers of one `LocalPool`: each lease makes one, in the calling thread, and ends it.

    Args:
        config: of the pool; what needs processes or a queue (`size`, `breaker`, `call_timeout`, ...) has no effect.
        name: for errors and figures.
    """

    def __init__(self, config: PoolConfig, name: str) -> None:
        self.pool = name
        self.config = config
        self._worker = load_worker(config.worker)
        self._worker_args = Pickled.of(config.worker_args)
        self._out: dict[int, LocalLease] = {}
        self._inherited: list[LocalLease] = []
        self._sandboxes: dict[str, LocalSandbox] = {}
        self._sessions = LocalSessions(name, max(config.size, 1) if isinstance(config.size, int) else 1,
                                       config.session_idle)  # fmt: skip
        self._kept_open: list[WorkerSession] = []
        self._changed = renewed(self, "_changed", condition)
        self._halted = ""
        self._closed = False
        self._since = time.monotonic()
        self._waits, self._holds = Quantiles(), Quantiles()
        self._last_failure: Exception | None = None
        self._checkouts = self._checkins = self._timeouts = self._connect_errors = self._waiting = 0
        _all.add(self)

    def probe(self) -> None:
        """Make a worker and connect once, as a pool does when it starts.

        Raises:
            PermanentError: retrying is useless. What may pass ("not now") is only noted.
            Exception: what the worker's `__init__` raised.
        """
        for name in self.config.preload:
            importlib.import_module(name)
        session = self._session()
        try:
            session.open(time.monotonic())
        except PermanentError:
            raise
        except Exception as error:
            self._last_failure = error
        finally:
            session.close()

    def _session(self) -> WorkerSession:
        return WorkerSession(self._worker(**self._worker_args.open()), None)

    def leave_to_parent(self) -> None:
        """In a forked child: the leases are the parent's, and kept, for dropping one would close its connection."""
        self._inherited += self._out.values()
        self._out = {}
        self._sandboxes = {}
        self._kept_open += self._sessions.leave_to_parent()

    # -- leases -------------------------------------------------------------------------------------------

    def checkout(self, timeout: float, block: bool, key: Hashable) -> LeaseHandle:
        """Make a worker and connect it; a resource that is away is tried again until `timeout` seconds are over.

        Raises:
            CheckoutTimeout: the pool is suspended.
            WorkerUnavailable: it cannot connect; the cause is inside.
            PoolNotFound: it was closed.
        """
        began = time.monotonic()
        deadline = began + timeout
        self._pass_gate(began, deadline)
        state = None if key is None else self._sessions.take(key, max(deadline - time.monotonic(), 0.0), block)
        fresh = state is None or state.fresh
        try:
            session = state.session if state is not None and state.session is not None else self._connected(deadline)
        except BaseException:
            if state is not None:
                self._sessions.park(state)
            raise
        if state is not None:
            state.session = session
        with self._changed:
            self._checkouts += 1
            lease = LocalLease(self._checkouts, session)
            lease.state = state
            self._out[lease.number] = lease
        self._waits.add((time.monotonic() - began) * 1000)
        flags = frames.KEYED * (state is not None) | frames.CONTINUED * (not fresh)
        worker = lease.number if state is None else state.number
        lost = None if state is None else state.lost
        return LeaseHandle(lease.number, worker, os.getpid(), give_back=self.checkin, flags=flags, lost=lost)

    def _pass_gate(self, began: float, deadline: float) -> None:
        with self._changed:
            self._waiting += 1
            try:
                while self._halted and not self._closed and time.monotonic() < deadline:
                    self._changed.wait(deadline - time.monotonic())
            finally:
                self._waiting -= 1
            if self._closed:
                raise PoolNotFound(f"pool {self.pool!r} was closed: make a new LocalPool", pool=self.pool)
            if self._halted:
                self._timeouts += 1
                waited = time.monotonic() - began
                text = f"pool {self.pool!r} is {self._halted}; waited {waited:.2f} s: resume() it, or wait longer"
                raise CheckoutTimeout(text, pool=self.pool, waited=waited, status=self.status())

    def _connected(self, deadline: float) -> WorkerSession:
        session = self._session()
        retry = Retry(Backoff(self.config.backoff_min, self.config.backoff_max))
        while True:
            try:
                session.open(time.monotonic())
            except Exception as error:
                self._connect_errors += 1
                self._last_failure = error
                pause = error.seconds if isinstance(error, RetryAfter) else retry.next(random.random())
                if isinstance(error, PermanentError) or time.monotonic() + pause >= deadline:
                    raise client_errors.unavailable(self.pool, error) from error
                time.sleep(pause)
            else:
                self._last_failure = None
                return session

    def sandbox(self, key: str) -> LocalSandbox:
        """A sandbox that is open.

        Raises:
            LeaseExpired: it is not.
        """
        sandbox = self._sandboxes.get(key)
        if sandbox is None:
            raise over(self.pool)
        return sandbox

    def perform(self, handle: LeaseHandle, work: CallRequest) -> Ok | Err:
        """Run work on the lease's worker, in this thread; as `PoolTransport.perform`."""
        lease = self._lease_of(handle)
        if lease is None:
            self._end_handle(handle)
            raise client_errors.expired(self.pool, handle)
        try:
            with lease.lock:
                try:
                    return self._run(lease, handle, work)
                finally:
                    if lease.over:  # it was taken back meanwhile
                        self._end(lease)
        finally:
            if not handle.open:
                self._end_handle(handle)

    def _lease_of(self, handle: LeaseHandle) -> LocalLease | None:
        """The lease of a handle that may be used; None if it is over."""
        closed = isinstance(handle, TurnHandle) and handle.sandbox.closed
        return self._out.get(handle.id) if handle.ours and not closed else None

    def _end_handle(self, handle: LeaseHandle) -> None:
        if isinstance(handle, TurnHandle) and not handle.sandbox.closed:
            handle.sandbox.leave(handle)
        handle.end()

    def _run(self, lease: LocalLease, handle: LeaseHandle, work: CallRequest) -> Ok | Err:
        session = lease.session
        if not session.connected:
            raise client_errors.not_started(handle, client_errors.unavailable(self.pool, session.lost))
        target, args, kwargs = loads(work.payload)
        if lease.stale_cache:
            lease.stale_cache = False
            session.worker.clear_cache()  # type: ignore[attr-defined]
        handle.used = True
        lease.calls += 1
        try:
            packed = dumps(session.run(target, args, kwargs))
        except Exception as error:
            if session.is_loss(error):
                session.lose(error)
            return Err(self._as_from_a_worker(error))
        return Ok(client_errors.result(packed))

    def _as_from_a_worker(self, error: Exception) -> BaseException:
        travelled = frames.load_error(frames.dump_error(error))
        if isinstance(travelled, ActorPoolError) and travelled.pool is None:
            travelled.pool = self.pool
        return travelled

    def checkin(self, handle: LeaseHandle) -> bool:
        """End a lease and its connection, or a turn; waits for a call of it that another thread has under way."""
        lease = self._lease_of(handle)
        if lease is not None and not isinstance(handle, TurnHandle):
            with lease.lock:
                self._end(lease, bool(handle.leaves), not handle.lost)
        self._end_handle(handle)
        return lease is not None

    def abandon(self, handle: LeaseHandle) -> None:
        """The lease is over now; a call that is under way ends by itself, and its connection, or its turn, with it."""
        lease = self._out.get(handle.id)
        handle.end()
        if lease is None:
            return
        if not isinstance(handle, TurnHandle):
            self._take_back(lease)
        elif lease.lock.acquire(blocking=False):
            try:
                self._end_handle(handle)
            finally:
                lease.lock.release()

    def _take_back(self, lease: LocalLease) -> None:
        """End a lease now, or with the call that is under way."""
        lease.over = True
        if lease.lock.acquire(blocking=False):
            try:
                self._end(lease)
            finally:
                lease.lock.release()

    def _end(self, lease: LocalLease, empty: bool = False, told: bool = False) -> None:
        with self._changed:
            if self._out.pop(lease.number, None) is None:
                return
            self._checkins += 1
            self._changed.notify_all()
        self._holds.add((time.monotonic() - lease.since) * 1000)
        if lease.state is not None and self._sessions.park(lease.state, empty, told):
            return
        try:
            lease.session.reset()  # says so, when a transaction was left open
        except Unavailable as gone:
            log.debug("pool %s: %s", self.pool, gone)
        lease.session.close()

    def close(self) -> None:
        """End all leases; later use is `PoolNotFound`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            leases = list(self._out.values())
        self._sessions.close()
        for lease in leases:
            self._take_back(lease)

    # -- looking and operating ------------------------------------------------------------------------------

    def ask(self, request: Any) -> Any:
        """Answer what a pool would be asked."""
        if self._closed:
            raise PoolNotFound(f"pool {self.pool!r} was closed: make a new LocalPool", pool=self.pool)
        return _ANSWERS[type(request)](self, request)

    def status(self) -> PoolStatus:
        """The figures; `size` and `max_overflow` as configured, though nothing is kept."""
        size = self.config.size if isinstance(self.config.size, int) else 0
        with self._changed:
            out = len(self._out)
        return PoolStatus(
            name=self.pool,
            state=self._halted or ("degraded" if self._last_failure is not None else "ready"),
            size=size,
            overflow=max(out - size, 0),
            workers=0,
            waiting=self._waiting,
            monitors=out,
            total=out,
            checkouts=self._checkouts,
            checkins=self._checkins,
            timeouts=self._timeouts,
            connect_errors=self._connect_errors,
            wait_ms_p50=self._waits.quantile(0.5),
            wait_ms_p99=self._waits.quantile(0.99),
            hold_ms_p50=self._holds.quantile(0.5),
            since=time.monotonic() - self._since,
            max_overflow=self.config.max_overflow,
        )

    def _leases(self) -> list[LocalLease]:
        with self._changed:
            return list(self._out.values())

    def _workers(self, _: requests.Workers) -> list[WorkerInfo]:
        pid = os.getpid()
        return [WorkerInfo(it.number, pid, "busy", it.calls, 0, it.connected_at, False) for it in self._leases()]

    def _lease_infos(self, _: requests.Leases) -> list[LeaseInfo]:
        now, pid = time.monotonic(), os.getpid()
        return [LeaseInfo(it.number, it.number, pid, HOST, now - it.since) for it in self._leases()]

    def _gather(self, request: requests.GatherStats) -> dict[int, Pickled]:
        found = {}
        for lease in self._leases():
            stats = getattr(lease.session.worker, "stats", None)
            if lease.lock.acquire(timeout=request.timeout):
                try:
                    found[lease.number] = Pickled.of(None if stats is None else stats())
                finally:
                    lease.lock.release()
        return found

    def _clear(self, _: requests.ClearCache) -> None:
        for lease in self._leases():
            lease.stale_cache = hasattr(lease.session.worker, "clear_cache")

    def _halt(self, state: str) -> None:
        with self._changed:
            self._halted = state
            self._changed.notify_all()

    def _drain(self, request: requests.Drain) -> None:
        self._halt("draining")
        with self._changed:
            self._changed.wait_for(lambda: not self._out, request.timeout)
        for lease in self._leases():
            self._take_back(lease)

    def _open_sandbox(self, request: sandboxes.OpenSandbox) -> None:
        self._sandboxes[request.key] = LocalSandbox(self.pool, self._out[request.lease])

    def _close_sandbox(self, request: sandboxes.CloseSandbox) -> None:
        sandbox = self._sandboxes.pop(request.key, None)
        if sandbox is not None:
            sandbox.close()
            self._take_back(sandbox.lease)

    def _allow(self, _: sandboxes.Allow) -> None:
        raise TypeError(f"pool {self.pool!r} is a LocalPool, which is in this process only: nobody else can come in")


_all: weakref.WeakSet[LocalWorkers] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for workers in list(_all):
        workers.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)

_ANSWERS: dict[type, Callable[[LocalWorkers, Any], Any]] = {
    requests.Status: lambda workers, _: workers.status(),
    requests.Workers: LocalWorkers._workers,
    requests.Leases: LocalWorkers._lease_infos,
    requests.Metrics: lambda workers, _: PoolMetrics((), 0, 0, 0.0),
    requests.Sessions: lambda workers, _: workers._sessions.infos(),
    requests.EndSession: lambda workers, request: workers._sessions.end(request.key),
    requests.GatherStats: LocalWorkers._gather,
    requests.ClearCache: LocalWorkers._clear,
    requests.Suspend: lambda workers, _: workers._halt("suspended"),
    requests.Resume: lambda workers, _: workers._halt(""),
    requests.Drain: LocalWorkers._drain,
    requests.Resize: lambda workers, _: None,  # nothing is kept, so there is nothing to resize or to replace
    requests.Recycle: lambda workers, _: None,
    sandboxes.OpenSandbox: LocalWorkers._open_sandbox,
    sandboxes.CloseSandbox: LocalWorkers._close_sandbox,
    sandboxes.Allow: LocalWorkers._allow,
}
