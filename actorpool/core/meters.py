"""Figures about many numbers for the price of keeping the last of them: adding is the hot path, asking is rare."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable


class Quantiles:
    """The last `size` numbers, sorted only when somebody asks."""

    __slots__ = ("_ring", "add")

    add: Callable[[float], None]

    def __init__(self, size: int = 1000) -> None:
        self._ring: deque[float] = deque(maxlen=size)
        self.add = self._ring.append  # bound once: no Python frame for each number

    def __len__(self) -> int:
        return len(self._ring)

    def __repr__(self) -> str:
        return f"<Quantiles of {len(self)} numbers, median {self.quantile(0.5):.6g}>"

    def quantile(self, q: float) -> float:
        """The smallest kept number that at least the share `q` (0 to 1) of them does not exceed (nearest rank).

        Returns:
            0.0 when there are none.
        """
        ordered = sorted(self._ring)
        return ordered[max(math.ceil(q * len(ordered)) - 1, 0)] if ordered else 0.0
