"""The counters of a pool, and how long callers waited and held. Uses of sticky leases are settled on demand."""

from __future__ import annotations

from actorpool.core.pool.durations import Durations
from actorpool.core.pool.leases import Lease


class Stats:
    """What happened since the pool began.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self.began = now
        self.checkouts = self.checkins = self.timeouts = self.shed = 0
        self.restarts = self.reclaimed = self.connect_errors = 0
        self.waits = Durations()
        self.holds = Durations()

    def settle(self, lease: Lease) -> None:
        """Count the uses of a sticky lease since the last time."""
        sticky = lease.sticky
        assert sticky is not None
        begun, ended, seconds, buckets = sticky.news()
        self.checkouts += begun
        self.checkins += ended
        lease.worker.calls += begun
        if begun:
            self.waits.add_none(begun)
        if ended:
            self.holds.include(sticky.counter.holds(ended), seconds, buckets)
