"""The requests that wait for a worker: first come, first served, with deadlines and CoDel.

Every operation is O(1) amortised. The order is an `OrderedDict` because taking the first key of a plain dict scans the
holes that earlier removals left. Deadlines are a heap in which entries of waiters that have left remain until they
come up or outnumber the others; with equal timeouts a push onto it compares once.

CoDel (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012) in the form that Elixir's DBConnection
gave it: a queue that absorbs a burst is good, a queue that never empties is not, and the *minimum* wait over an
interval tells them apart. After an interval whose minimum wait was above `target` the queue is slow, and while it is,
waiters older than twice the target are shed from the front. So each waiter is served soon enough to matter, or refused.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

_NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Waiter:
    """A checkout that waits.

    Args:
        ref: names the request; unique among those waiting.
        caller: the asker; all its waiters are removed when it dies.
        since: when it began to wait, seconds.
        deadline: when it gives up, seconds (infinity: never).
        block: whether it may wait at all; kept for the case that it is put back.
        stack: where it was asked for, when leaks are traced.
        sticky: its lease may be sticky.
        key: it waits for the worker that holds the state of this key, if one does.
        nonblocking: it waits for nothing but a worker that is idle and on its way back.
    """

    ref: Any
    caller: Hashable
    since: float
    deadline: float
    block: bool = True
    stack: Any = None
    sticky: bool = False
    key: Hashable = None
    nonblocking: bool = False


Shed = list[tuple[Waiter, float]]


class WaitingQueue:
    """Waiters in order of arrival.

    Args:
        target: CoDel's longest acceptable minimum wait in seconds; None switches shedding off.
        interval: seconds over which the minimum is taken.

    Attributes:
        waiters: those who wait, by their refs, in order; changed by this class alone.
        keyed: how many of them wait for a key.
    """

    def __init__(self, target: float | None = None, interval: float = 1.0) -> None:
        self.waiters: OrderedDict[Hashable, Waiter] = OrderedDict()
        self._callers: dict[Hashable, dict[Hashable, Waiter]] = {}
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._numbers = 0
        self.keyed = 0
        self._late: list[Waiter] = []
        self._target = target
        self._interval = interval
        self._ends = 0.0
        self._least = _NEVER  # shortest wait of those served in this interval
        self._seen = 0.0  # the minimum of the interval before; above target means slow
        self._shedding = target is not None

    def __len__(self) -> int:
        return len(self.waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self.waiters.values())

    def __contains__(self, ref: Hashable) -> bool:
        return ref in self.waiters

    def knows(self, caller: Hashable) -> bool:
        """Whether that caller waits."""
        return caller in self._callers

    def __repr__(self) -> str:
        pace = f", slow (minimum wait {self._seen:.3f} s)" if self.slow else ""
        return f"<WaitingQueue of {len(self)}{pace}>"

    @property
    def slow(self) -> bool:
        """Whether CoDel sheds at present: the last interval's minimum wait was above target."""
        return self._target is not None and self._seen > self._target

    # -- coming and going ---------------------------------------------------------------------------------

    def push(self, waiter: Waiter) -> None:
        """Let `waiter` wait behind all others.

        Raises:
            ValueError: a waiter of the same `ref` is waiting.
        """
        if waiter.ref in self.waiters:
            raise ValueError(f"{waiter.ref!r} is already waiting")
        if not self.waiters and waiter.since >= self._ends:
            self._begin(waiter.since, seen=0.0)  # an interval that ended with an empty queue was not slow
        self._add(waiter)

    def front(self, waiter: Waiter) -> None:
        """Put a waiter back first: what it was granted could not be delivered. It keeps its `since` and deadline."""
        self._add(waiter)
        self.waiters.move_to_end(waiter.ref, last=False)

    def remove(self, ref: Hashable) -> Waiter | None:
        """Take out the waiter of that `ref`; None when it does not wait (any more)."""
        waiter = self.waiters.get(ref)
        if waiter is not None:
            self._drop(waiter)
        return waiter

    def of_caller(self, caller: Hashable) -> list[Waiter]:
        """Take out all waiters of a caller, in order of arrival."""
        gone = list(self._callers.get(caller, {}).values())
        for waiter in gone:
            self._drop(waiter)
        return gone

    def clear(self) -> list[Waiter]:
        """Remove all waiters: those with a passed deadline first, then in order of arrival."""
        gone = self._late + list(self.waiters.values())
        self._late = []
        self.waiters.clear()
        self._callers.clear()
        self._deadlines.clear()
        self.keyed = 0
        return gone

    # -- being served -------------------------------------------------------------------------------------

    def pop(
        self, now: float, choose: Callable[[Iterator[Waiter]], Waiter | None] | None = None
    ) -> tuple[Waiter | None, Shed]:
        """Remove the waiter to serve now that a worker is free, and those that are shed before it.

        To be called for every worker that becomes free (or `unneeded`): that is how CoDel learns that the pool has time
        to spare. A waiter whose deadline has passed is not served; `expired` returns it.

        Args:
            now: monotonic seconds.
            choose: picks one of the waiters, in their order (None: the first); those it passes over keep waiting.

        Returns:
            The waiter to serve, or None, and the shed ones with the minimum wait in seconds that was measured.
        """
        if not self.waiters:
            self.unneeded()
            return None, []
        if self._deadlines and self._deadlines[0][0] <= now:
            self._late += self._due(now)
        shed = self._shed_old(now) if self._shedding and self.waiters else []
        if not self.waiters:
            return None, shed
        waiter = self._first() if choose is None else choose(iter(self))
        if waiter is None:
            return None, shed
        self._drop(waiter)
        self._least = min(self._least, now - waiter.since)
        return waiter, shed

    def unneeded(self) -> None:
        """A worker became free while no caller waits: that is no wait at all for CoDel."""
        self._least = self._seen = 0.0

    def shed(self, now: float) -> Shed:
        """CoDel by timer, for a pool in which nothing is checked in: end the interval if it is over, shed if slow."""
        if not self._shedding or not self.waiters or now < self._ends:
            return []
        return self._shed_old(now)

    def expired(self, now: float) -> list[Waiter]:
        """Remove all waiters with a passed deadline, earliest deadline first."""
        late = self._late + self._due(now)
        self._late = []
        return late

    def next_deadline(self) -> float | None:
        """When `expired` or `shed` has to be called next; None when nothing is due, however long one waits."""
        if self._late:
            return self._late[0].deadline
        heap = self._deadlines
        while heap and not self._waits(heap[0][2]):
            heapq.heappop(heap)
        first = heap[0][0] if heap else _NEVER
        if self._shedding and self.waiters:
            first = min(first, self._ends)
        return None if first == _NEVER else first

    def oldest(self, now: float) -> float:
        """How long the first in the queue has waited, in seconds; 0.0 when the queue is empty."""
        return now - next(iter(self.waiters.values())).since if self.waiters else 0.0

    def wanting(self, is_busy: Callable[[Hashable], bool]) -> int:
        """How many wait for any worker: all but those that wait for a key which is in use."""
        if not self.keyed:
            return len(self.waiters)
        return sum(not is_busy(waiter.key) for waiter in self.waiters.values())

    def suspend(self) -> None:
        """Stop shedding: a suspended pool serves no request, so waits say nothing about its load."""
        self._shedding = False

    def resume(self, now: float) -> None:
        """End a suspension; CoDel starts with a fresh interval."""
        self._shedding = self._target is not None
        self._begin(now, seen=0.0)

    # -- inside -------------------------------------------------------------------------------------------

    def _add(self, waiter: Waiter) -> None:
        self.waiters[waiter.ref] = waiter
        self.keyed += waiter.key is not None
        self._callers.setdefault(waiter.caller, {})[waiter.ref] = waiter
        if waiter.deadline == _NEVER:
            return
        if len(self._deadlines) > 2 * len(self.waiters) + 64:
            self._compact()
        self._numbers += 1
        heapq.heappush(self._deadlines, (waiter.deadline, self._numbers, waiter))

    def _compact(self) -> None:
        """Forget the deadlines of waiters that left; at most once for as many pushes as there are entries."""
        living = {id(entry[2]): entry for entry in self._deadlines if self._waits(entry[2])}
        self._deadlines = list(living.values())
        heapq.heapify(self._deadlines)

    def _first(self) -> Waiter:
        return next(iter(self.waiters.values()))

    def _drop(self, waiter: Waiter) -> None:
        del self.waiters[waiter.ref]
        self.keyed -= waiter.key is not None
        refs = self._callers[waiter.caller]
        del refs[waiter.ref]
        if not refs:
            del self._callers[waiter.caller]

    def _waits(self, waiter: Waiter) -> bool:
        return self.waiters.get(waiter.ref) is waiter

    def _due(self, now: float) -> list[Waiter]:
        due = []
        while self._deadlines and self._deadlines[0][0] <= now:
            waiter = heapq.heappop(self._deadlines)[2]
            if self._waits(waiter):
                self._drop(waiter)
                due.append(waiter)
        return due

    def _begin(self, now: float, seen: float) -> None:
        self._seen = seen
        self._least = _NEVER
        self._ends = now + self._interval

    def _shed_old(self, now: float) -> Shed:
        """End the interval if it is over; while slow, take out all that waited longer than twice the target."""
        assert self._target is not None
        if now >= self._ends:
            # No waiter was served in the whole interval: the wait of the first in the queue is then the minimum.
            self._begin(now, seen=self.oldest(now) if self._least == _NEVER else self._least)
        shed: Shed = []
        if self._seen > self._target:
            while self.oldest(now) > 2 * self._target:
                waiter = self._first()
                self._drop(waiter)
                shed.append((waiter, self._seen))
        return shed
