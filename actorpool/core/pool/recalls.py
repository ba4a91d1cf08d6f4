"""Sticky leases: begun where no other caller is likely to want the worker, recalled when one does."""

from __future__ import annotations

from collections.abc import Callable

from actorpool.core.machine import Effects
from actorpool.core.pool.ending import Ending
from actorpool.core.pool.leases import Lease
from actorpool.core.pool.sticky import FIRST_LOOK
from actorpool.core.pool.sticky_lease import UsageCounter
from actorpool.core.pool.waiting import Waiting


class Recalls:
    """Mediates between sticky leases and those who wait for their workers.

    Args:
        ending: ends leases.
        waiting: knows of waiters.
        counter: where a worker counts its uses, by its id; None where no lease of it can be sticky.
        effects: where to put what is to be done.
    """

    def __init__(
        self,
        ending: Ending,
        waiting: Waiting,
        counter: Callable[[int], UsageCounter | None],
        effects: Effects,
    ) -> None:
        self.ending = ending
        self.waiting = waiting
        self.lifecycle, self.sticky, self.sandboxes = ending.lifecycle, ending.sticky, ending.sandboxes
        self.timers = ending.timers
        self.observed = False  # a listener wants an event for each checkout and checkin
        self._counter = counter
        self._do = effects.do

    def begin(self, lease: Lease, now: float) -> bool:
        """Let a lease be sticky if it may; whether it is."""
        if (
            self.observed
            or lease.trial
            or self.sandboxes.guests
            or self.lifecycle.recycling.to_recycle
            or self.lifecycle.surplus > 0
            or not self.sticky.may_begin(lease.worker, now)
            or (counter := self._counter(lease.worker.id)) is None
        ):
            return False
        self.sticky.begin(lease, counter)
        self._plan_look(now)
        return True

    def recall(self, lease: Lease, now: float) -> None:
        """Have the worker back: at once if it is unused, or after what it runs."""
        recall = self.sticky.recall(lease)
        if recall is not None:
            self.timers.at(now + FIRST_LOOK, (self.look_after, lease.id, now))
            self._do(recall)

    def recall_for_waiter(self, now: float) -> None:
        """A request found no idle worker."""
        for lease in self.sticky.by_id.values():
            self.recall(lease, now)

    def recall_all(self, now: float) -> None:
        """Have every worker where it can be seen, and let no lease be sticky for a while."""
        self.sticky.crowded(now)
        self.recall_for_waiter(now)

    def look_after(self, id: int, since: float, now: float) -> None:
        """Look after a recalled worker, less and less often: it is in use, or it tidies up, or it hangs."""
        lease = self.sticky.by_id.get(id)
        if lease is None or lease.sticky is None:
            return
        wait = min(max(now - since, FIRST_LOOK), self.sticky.return_limit)
        if not lease.unused:
            if lease.sticky.orphaned:
                self.ending.reclaim(lease, now, "caller died")
                return
            if id in self.sticky.returning:
                self.sticky.returning.discard(id)
                self.lifecycle.refill(now)
                self.waiting.review_nonblocking(now)
        else:
            left = self.sticky.time_left(lease, since, now)
            if left < 1e-3:
                self.ending.take_back(lease, now, "recalled")
                return
            wait = min(wait, left)
        self.timers.at(now + wait, (self.look_after, id, since))

    def _plan_look(self, now: float) -> None:
        if not self.sticky.look_planned:
            self.sticky.look_planned = True
            self.timers.at(now + self.sticky.interval, (self._recall_unused, None, None))

    def _recall_unused(self, _key: None, _since: None, now: float) -> None:
        """Recall what was not used since the last look."""
        for lease in list(self.sticky.by_id.values()):
            if lease.sticky is not None and lease.sticky.idles():
                self.recall(lease, now)
        self.sticky.look_planned = False
        if self.sticky.by_id:
            self._plan_look(now)
