"""Restart intensity, counted exactly as OTP's `supervisor` counts it. No clock of its own."""

from __future__ import annotations

from collections import deque
from math import floor


class Intensity:
    """How many restarts happened lately, and whether that is still within the limit.

    OTP's `add_restart`: time is taken in whole seconds, a restart counts while it is at most `max_seconds` old
    (inclusive), and more than `max_restarts` of them is too many. So with 0 the first restart is already one too many,
    and the window is between `max_seconds` and `max_seconds + 1` seconds long.

    Args:
        max_restarts: tolerated within the window, at least 0.
        max_seconds: length of the window; a fraction is dropped, as OTP knows whole seconds only (0.5 is 0: restarts
            within the same second).
    """

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self._period = floor(max_seconds)
        self._restarts: deque[int] = deque()

    def add(self, now: float) -> bool:
        """Count a restart (or a failed attempt at one); True while the limit is kept.

        Args:
            now: monotonic seconds.
        """
        self._restarts.append(floor(now))
        return self.count(now) <= self.max_restarts

    def count(self, now: float) -> int:
        """How many restarts the window that ends at `now` (monotonic seconds) holds."""
        oldest = floor(now) - self._period
        while self._restarts and self._restarts[0] < oldest:
            self._restarts.popleft()
        return len(self._restarts)

    def clear(self) -> None:
        """Forget the past."""
        self._restarts.clear()

    def __repr__(self) -> str:
        return f"<Intensity {len(self._restarts)} of {self.max_restarts} restart(s) in {self.max_seconds} s>"
