"""The counters of a pool, and how long callers waited and held. Uses of sticky leases are settled on demand."""

from __future__ import annotations

from actorpool.core.machine import Quantiles
from actorpool.core.pool.leases import Lease

KEPT = 1000
"""How many waits and holds the quantiles are made of."""


class Stats:
    """What happened since the pool began.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self.began = now
        self.checkouts = self.checkins = self.timeouts = self.shed = 0
        self.restarts = self.reclaimed = self.connect_errors = 0
        self.waits = Quantiles(KEPT)
        self.holds = Quantiles(KEPT)

    def settle(self, lease: Lease) -> None:
        """Count the uses of a sticky lease since the last time."""
        sticky = lease.sticky
        assert sticky is not None
        begun, ended = sticky.news()
        self.checkouts += begun
        self.checkins += ended
        lease.worker.calls += begun
        for _ in range(min(begun, KEPT)):
            self.waits.add(0.0)
        for hold in sticky.counter.holds(ended):
            self.holds.add(hold)
