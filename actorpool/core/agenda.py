"""What is to be done later. An entry is never cancelled: whoever is reminded checks whether it still matters."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Agenda:
    """Reminders, earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Any]] = []
        self._count = 0
        self._many = 64

    def at(self, when: float, what: Any) -> None:
        """Remind of `what` at the monotonic time `when`."""
        self._count += 1  # keeps entries of the same moment in order, and the heap from comparing them
        heapq.heappush(self._heap, (when, self._count, what))

    def due(self, now: float) -> list[Any]:
        """Everything whose time has come, removed, in order."""
        ready = []
        while self._heap and self._heap[0][0] <= now:
            ready.append(heapq.heappop(self._heap)[2])
        return ready

    def tidy(self, wanted: Callable[[Any], bool]) -> None:
        """Forget the reminders that `wanted` says no to, once there are twice as many as last time: O(1) amortised."""
        if len(self._heap) > self._many:
            self._heap = [entry for entry in self._heap if wanted(entry[2])]
            heapq.heapify(self._heap)
            self._many = 2 * len(self._heap) + 64

    def next(self) -> float | None:
        """When the next reminder is due."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._heap)
