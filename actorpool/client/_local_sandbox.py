"""Sandboxes of a `LocalPool`: a lease that the callers of this process use in turn."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable

from actorpool.client._calls import LeaseHandle
from actorpool.client._driver import Driver
from actorpool.client._local_sessions import LocalState
from actorpool.client.sandboxes import Gate
from actorpool.errors import CheckoutTimeout, LeaseExpired, PoolFull
from actorpool.transport import frames
from actorpool.workers.worker_session import WorkerSession


class LocalLease:
    """A lease that is out, and its worker."""

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

    __slots__ = ("number", "sandbox")

    number: int
    sandbox: LocalSandbox


class LocalSandbox:
    """A lease, and the turn at it."""

    def __init__(self, pool: str, lease: LocalLease) -> None:
        self.lease = lease
        self.gate = Gate()
        self.closed = False
        self._pool = pool
        self._turn = 0  # its number; 0: there is none
        self._numbers = itertools.count(1)

    async def enter(
        self, driver: Driver, timeout: float, block: bool, give_back: Callable[[LeaseHandle], bool]
    ) -> TurnHandle:
        """Wait for a turn; as `PoolTransport.checkout`."""
        if not await driver.wait_turn(self.gate, timeout if block else 0.0):
            if not block:
                raise PoolFull(f"pool {self._pool!r}: the sandbox's only worker is in use", pool=self._pool)
            text = f"pool {self._pool!r}: no turn in the sandbox within {timeout:.2f} s: end the lease that is open"
            raise CheckoutTimeout(text, pool=self._pool, waited=timeout)
        if self.closed:
            self.gate.leave()
            raise over(self._pool)
        id = self.lease.number
        handle = TurnHandle(id, id, os.getpid(), give_back, flags=frames.TURN)
        handle.sandbox = self
        handle.number = self._turn = next(self._numbers)
        return handle

    def leave(self, handle: TurnHandle) -> None:
        """This turn is over: back to where it began, and the next one may come. Nothing if it was over before."""
        with self.lease.lock:
            handle.end()
            if self._turn != handle.number:
                return
            self._turn = 0
            if not self.lease.over:
                self.lease.session.reset()
        self.gate.leave()

    def close(self) -> None:
        """Let the waiters come in, to be told that it is over."""
        self.closed = True
        turn, self._turn = self._turn, 0
        if turn:
            self.gate.leave()


def over(pool: str) -> LeaseExpired:
    """The error of a sandbox that is no more, or never was in this process."""
    return LeaseExpired(f"pool {pool!r}: the sandbox is over, or another process's", pool=pool)
