"""What a worker has done under a sticky lease: counted by the worker, read by the pool whenever it wants to know."""

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


class UsageReader(Protocol):
    """Where a worker counts them."""

    def read(self) -> Uses:
        """What is there now. Whoever has the answer to a use finds it counted as ended."""

    def holds(self, count: int) -> list[float]:
        """How many seconds the last `count` ended uses took each; as many of them as are remembered."""


class StickyUsage:
    """A sticky lease with its holder, as far as its uses are counted.

    Args:
        tally: where its worker counts them.

    Attributes:
        first: how many uses have begun in all once the first of this lease has. The grant has counted that one.
        recalled: its worker is to come back.
        orphaned: its holder is gone.
    """

    __slots__ = ("_begun", "_ended", "_seen", "counters", "first", "orphaned", "recalled")

    def __init__(self, counters: UsageReader) -> None:
        self.counters = counters
        uses = counters.read()
        self.first = self._begun = self._seen = uses.begun + 1
        self._ended = uses.ended
        self.recalled = self.orphaned = False

    @property
    def rests(self) -> bool:
        """Whether nobody uses it now; a lease that was just granted is about to be used."""
        uses = self.counters.read()
        return self.first <= uses.begun == uses.ended

    @property
    def runs(self) -> bool:
        """Whether a use is on its way at the worker."""
        uses = self.counters.read()
        return uses.begun > uses.ended

    def since(self, granted: float) -> float:
        """When the use began that is on its way."""
        uses = self.counters.read()
        return uses.since if uses.begun > self.first else granted

    def news(self) -> tuple[int, int]:
        """How many uses have begun, and how many have ended, since this was asked last."""
        uses = self.counters.read()
        begun, ended = max(uses.begun - self._begun, 0), uses.ended - self._ended
        self._begun += begun
        self._ended += ended
        return begun, ended

    def idles(self) -> bool:
        """Whether it rests, and has done so since this was asked last."""
        seen, self._seen = self._seen, self.counters.read().begun
        return self.rests and seen == self._seen
