"""What a pool is meant to be, and where it is in its life: starting, serving, suspended, draining, ending."""

from __future__ import annotations

from typing import Any

from actorpool.core.effects import Keep


class PoolState:
    """What operators asked for, and the askers that wait until it is done.

    Args:
        kept: what the pool begins with: its settings, or what a predecessor that crashed has last kept.
    """

    def __init__(self, kept: Keep) -> None:
        self.kept = kept
        self.started = False
        self.failed: Exception | None = None
        self.stopping = False
        self.ending = False  # stopping, or failed: no worker is started and no caller served any more
        self.drainers: list[Any] = []
        self.stoppers: list[Any] = []

    @property
    def size(self) -> int:
        """How many workers are kept."""
        return self.kept.size

    @property
    def max_overflow(self) -> int:
        """How many more there may be while demand lasts."""
        return self.kept.max_overflow

    @property
    def serving(self) -> bool:
        """Whether newcomers and waiters may be given workers now."""
        return not (self.kept.suspended or self.kept.draining or self.ending)

    def change(self, **wishes: Any) -> Keep | None:
        """Note what operators want; the effect that tells a successor of it, if it is new."""
        kept = self.kept._replace(**wishes)
        if kept == self.kept:
            return None
        self.kept = kept
        return kept
