"""How often a failing sink is spoken of: it may fail with every event, and the log is not to be about that alone."""

from __future__ import annotations

import time
from collections.abc import Callable

QUIET = 10.0
"""Seconds between two complaints about the same kind of error."""
KINDS = 100
"""Kinds of errors that are told apart; a program that makes a class for each error does not fill the memory."""


class Complaints:
    """Says whether an error is to be told.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[type[BaseException], float] = {}

    def due(self, error: BaseException) -> bool:
        """Whether none of its kind was told in the last `QUIET` seconds; if so, this one counts as told."""
        now, kind = self._clock(), type(error)
        if now < self._told.get(kind, float("-inf")) + QUIET:
            return False
        if len(self._told) >= KINDS:
            self._told.clear()
        self._told[kind] = now
        return True
