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
from concurrent import futures
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, NamedTuple

from actorpool.client._at_fork import renewed
from actorpool.client._calls import CallRequest, LeaseHandle
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

    def wait(self, ticket: Future[None], timeout: float) -> bool:
        """Block until the ticket's turn; False when that does not come within `timeout` seconds."""
        try:
            futures.wait([ticket], timeout)
        except BaseException:  # interrupted
            if self.give_up(ticket):
                self.leave()
            raise
        return ticket.done() or self.give_up(ticket)

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
    """A lease in a sandbox, as those see it who make calls in its block."""

    def __init__(self, link: PoolTransport, hold: LeaseHandle) -> None:
        self.link = link
        self.gate = Gate()
        self._hold = weakref.ref(hold)

    @property
    def hold(self) -> LeaseHandle | None:
        """The lease, while it is open and this process's."""
        hold = self._hold()
        return hold if hold is not None and hold.ours else None


class Place(NamedTuple):
    """What a context is in, innermost last."""

    sandboxes: tuple[PoolTransport, ...] = ()
    turns: tuple[Turn, ...] = ()


NOWHERE = Place()
_place: ContextVar[Place | None] = ContextVar("actorpool_place", default=None)
_shared: dict[str, PoolTransport] = {}


def route(link: PoolTransport) -> PoolTransport:
    """The way that a call by `link` takes in this context: mostly that very link."""
    place = _place.get()
    return link if place is None and not _shared else _route(link, place or NOWHERE)


def _route(link: PoolTransport, place: Place) -> PoolTransport:
    if link.sandbox is None:
        inside = (box for box in reversed(place.sandboxes) if _same_pool(box, link))
        link = next(inside, None) or next((box for box in _shared.values() if _same_pool(box, link)), link)
    for turn in reversed(place.turns):
        if turn.hold is not None and turn.link.sandbox == link.sandbox and _same_pool(turn.link, link):
            return NestedTransport(turn)
    return link


def _same_pool(one: PoolTransport, other: PoolTransport) -> bool:
    return one.pool == other.pool and bool(one.where == other.where)


def entered(link: PoolTransport, hold: LeaseHandle) -> None:
    """A lease was got in this context: calls in its block go along on it, if it is a turn in a sandbox."""
    if hold.turn:
        place = _place.get() or NOWHERE
        turns = [turn for turn in place.turns if turn.hold is not None]
        _place.set(Place(place.sandboxes, (*turns, Turn(link, hold))))


def enter(box: PoolTransport, shared: bool) -> None:
    """Calls in this context, or `shared` in the whole process, go to that sandbox from now on.

    Raises:
        RuntimeError: another sandbox of that pool is shared already.
    """
    if shared and any(_same_pool(other, box) for other in _shared.values()):
        raise RuntimeError(f"pool {box.pool!r}: this process shares a sandbox of it already; leave that one first")
    if shared:
        _shared[box.sandbox or ""] = box
    place = _place.get() or NOWHERE
    _place.set(Place((*place.sandboxes, box), place.turns))


def leave(box: PoolTransport) -> None:
    """Calls go where they went before; a context that was created inside keeps to the sandbox, which is over."""
    _shared.pop(box.sandbox or "", None)
    place = _place.get() or NOWHERE
    boxes = tuple(other for other in place.sandboxes if other is not box)
    turns = tuple(turn for turn in place.turns if turn.hold is not None)
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
        outer = turn.link
        self.turn = turn
        self.base: PoolTransport = outer.base if isinstance(outer, NestedTransport) else outer
        self.pool, self.where, self.sandbox = outer.pool, outer.where, outer.sandbox

    def checkout(
        self, timeout: float, block: bool = True, stack: str | None = None, key: Hashable = None
    ) -> LeaseHandle:
        """The outer lease, when no other call in its block has it; as `PoolTransport.checkout`."""
        ticket = self.turn.gate.ticket()
        if not self.turn.gate.wait(ticket, timeout if block else 0.0):
            raise self.refusal(timeout, block)
        return self.hold()

    def refusal(self, timeout: float, block: bool) -> BaseException:
        """The error of one who did not get in."""
        held = f"pool {self.pool!r}: the lease of the sandbox in whose block this is called is in use by another task"
        if not block:
            return PoolFull(f"{held}; wait for it with block=True", pool=self.pool)
        text = f"{held}, and was not free within {timeout:.2f} s: end the lease or transaction that it has open"
        return CheckoutTimeout(text, pool=self.pool, waited=timeout)

    def hold(self) -> LeaseHandle:
        """A lease within the outer one, for who got in."""
        outer = self.turn.hold
        if outer is None:
            self.turn.gate.leave()
            text = f"pool {self.pool!r}: the lease of the sandbox in whose block this is called has just ended"
            raise LeaseExpired(text, pool=self.pool)
        outer.used = True
        ids = (outer.lease, outer.worker_id, outer.worker_pid)
        hold = NestedHandle(*ids, self.checkin, outer.home, outer.pool_pid, frames.TURN, outer.seal)
        hold.gate = self.turn.gate
        return hold

    def perform(self, hold: LeaseHandle, work: CallRequest, last: bool = False) -> Any:
        """Run work on the outer lease, which goes on; as `PoolTransport.perform`."""
        try:
            return self.base.perform(hold, work)
        finally:
            if not hold.open:
                self.end(hold)

    def value(self, answer: Any) -> Any:
        """As `PoolTransport.value`."""
        return self.base.value(answer)

    def checkin(self, hold: LeaseHandle) -> bool:
        """The end of a nested lease; the outer one goes on."""
        there = hold.ours
        self.end(hold)
        return there

    def end(self, hold: LeaseHandle) -> None:
        """The nested lease is over, whatever ended it."""
        hold.end()
        if isinstance(hold, NestedHandle):
            hold.leave()

    def ask(self, request: Any, timeout: float | None = 5.0) -> Any:
        """As `PoolTransport.ask`."""
        return self.base.ask(request, timeout)
