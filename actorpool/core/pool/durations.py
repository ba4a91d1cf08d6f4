"""How long waits and holds took: quantiles of the last ones, a histogram of all, the slowest since the last look."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from actorpool.core.machine import Quantiles

BOUNDS = (
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds of the buckets of a histogram, each included; one more bucket has what is longer."""
BUCKETS = len(BOUNDS) + 1
KEPT = 1000
"""How many of the last are kept."""


def bucket_of(seconds: float) -> int:
    """The number of the bucket that so many seconds belong to."""
    return bisect_left(BOUNDS, seconds)


class Durations:
    """How long one kind of thing took, each time.

    Attributes:
        count: how many there were.
        sum: their seconds in all.
        buckets: how many of them there are in each bucket alone.
        slowest: the longest one since `take_slowest`, as far as it was told by `add`.
    """

    __slots__ = ("_keep", "_last", "buckets", "count", "slowest", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.slowest = 0.0
        self.buckets = [0] * BUCKETS
        self._last = Quantiles(KEPT)
        self._keep = self._last.add

    def add(self, seconds: float) -> None:
        """One that took so many seconds."""
        self.count += 1
        self.sum += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        if seconds > self.slowest:
            self.slowest = seconds
        self._keep(seconds)

    def add_none(self, times: int) -> None:
        """So many that took no time."""
        self.count += times
        self.buckets[0] += times
        for _ in range(min(times, KEPT)):
            self._keep(0.0)

    def include(self, last: Iterable[float], seconds: float, buckets: Sequence[int]) -> None:
        """Several that were counted elsewhere: the last of them one by one, and what all of them amount to."""
        self.count += sum(buckets)
        self.sum += seconds
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, buckets, strict=True)]
        for each in last:
            self._keep(each)

    def quantile(self, q: float) -> float:
        """The smallest of the last ones that at least the share `q` (0 to 1) of them does not exceed; else 0.0."""
        return self._last.quantile(q)

    def last(self, number: int) -> list[float]:
        """The last ones, as many of them as are kept."""
        return self._last.last(number)

    def take_slowest(self) -> float:
        """The longest one since this was asked last; 0.0 if there was none."""
        slowest, self.slowest = self.slowest, 0.0
        return slowest
