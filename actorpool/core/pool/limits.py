"""How long things may take under a lease: calls, whole leases, and leases that seem to be forgotten."""

from __future__ import annotations

from typing import Any

from actorpool.core.machine import step
from actorpool.core.pool.ledger import Lease
from actorpool.core.pool.sticky import StickyLeases


class LeaseLimits(StickyLeases):
    """The layer that keeps an eye on leases that are out."""

    @step
    def abandon(self, now: float, id: int) -> None:
        """A call of this lease timed out or was cancelled: its worker is suspect until it was reset."""
        self._overran(id, None, now)

    @step
    def limit(self, now: float, id: int, seconds: float) -> None:
        """Bound what runs under this lease: after `seconds` it is abandoned (for calls nobody else times)."""
        if self.lease(id) is not None:
            self._remind(now + seconds, (self._overran, id, None))

    def _overran(self, id: int, _since: None, now: float) -> None:
        lease = self.lease(id)
        if lease is not None:
            self._emit("call.timeout", metadata={"worker": lease.worker.id, "lease": id})
            if id in self.turns:
                self._take_turn_back(id, now)
            else:
                self._take_back(lease, now, "timeout")

    def _watch_lease(self, lease: Lease, now: float) -> None:
        if self.config.max_lease is not None:
            self._remind(now + self.config.max_lease, (self._overdue, lease.id, None))
        if self.config.leak_threshold is not None:
            self._remind(now + self.config.leak_threshold, (self._leaking, lease.id, None))

    def _remind(self, when: float, what: tuple[Any, int, None]) -> None:
        """Note something about a lease. Most leases end long before."""
        self.lease_timers.tidy(lambda entry: self.lease(entry[1]) is not None)
        self.lease_timers.at(when, what)

    def _overdue(self, id: int, _since: None, now: float) -> None:
        lease = self.leases.get(id)
        if lease is not None:
            self._reclaimed(lease, now, "max_lease")

    def _leaking(self, id: int, _since: None, now: float) -> None:
        lease = self.leases.get(id)
        if lease is not None:
            lease.leaked = True
            metadata = {"lease": id, "holder": str(getattr(lease.holder, "pid", "?")), "stack": lease.stack or ""}
            self._emit("pool.leak", metadata=metadata, age=now - lease.since)
