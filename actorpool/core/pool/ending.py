"""The ends of leases: given back, taken back, overdue. What the worker does next is decided above this."""

from __future__ import annotations

from typing import Any

from actorpool.config import PoolConfig
from actorpool.core.effects import Ended, Revoke
from actorpool.core.machine import Effects
from actorpool.core.pool.leases import Lease, Leases
from actorpool.core.pool.sandbox import Sandboxes
from actorpool.core.pool.sticky import StickyLeases
from actorpool.core.pool.worker_lifecycle import WorkerLifecycle
from actorpool.core.workers import REVOKING

DIED = "worker died"


class Ending:
    """Mediates between leases and the life of workers where a lease ends that its holder may not have ended.

    Args:
        config: the pool's settings.
        lifecycle: what there is of workers.
        leases, sticky, sandboxes: parts of the pool.
        effects: where to put what is to be done.
    """

    def __init__(
        self,
        config: PoolConfig,
        lifecycle: WorkerLifecycle,
        leases: Leases,
        sticky: StickyLeases,
        sandboxes: Sandboxes,
        effects: Effects,
    ) -> None:
        self.config = config
        self.lifecycle = lifecycle
        self.workers, self.connector, self.sessions = lifecycle.workers, lifecycle.connector, lifecycle.sessions
        self.stats, self.refusals, self.timers = lifecycle.stats, lifecycle.refusals, lifecycle.timers
        self.leases = leases
        self.sticky = sticky
        self.sandboxes = sandboxes
        self.watches = config.max_lease is not None or config.leak_threshold is not None
        self._do, self._emit = effects.do, effects.emit

    def lease(self, id: int) -> Lease | None:
        """The lease of that id, or the turn in a sandbox, if it is out."""
        return self.leases.by_id.get(id) or self.sandboxes.turns.get(id)

    def end(self, lease: Lease, now: float, why: str | None = None) -> None:
        """End the lease; `why` is what a holder that did not end it is told."""
        self.leases.end(lease)
        if lease.sandbox is not None:
            self.sandboxes.close(lease, why == DIED, self.refusals.sandbox_over())
        if lease.sticky is None:
            self.stats.holds.add(now - lease.since)
        else:
            if not lease.unused:
                self.stats.holds.add(now - lease.used_since)
            self.stats.settle(lease)
            self.sticky.end(lease)
        if lease.trial:
            self.connector.circuit.trial_ends(now)
        if why is not None:
            self._do(Ended(lease.id, lease.holder, lease.ref, lease.worker.id, why == DIED, why))

    def take_back(self, lease: Lease, now: float, why: str) -> None:
        """End a lease that its holder did not end: interrupt the worker, and have it reset before it serves again."""
        if lease.keyed:
            self.sessions.end_unused(lease.worker, told=False)
        self.end(lease, now, why)
        self.workers.move(lease.worker, REVOKING)
        session = self.sessions.of_worker(lease.worker) if lease.keyed else None
        if session is not None and session.ending is not None:
            self.sessions.end(lease.worker, session.ending)
            session = None
        self._do(Revoke(lease.worker.id, lease.id, keep=session is not None))
        self.lifecycle.await_reset(lease.worker, lease.id, now)

    def reclaim(self, lease: Lease, now: float, why: str) -> None:
        self.stats.reclaimed += 1
        metadata = {"worker": lease.worker.id, "lease": lease.id, "why": why}
        self._emit("pool.reclaimed", metadata=metadata, age=now - lease.used_since)
        if why == "caller died" and self.config.on_caller_death == "restart":
            self.end(lease, now, why)
            self.lifecycle.stop(lease.worker, now, interrupt=True)
            self.lifecycle.replace(lease.worker, now)
        else:
            self.take_back(lease, now, why)

    # -- turns in sandboxes --------------------------------------------------------------------------------

    def revoke_turn(self, id: int, now: float) -> None:
        if self.sandboxes.revoke_turn(id):
            self.timers.at(now + self.config.kill_after, (self._turn_unanswered, id, None))

    def _turn_unanswered(self, id: int, _since: None, now: float) -> None:
        turn = self.sandboxes.turns.get(id)
        if turn is not None:
            self.end(self.sandboxes.by_key[turn.sandbox or ""].lease, now, DIED)
            self.lifecycle.kill(turn.worker, now)

    # -- how long a lease may take -------------------------------------------------------------------------

    def watch(self, lease: Lease, now: float) -> None:
        """Set the timers of a lease."""
        if self.config.max_lease is not None:
            self._remind(now + self.config.max_lease, (self._overdue, lease.id, None))
        if self.config.leak_threshold is not None:
            self._remind(now + self.config.leak_threshold, (self._leaking, lease.id, None))

    def limit(self, now: float, id: int, seconds: float) -> None:
        """Bound what runs under this lease: after `seconds` it is abandoned (for calls that no client times)."""
        if self.lease(id) is not None:
            self._remind(now + seconds, (self.overran, id, None))

    def overran(self, id: int, _since: None, now: float) -> None:
        lease = self.lease(id)
        if lease is not None:
            self._emit("call.timeout", metadata={"worker": lease.worker.id, "lease": id})
            if id in self.sandboxes.turns:
                self.revoke_turn(id, now)
            else:
                self.take_back(lease, now, "timeout")

    def _remind(self, when: float, what: tuple[Any, int, None]) -> None:
        """Set a timer about a lease. Most leases end long before."""
        self.leases.timers.tidy(lambda entry: self.lease(entry[1]) is not None)
        self.leases.timers.at(when, what)

    def _overdue(self, id: int, _since: None, now: float) -> None:
        lease = self.leases.by_id.get(id)
        if lease is not None:
            self.reclaim(lease, now, "max_lease")

    def _leaking(self, id: int, _since: None, now: float) -> None:
        lease = self.leases.by_id.get(id)
        if lease is not None:
            lease.leaked = True
            metadata = {"lease": id, "holder": str(getattr(lease.holder, "pid", "?")), "stack": lease.stack or ""}
            self._emit("pool.leak", metadata=metadata, age=now - lease.since)
