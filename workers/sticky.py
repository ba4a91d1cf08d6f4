"""A sticky lease as its worker sees it: what is counted of it, which connections use it, and how it ends.

A use lasts until its answer has left for its caller, however long that takes: a worker that is called away before that
would take the answer along. When the lease ends, the connections that used it are closed. So the kernel tells a caller
that comes too late, at once and whatever this worker does by then: its call was not read, and another may take it.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from actorpool._protocol import reports
from actorpool.transport.server import ServerConn
from actorpool.transport.usage_counters import UsageCounters
from actorpool.workers.worker_session import Unavailable, WorkerSession

LONG = 65536
"""Bytes; an answer up to this leaves in one piece, so its use may be counted as ended before it is sent."""


class Host(Protocol):
    """What a part of a worker's actor needs of it. It is given the actor, and does not know its class."""

    session: WorkerSession | None

    @property
    def id(self) -> int:
        """The worker's id in its pool."""

    def tell(self, message: Any) -> None:
        """Send a report to the pool."""

    def tell_lost(self, error: Exception) -> None:
        """Report a lost connection to the pool."""


class StickyUse:
    """The sticky leases of one worker, one after the other. Runs in the worker's process.

    Args:
        actor: the worker's actor.
        slot: where uses are counted.
    """

    def __init__(self, actor: Host, slot: UsageCounters) -> None:
        self._actor = actor
        self._slot = slot
        self._lease = 0
        self._peers: set[ServerConn] = set()
        self._leaving = 0  # the lease that ends with the use that is on its way
        self._using: ServerConn | None = None  # the connection that is still to get the answer of a use
        self._counted = True  # the use that is on its way is counted as ended

    def begin(self, peer: ServerConn, lease: int, now: float) -> None:
        """A use begins."""
        if lease != self._lease:
            self._lease, self._peers = lease, set()
        self._peers.add(peer)
        self._using, self._counted = peer, False
        self._slot.begin(now)

    def answers(self, size: int) -> None:
        """The answer, of so many bytes, is about to be sent."""
        if size <= LONG:
            self._count()

    def answered(self, peer: ServerConn) -> None:
        """The answer was sent, or a part of it."""
        if peer.unsent:
            peer.when_sent = self._over
        else:
            self._over()

    def gone(self, peer: ServerConn) -> None:
        """A caller has closed its end, and wants no answer any more."""
        self._peers.discard(peer)
        if peer is self._using:
            self._over()

    def recall(self, session: WorkerSession, lease: int, first: int) -> None:
        """End the lease, after a use that has begun; the first use of a lease that was just granted counts as begun."""
        if self._slot.begun < first or self._using is not None:
            self._leaving = lease
        else:
            self._leave(session, lease)

    def revoked(self, lease: int) -> None:
        """The lease was taken back."""
        self._using = None
        self._count()
        self._slot.measure()
        self._hang_up(lease)

    def _count(self) -> None:
        if not self._counted:
            self._counted = True
            self._slot.end(time.monotonic())

    def _over(self) -> None:
        """A use is over: be pristine for the next, or leave."""
        session = self._actor.session
        self._using = None
        self._count()
        self._slot.measure()
        if session is None:
            return
        try:
            if self._leaving == self._lease:
                self._leave(session, self._lease)
            else:
                session.pause()
        except Unavailable as gone:
            self._actor.tell_lost(gone.error)

    def _leave(self, session: WorkerSession, lease: int) -> None:
        self._hang_up(lease)
        try:
            session.end(lease)
        finally:
            self._actor.tell(reports.Recalled(self._actor.id, lease))

    def _hang_up(self, lease: int) -> None:
        if lease == self._lease:
            for peer in self._peers:
                if peer.unsent:  # the caller gets its answer even if its lease was taken back
                    peer.when_sent = peer.close
                else:
                    peer.close()
            self._peers = set()
