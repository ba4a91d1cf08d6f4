"""Sandboxes of a `LocalPool`: a lease that the callers of this process use in turn."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from actorpool.client import client_errors
from actorpool.client._blocking import THREADS, drive
from actorpool.client._calls import CallRequest, LeaseHandle
from actorpool.client._driver import Driver
from actorpool.client._local_sessions import LocalState
from actorpool.client._transport import InThreadTransport
from actorpool.client.sandboxes import Gate
from actorpool.errors import CheckoutTimeout, LeaseExpired, PoolFull
from actorpool.messages import Err, Ok
from actorpool.transport import frames
from actorpool.workers.session import WorkerSession


class LocalLease:
    """A lease that is out: its worker, and who may use it now."""

    def __init__(self, number: int, session: WorkerSession) -> None:
        self.number = number
        self.session = session
        self.lock = threading.RLock()  # one call at a time, from whatever thread
        self.since = time.monotonic()
        self.connected_at = time.time()
        self.calls = 0
        self.stale_cache = False
        self.over = False
        self.state: LocalState | None = None  # of whose key it is


class TurnHandle(LeaseHandle):
    """A turn at the sandbox's lease, whose id it has; `number` tells it from other turns."""

    __slots__ = ("number",)

    number: int


class LocalSandbox:
    """A lease, and who has its turn at it."""

    def __init__(self, lease: LocalLease) -> None:
        self.lease = lease
        self.gate = Gate()
        self.turn = 0  # its number; 0 is nobody's
        self.closed = False
        self._numbers = itertools.count(1)

    def enter(self, give_back: Callable[[LeaseHandle], bool]) -> TurnHandle:
        """The turn of who has passed the gate."""
        id = self.lease.number
        handle = TurnHandle(id, id, os.getpid(), give_back, flags=frames.TURN)
        handle.number = self.turn = next(self._numbers)
        return handle

    def leave(self, handle: LeaseHandle) -> None:
        """This turn is over: back to where it began, and the next one may come. Nothing if it was over before."""
        assert isinstance(handle, TurnHandle)
        with self.lease.lock:
            handle.end()
            if self.turn != handle.number:
                return
            self.turn = 0
            if not self.lease.over:
                self.lease.session.reset()
        self.gate.leave()

    def close(self) -> None:
        """Let those who wait come in, to be told that it is over."""
        self.closed = True
        turn, self.turn = self.turn, 0
        if turn:
            self.gate.leave()


class LocalRoute(InThreadTransport):
    """The way to a `LocalPool` for who wants a lease of his own, though calls in his context go to a sandbox.

    Args:
        link: the way of everybody.
        sandbox: as `PoolTransport.sandbox`.
    """

    def __init__(self, link: InThreadTransport, sandbox: str) -> None:
        self.link = link
        self.pool, self.where = link.pool, link.where
        self.sandbox: str = sandbox
        self.inside = link.inside  # type: ignore[method-assign]

    def checkout_now(self, timeout: float, block: bool, stack: str | None, key: Hashable) -> LeaseHandle:
        return self.link.checkout_now(timeout, block, stack, key)

    def perform_now(self, handle: LeaseHandle, work: CallRequest) -> Ok | Err:
        return self.link.perform_now(handle, work)

    def checkin(self, handle: LeaseHandle, driver: Driver = THREADS) -> bool:
        return self.link.checkin(handle)

    def abandon(self, handle: LeaseHandle) -> None:
        self.link.abandon(handle)

    def ask_now(self, request: Any, timeout: float | None = 5.0) -> Any:
        return self.link.ask_now(request, timeout)


class LocalTurnTransport(LocalRoute):
    """The way to a `LocalPool` for callers of a sandbox.

    Args:
        link: the way of everybody.
        sandbox: as `PoolTransport.sandbox`.
        sandboxes: those that are open, by key.
    """

    def __init__(self, link: InThreadTransport, sandbox: str, sandboxes: Mapping[str, LocalSandbox]) -> None:
        super().__init__(link, sandbox)
        self._sandboxes = sandboxes

    def checkout_now(self, timeout: float, block: bool, stack: str | None, key: Hashable) -> LeaseHandle:
        """Wait for a turn; as `PoolTransport.checkout`."""
        sandbox = self._sandboxes.get(self.sandbox)
        if sandbox is None:
            raise self._over()
        if not drive(THREADS.wait_turn(sandbox.gate, timeout if block else 0.0)):
            if not block:
                raise PoolFull(f"pool {self.pool!r}: the sandbox's only worker is in use", pool=self.pool)
            text = f"pool {self.pool!r}: no turn in the sandbox within {timeout:.2f} s: end the lease that is open"
            raise CheckoutTimeout(text, pool=self.pool, waited=timeout)
        if sandbox.closed:
            sandbox.gate.leave()
            raise self._over()
        return sandbox.enter(self.checkin)

    def _over(self) -> LeaseExpired:
        return LeaseExpired(f"pool {self.pool!r}: the sandbox is over, or another process's", pool=self.pool)

    def perform_now(self, handle: LeaseHandle, work: CallRequest) -> Ok | Err:
        """Run work on the sandbox's connection; as `PoolTransport.perform`."""
        sandbox = self._sandboxes.get(self.sandbox) if handle.ours else None
        if sandbox is None:
            handle.end()
            raise client_errors.expired(self.pool, handle)
        try:
            return self.link.perform_now(handle, work)
        finally:
            if not handle.open:
                sandbox.leave(handle)

    def checkin(self, handle: LeaseHandle, driver: Driver = THREADS) -> bool:
        """End a turn; waits for a call of it that another thread has under way."""
        if not handle.ours:
            return False
        sandbox = self._sandboxes.get(self.sandbox)
        if sandbox is not None:
            sandbox.leave(handle)
        handle.end()
        return sandbox is not None

    def abandon(self, handle: LeaseHandle) -> None:
        """The turn is over now; a call that is under way ends by itself, and lets the next one come then."""
        sandbox = self._sandboxes.get(self.sandbox)
        handle.end()
        if sandbox is not None and sandbox.lease.lock.acquire(blocking=False):
            try:
                sandbox.leave(handle)
            finally:
                sandbox.lease.lock.release()
