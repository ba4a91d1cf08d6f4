"""Where a call goes while a sandbox of `actorpool.testing` is open: decided by the context it is made in.

A context (`contextvars`: a thread's own, or a task's with those it has created) is in sandboxes, the innermost one
counts, and within a sandbox it may hold a turn: a lease. All callers of a sandbox share one worker, so a call that is
made in the block of a lease goes along on that lease; for a turn of its own it would wait for itself. Several that do
so, tasks created in that block, go one after the other.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, NamedTuple

from actorpool.client._at_fork import renewed
from actorpool.client._blocking import THREADS
from actorpool.client._calls import Attempt, CallRequest, LeaseHandle
from actorpool.client._driver import Driver
from actorpool.client._transport import PoolTransport
from actorpool.errors import CheckoutTimeout, LeaseExpired, PoolFull
from actorpool.transport import frames


class Gate:
    """Lets one in at a time, first come, first served: threads that block, tasks that await."""

    def __init__(self) -> None:
        # Reentrant: a lease may be dropped by the garbage collector inside any of this.
        self._lock = renewed(self, "_lock", threading.RLock)
        self._waiting: deque[Future[None]] = deque()
        self._taken = False

    def ticket(self) -> Future[None]:
        """A place in the queue: done once it is in."""
        ticket: Future[None] = Future()
        with self._lock:
            if self._taken:
                self._waiting.append(ticket)
            else:
                self._taken = True
                ticket.set_result(None)
        return ticket

    def give_up(self, ticket: Future[None]) -> bool:
        """Wait no longer; True if the ticket's turn has just come all the same."""
        return not ticket.cancel()

    def leave(self) -> None:
        """Let the next one in."""
        with self._lock:
            while self._waiting:
                ticket = self._waiting.popleft()
                if ticket.set_running_or_notify_cancel():
                    ticket.set_result(None)
                    return
            self._taken = False


class Turn:
    """A lease in a sandbox, as it is seen by calls in its block."""

    def __init__(self, transport: PoolTransport, lease: LeaseHandle) -> None:
        self.transport = transport
        self.gate = Gate()
        self._lease = weakref.ref(lease)

    @property
    def lease(self) -> LeaseHandle | None:
        """The lease, while it is open and this process's."""
        lease = self._lease()
        return lease if lease is not None and lease.ours else None


class Place(NamedTuple):
    """What a context is in, innermost last."""

    sandboxes: tuple[PoolTransport, ...] = ()
    turns: tuple[Turn, ...] = ()


NOWHERE = Place()
_place: ContextVar[Place | None] = ContextVar("actorpool_place", default=None)
_shared: dict[str, PoolTransport] = {}
used = False
"""Whether this process has ever been in a sandbox: before that, all calls go to the pool."""


def route(transport: PoolTransport) -> PoolTransport:
    """The way that a call by `transport` takes in this context: mostly that very transport."""
    place = _place.get()
    return transport if place is None and not _shared else _route(transport, place or NOWHERE)


def _route(transport: PoolTransport, place: Place) -> PoolTransport:
    if transport.sandbox is None:
        inside = (box for box in reversed(place.sandboxes) if _same_pool(box, transport))
        shared = (box for box in _shared.values() if _same_pool(box, transport))
        transport = next(inside, None) or next(shared, transport)
    for turn in reversed(place.turns):
        same = turn.transport.sandbox == transport.sandbox and _same_pool(turn.transport, transport)
        if same and turn.lease is not None:
            return NestedTransport(turn)
    return transport


def _same_pool(one: PoolTransport, other: PoolTransport) -> bool:
    return one.pool == other.pool and bool(one.where == other.where)


def entered(transport: PoolTransport, lease: LeaseHandle) -> None:
    """A lease was got in this context: calls in its block go along on it, if it is a turn in a sandbox."""
    global used
    if lease.turn:
        used = True
        place = _place.get() or NOWHERE
        turns = [turn for turn in place.turns if turn.lease is not None]
        _place.set(Place(place.sandboxes, (*turns, Turn(transport, lease))))


def enter(box: PoolTransport, shared: bool) -> None:
    """Calls in this context, or `shared` in the whole process, go to that sandbox from now on.

    Raises:
        RuntimeError: another sandbox of that pool is shared already.
    """
    global used
    if shared and any(_same_pool(other, box) for other in _shared.values()):
        raise RuntimeError(f"pool {box.pool!r}: this process shares a sandbox of it already; leave that one first")
    used = True
    if shared:
        _shared[box.sandbox or ""] = box
    place = _place.get() or NOWHERE
    _place.set(Place((*place.sandboxes, box), place.turns))


def leave(box: PoolTransport) -> None:
    """Calls go where they went before; a context that was created inside keeps to the sandbox, which is over."""
    _shared.pop(box.sandbox or "", None)
    place = _place.get() or NOWHERE
    boxes = tuple(other for other in place.sandboxes if other is not box)
    turns = tuple(turn for turn in place.turns if turn.lease is not None)
    _place.set(Place(boxes, turns) if boxes or turns else None)


class NestedHandle(LeaseHandle):
    """A lease within a lease: what it runs, the outer one runs; its end is only the end of its own turn."""

    __slots__ = ("gate",)

    gate: Gate | None

    def leave(self) -> None:
        """Let the next one have the outer lease."""
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.leave()


class NestedTransport(PoolTransport):
    """The way of calls that go along on an open turn. What they leave open, the end of that turn rolls back.

    Args:
        turn: that turn.
    """

    def __init__(self, turn: Turn) -> None:
        outer = turn.transport
        self.turn = turn
        self.base: PoolTransport = outer.base if isinstance(outer, NestedTransport) else outer
        self.pool, self.where, self.sandbox = outer.pool, outer.where, outer.sandbox

    async def checkout(
        self, driver: Driver, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        """The outer lease, when no other call in its block has it."""
        if await driver.wait_turn(self.turn.gate, timeout if block else 0.0):
            return self._lease()
        held = f"pool {self.pool!r}: the lease of the sandbox in whose block this is called is in use by another task"
        if not block:
            raise PoolFull(f"{held}; wait for it with block=True", pool=self.pool)
        text = f"{held}, and was not free within {timeout:.2f} s: end the lease or transaction that it has open"
        raise CheckoutTimeout(text, pool=self.pool, waited=timeout)

    def _lease(self) -> LeaseHandle:
        """A lease within the outer one, whose turn has come."""
        outer = self.turn.lease
        if outer is None:
            self.turn.gate.leave()
            text = f"pool {self.pool!r}: the lease of the sandbox in whose block this is called has just ended"
            raise LeaseExpired(text, pool=self.pool)
        outer.used = True
        ids = (outer.id, outer.worker_id, outer.worker_pid)
        lease = NestedHandle(*ids, self.checkin, outer.pool_conn, outer.pool_pid, frames.TURN, outer.seal)
        lease.gate = self.turn.gate
        return lease

    async def perform(
        self, driver: Driver, lease: LeaseHandle, work: CallRequest, last: bool = False, attempt: Attempt | None = None
    ) -> Any:
        """Run work on the outer lease, which goes on; cancelled, it is over as well."""
        try:
            return await self.base.perform(driver, lease, work)
        finally:
            if not lease.open:
                self._end(lease)

    def value(self, answer: Any, driver: Driver = THREADS) -> Any:
        return self.base.value(answer, driver)

    def checkin(self, lease: LeaseHandle, driver: Driver = THREADS) -> bool:
        """The end of a nested lease; the outer one goes on."""
        there = lease.ours
        self._end(lease)
        return there

    def _end(self, lease: LeaseHandle) -> None:
        """The nested lease is over, whatever ended it."""
        lease.end()
        if isinstance(lease, NestedHandle):
            lease.leave()

    async def ask(self, driver: Driver, request: Any, timeout: float | None = 5.0) -> Any:
        return await self.base.ask(driver, request, timeout)
