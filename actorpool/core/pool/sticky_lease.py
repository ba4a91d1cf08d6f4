"""One sticky lease: what its worker has done under it, counted by the worker, read by the pool at any time."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Uses(NamedTuple):
    """How often a worker was used under sticky leases, since its process began.

    Attributes:
        begun: uses that have begun.
        ended: uses that have ended; never more than have begun.
        since: when the last one began, monotonic seconds.
        until: when the last one ended.
    """

    begun: int
    ended: int
    since: float
    until: float


class UsageCounter(Protocol):
    """Where a worker counts them."""

    def read(self) -> Uses:
        """What is there now. A caller that has the answer to a use finds it counted as ended."""

    def holds(self, count: int) -> list[float]:
        """How many seconds the last `count` ended uses took each; as many of them as are remembered."""

    def spent(self) -> list[float]:
        """Seconds of all ended uses together, then how many of them are in each bucket of `durations`."""

    def calls(self) -> int:
        """How many calls have begun, under whatever lease."""


class StickyLease:
    """The part of a sticky lease that counts its uses.

    Args:
        counter: where its worker counts them.

    Attributes:
        first: how many uses have begun in all once the first of this lease has. The grant has counted that one.
        recalled: its worker is to come back.
        orphaned: its holder is gone.
    """

    __slots__ = ("_begun", "_ended", "_seen", "_spent", "counter", "first", "orphaned", "recalled")

    def __init__(self, counter: UsageCounter) -> None:
        self.counter = counter
        uses = counter.read()
        self.first = self._begun = self._seen = uses.begun + 1
        self._ended = uses.ended
        self._spent = counter.spent()
        self.recalled = self.orphaned = False

    @property
    def unused(self) -> bool:
        """Whether it is not used now; a lease that was just granted is about to be used."""
        uses = self.counter.read()
        return self.first <= uses.begun == uses.ended

    @property
    def running(self) -> bool:
        """Whether a use is on its way at the worker."""
        uses = self.counter.read()
        return uses.begun > uses.ended

    def since(self, granted: float) -> float:
        """When the use began that is on its way."""
        uses = self.counter.read()
        return uses.since if uses.begun > self.first else granted

    def news(self) -> tuple[int, int, float, list[int]]:
        """How many uses have begun, how many have ended, their seconds and their buckets, since this was asked last."""
        uses = self.counter.read()
        begun, ended = max(uses.begun - self._begun, 0), uses.ended - self._ended
        self._begun += begun
        self._ended += ended
        if not ended:
            return begun, 0, 0.0, []
        before, self._spent = self._spent, self.counter.spent()
        seconds, *buckets = (now - then for now, then in zip(self._spent, before, strict=True))
        return begun, ended, seconds, [int(number) for number in buckets]

    def idles(self) -> bool:
        """Whether it is unused, and has been since this was asked last."""
        seen, self._seen = self._seen, self.counter.read().begun
        return self.unused and seen == self._seen
