"""Sticky leases: a caller keeps its worker between two calls, for as long as no other caller wants it.

A client that only calls needs the pool for nothing but being told that the worker is free, which it is. So a one-shot
call may be granted a *sticky* lease: the client keeps it and makes its next calls with it, straight to the worker.
The worker counts the uses where the pool can read them at any time, so every figure is what it would be if each use
had been a checkout and a checkin; between two uses the worker counts as idle.

The pool can have the worker back at any time: it *recalls* the lease. Orders go before calls at the worker, so no
use begins after that, and a call that comes too late is sent to the pool. The pool does so when any request finds no
idle worker, for every operation, and when the lease was not used for a while.

Where all sticky leases are with one process, its threads share them among themselves: one that finds none free is told
to use what is local, and waits there for a moment. If that is not enough it asks again, and then it waits here.
"""

from __future__ import annotations

from collections.abc import Hashable

from actorpool.config import PoolConfig
from actorpool.core.effects import Recall
from actorpool.core.pool.leases import Lease
from actorpool.core.pool.queue import Waiter, WaitingQueue
from actorpool.core.pool.sticky_lease import StickyLease, UsageCounter
from actorpool.core.workers import Worker

MAX_UNUSED = 1.0
"""Seconds that a worker may stay with a caller that does not use it."""
FIRST_LOOK = 0.05
"""Seconds after which it is looked whether a recalled worker that was unused has been used once more instead."""
CROWDED = 0.1
"""Seconds without new sticky leases once a request found no idle worker: the next one would have to recall them."""
FIRST_PAUSE = 0.01
"""The same once a thread has waited in vain for what its own process has; twice as long each time in a row."""


def process_of(holder: Hashable) -> Hashable:
    """The process of a holder."""
    return getattr(holder, "caller", holder)


class StickyLeases:
    """Which leases are sticky, and when one may be.

    Args:
        config: the pool's settings.
    """

    def __init__(self, config: PoolConfig) -> None:
        self.by_id: dict[int, Lease] = {}
        self.returning: set[int] = set()  # those of them that were recalled while unused
        self.look_planned = False
        self.interval = min(
            limit for limit in (MAX_UNUSED, config.idle_timeout, config.health_interval) if limit is not None
        )  # seconds between two looks for unused ones: no longer than what is to be done with idle workers takes
        self.return_limit = max(config.checkout_timeout, config.kill_after)  # seconds that a recall may take
        self._each_use_matters = (
            config.strategy != "lifo" or config.max_lease is not None or config.leak_threshold is not None
        )
        self._waiters_count = config.max_waiting is not None or config.queue_target is not None
        self._crowded_until = 0.0
        self._pause = FIRST_PAUSE
        self._last_process: Hashable = None  # the process of the request that found no idle worker last

    @property
    def unused(self) -> int:
        """How many stay with a caller that does not use them now."""
        return sum(lease.unused for lease in self.by_id.values())

    def unused_workers(self) -> set[int]:
        """The ids of their workers."""
        return {lease.worker.id for lease in self.by_id.values() if lease.unused}

    # -- when a lease may be sticky -----------------------------------------------------------------------

    def may_begin(self, worker: Worker, now: float) -> bool:
        """Whether single uses need not be known, and no other caller is likely to want the worker."""
        return now >= self._crowded_until and not self._each_use_matters and not worker.suspect

    def begin(self, lease: Lease, counter: UsageCounter) -> None:
        """Let a lease be sticky."""
        lease.sticky = StickyLease(counter)
        self.by_id[lease.id] = lease

    def end(self, lease: Lease) -> None:
        """A sticky lease is over."""
        del self.by_id[lease.id]
        self.returning.discard(lease.id)

    def crowded(self, now: float) -> None:
        """Let no lease be sticky for a while."""
        self._crowded_until = now + CROWDED

    def wanted(self, waiter: Waiter, now: float) -> None:
        """A request finds no idle worker. Threads of one process are no crowd, unless one has waited locally."""
        process = process_of(waiter.caller)
        if process != self._last_process:
            self.crowded(now)
        elif not waiter.sticky and now >= self._crowded_until:
            if now - self._crowded_until > CROWDED:  # they have shared well for a while
                self._pause = FIRST_PAUSE
            self._crowded_until = now + self._pause
            self._pause = min(2 * self._pause, 2 * CROWDED)
        self._last_process = process

    def all_local(self, waiter: Waiter) -> bool:
        """Whether there are sticky leases, and all that could be recalled for this request are with its process."""
        if not self.by_id or self._waiters_count:
            return False
        process = process_of(waiter.caller)
        return all(
            lease.sticky is not None and not lease.sticky.recalled and process_of(lease.holder) == process
            for lease in self.by_id.values()
        )

    def waits_alone(self, waiter: Waiter, queue: WaitingQueue, now: float) -> bool:
        """Whether only one process waits, and a worker may as well stay with it."""
        if now < self._crowded_until or self._waiters_count:
            return False
        process = process_of(waiter.caller)
        alone = all(other.sticky and process_of(other.caller) == process for other in queue)
        if not alone:
            self.crowded(now)  # not to look at all of them each time
        return alone

    # -- having workers back --------------------------------------------------------------------------------

    def recall(self, lease: Lease) -> Recall | None:
        """The order that has the worker back: at once if it is unused, or after what it runs. None: it has it."""
        sticky = lease.sticky
        if sticky is None or sticky.recalled:
            return None
        sticky.recalled = True
        if sticky.unused:
            self.returning.add(lease.id)
        return Recall(lease.worker.id, lease.id, sticky.first)

    def time_left(self, lease: Lease, since: float, now: float) -> float:
        """Seconds that a worker which was recalled at `since` and is unused may still take to come back."""
        assert lease.sticky is not None
        return max(since, lease.sticky.counter.read().until) + self.return_limit - now

    def check(self, leases: list[Lease]) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        assert set(self.by_id) == {lease.id for lease in leases if lease.sticky is not None}
        recalled = {lease.id for lease in self.by_id.values() if lease.sticky and lease.sticky.recalled}
        assert self.returning <= recalled, "it comes back without a recall"
