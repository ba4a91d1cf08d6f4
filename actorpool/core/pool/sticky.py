"""Sticky leases: between two calls a worker stays with its caller, for as long as nobody else wants it.

A caller who only calls needs the pool for nothing but being told that the worker is free, which it is. So a one-shot
call may be granted a lease that *stands*: the caller keeps it and makes his next calls with it, straight to the worker.
The worker counts the uses where the pool can read them at any time, so every figure is what it would be if each use
had been a checkout and a checkin; between two uses the worker counts as idle.

The pool can have the worker back whenever it likes: it *recalls* the lease. Orders go before calls at the worker, so no
use begins after that, and a caller who comes too late is sent to the pool. It does so when anybody finds no idle
worker, for every operation, and when the caller has not used it for a while.

Where all workers that stay are with one process, its threads share them among themselves: one that finds none free is
sent home, to wait there for a moment. If that is not enough it asks again, and then it waits here like everybody.
"""

from __future__ import annotations

from collections.abc import Hashable

from actorpool.core.effects import Recall, UseLocal
from actorpool.core.machine import step
from actorpool.core.pool.ledger import Lease
from actorpool.core.pool.queue import Waiter
from actorpool.core.pool.sandbox import Sandboxes, process_of
from actorpool.core.pool.usage import StickyUsage
from actorpool.core.pool.workers import Worker

REST = 1.0
"""Seconds that a worker may stay with a caller who does not use it."""
RETURN = 0.05
"""Seconds after which it is looked whether a recalled worker that nobody used has been used once more instead."""
CROWDED = 0.1
"""Seconds without new sticky leases once somebody found no idle worker: the next one would have to recall them."""

SHY = 0.01
"""The same once a thread has waited in vain for what its own process has; twice as long each time in a row."""


class StickyLeases(Sandboxes):
    """The layer that knows which leases stay with their callers."""

    _crowded = 0.0
    """Until then no lease is to stand."""
    _shy = SHY
    """How long the next pause of that kind is."""
    _wanting: Hashable = None
    """The process of who found no idle worker last."""
    _looks = False
    """Whether a look at them is on the agenda."""

    @property
    def _rest(self) -> float:
        """How long a worker may rest with a caller: no longer than what is to be done with idle ones takes."""
        limits = (REST, self.config.idle_timeout, self.config.health_interval)
        return min(limit for limit in limits if limit is not None)

    def _may_be_sticky(self, worker: Worker, now: float) -> bool:
        """Whether nothing has to be known of each single use, and nobody else is likely to want the worker."""
        config = self.config
        return not (
            now < self._crowded
            or self.observed
            or self.guests
            or self._to_recycle
            or self._surplus > 0
            or worker.suspect
            or config.strategy != "lifo"
            or config.max_lease is not None
            or config.leak_threshold is not None
        )

    def _stand(self, lease: Lease, now: float) -> bool:
        """Let a lease stand if it may; whether it does."""
        counters = self.counters(lease.worker.id) if self._may_be_sticky(lease.worker, now) else None
        if counters is None or lease.trial:
            return False
        lease.standing = StickyUsage(counters)
        self.standing[lease.id] = lease
        self._plan_look(now)
        return True

    def _recall(self, lease: Lease, now: float) -> None:
        """Have the worker back: at once if nobody uses it, or after what it runs."""
        standing = lease.standing
        if standing is None or standing.recalled:
            return
        standing.recalled = True
        if standing.rests:
            self.returning.add(lease.id)
        self.timers.at(now + RETURN, (self._still_out, lease.id, now))
        self._do(Recall(lease.worker.id, lease.id, standing.first))

    def _orphan(self, lease: Lease, now: float) -> None:
        """Its caller is gone, and was not using it: no reclaim, unless its last call was on its way to the worker."""
        assert lease.standing is not None
        lease.standing.orphaned = True
        self._recall(lease, now)
        self.timers.at(now + RETURN, (self._still_out, lease.id, now))

    @property
    def _return_limit(self) -> float:
        """Seconds that an unused worker may take to come back: as long as a caller waits, or an order may take."""
        return max(self.config.checkout_timeout, self.config.kill_after)

    def _still_out(self, id: int, since: float, now: float) -> None:
        """Look after a recalled worker, less and less often: it is in use, or it tidies up, or it hangs."""
        lease = self.standing.get(id)
        if lease is None or lease.standing is None:
            return
        wait = max(now - since, RETURN)
        if not lease.rests:
            if lease.standing.orphaned:
                self._reclaimed(lease, now, "caller died")
                return
            if id in self.returning:
                self.returning.discard(id)
                self._fill(now)
                self._judge_nonblocking(now)
        else:
            left = max(since, lease.standing.counters.read().until) + self._return_limit - now
            if left < 1e-3:
                self._take_back(lease, now, "recalled")
                return
            wait = min(wait, left)
        self.timers.at(now + min(wait, self._return_limit), (self._still_out, id, since))

    def _recall_all(self, now: float) -> None:
        """Have every worker where it can be seen."""
        self._crowded = now + CROWDED
        for lease in self.standing.values():
            self._recall(lease, now)

    # -- somebody finds no idle worker ------------------------------------------------------------------------

    def _want(self, waiter: Waiter, now: float) -> None:
        """Have all back that stay with callers. Threads of one process are no crowd, unless one has waited at home."""
        process = process_of(waiter.caller)
        if process != self._wanting:
            self._crowded = now + CROWDED
        elif not waiter.sticky and now >= self._crowded:
            if now - self._crowded > CROWDED:  # they have shared well for a while
                self._shy = SHY
            self._crowded = now + self._shy
            self._shy = min(2 * self._shy, 2 * CROWDED)
        self._wanting = process
        for lease in self.standing.values():
            self._recall(lease, now)

    @property
    def _counts_waiters(self) -> bool:
        """Whether settings depend on how many wait, or how long: then everybody waits here."""
        return self.config.max_waiting is not None or self.config.queue_target is not None

    def _uses_local(self, waiter: Waiter) -> bool:
        """Whether all that could be recalled for this caller stays with its own process."""
        if not self.standing or not self.serving or len(self.queue) or self._counts_waiters:
            return False
        process = process_of(waiter.caller)
        return all(
            lease.standing is not None and not lease.standing.recalled and process_of(lease.holder) == process
            for lease in self.standing.values()
        )

    def _waits_alone(self, waiter: Waiter, now: float) -> bool:
        """Whether only one process waits, and a worker may as well stay with it."""
        if now < self._crowded or self._counts_waiters:
            return False
        process = process_of(waiter.caller)
        alone = all(other.sticky and process_of(other.caller) == process for other in self.queue)
        if not alone:
            self._crowded = now + CROWDED  # not to look at everybody each time
        return alone

    def _use_local(self, stays: bool, now: float) -> None:
        """The process that waits has a worker now, which stays with it: whoever else of it waits is to share that."""
        if not stays:
            self._crowded = now + CROWDED
            return
        for waiter in list(self.queue):
            self.queue.remove(waiter.ref)
            self._do(UseLocal(waiter.ref[1], waiter.caller))

    @step
    def observe(self, now: float, observed: bool) -> None:
        """Somebody listens (or nobody does any more) to each checkout and checkin."""
        self.observed = observed
        if observed:
            self._recall_all(now)

    @step
    def recalled(self, now: float, id: int, lease: int) -> None:
        """The worker is back from its caller. A lease that has ended meanwhile is nothing."""
        stood = self.standing.get(lease)
        if stood is None or stood.standing is None or stood.worker.id != id:
            return
        self._end_lease(lease, now)
        self._available(stood.worker, now, stood.standing.counters.read().until)
        self._check_drained()

    def _look_after_standing(self, _key: None, _since: None, now: float) -> None:
        """Recall what was not used since the last look."""
        for lease in list(self.standing.values()):
            if lease.standing is not None and lease.standing.idles():
                self._recall(lease, now)
        self._looks = False
        if self.standing:
            self._plan_look(now)

    def _plan_look(self, now: float) -> None:
        if not self._looks:
            self._looks = True
            self.timers.at(now + self._rest, (self._look_after_standing, None, None))

    def _dissolve(self, lease: Lease) -> None:
        """A sticky lease is over: count what was not counted yet."""
        self._settle(lease)
        del self.standing[lease.id]
        self.returning.discard(lease.id)

    # -- what the layers above decide ---------------------------------------------------------------------------

    def _end_lease(self, id: int, now: float, why: str | None = None) -> None:
        raise NotImplementedError

    def _reclaimed(self, lease: Lease, now: float, why: str) -> None:
        raise NotImplementedError

    def _judge_nonblocking(self, now: float) -> None:
        raise NotImplementedError
