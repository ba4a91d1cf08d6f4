"""The last samples of one pool and what they amount to."""

from __future__ import annotations

from collections import deque

from actorpool.status import PoolMetrics, Sample

KEPT = 100


class Samples:
    """A ring of the last 100 samples. Lives in the pool actor; knows no clock."""

    def __init__(self, kept: int = KEPT) -> None:
        self._ring: deque[Sample] = deque(maxlen=kept)

    def add(self, sample: Sample) -> None:
        """Keep `sample`; the oldest makes room."""
        self._ring.append(sample)

    def __len__(self) -> int:
        return len(self._ring)

    def leases(self) -> list[int]:
        """Leases out in each sample, oldest first: what the autoscaler looks at."""
        return [sample.leases for sample in self._ring]

    def metrics(self) -> PoolMetrics:
        """The samples with minimum, maximum and average of the leases out (zeros while there are none)."""
        leases = self.leases() or [0]
        return PoolMetrics(tuple(self._ring), min(leases), max(leases), sum(leases) / len(leases))
