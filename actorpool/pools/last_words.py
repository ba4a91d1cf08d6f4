"""Why workers ended: how each did, and what it wrote last. Kept by place, for the worker that takes a dead one's place.

Runs in: the pool's process.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

LINES = 20
LONGEST = 500
"""Characters of a line."""
KEPT = 10
"""The latest ends, whose last words are kept as well."""
CRASH = "Fatal Python error: "
"""How `faulthandler` begins the stack of a native crash."""


class LastWords:
    """The last lines of one worker; once it has crashed, the first ones of its stack."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES)
        self._stack: list[str] | None = None

    def add(self, line: str) -> None:
        """It has written a line."""
        line = line[:LONGEST]
        if line.startswith(CRASH):
            self._stack = [line]
        elif self._stack is not None and len(self._stack) < LINES:
            self._stack.append(line)
        self._lines.append(line)

    def text(self) -> str:
        """The lines."""
        return "\n".join(self._lines if self._stack is None else self._stack).rstrip()


class LastEnd(NamedTuple):
    """How a worker ended, with the time; and its last words."""

    text: str
    output: str


class LastEnds:
    """The last end in each place of a pool.

    Args:
        kept: as `kept` has told it to a predecessor's supervisor.
    """

    def __init__(self, kept: dict[int, LastEnd] | None = None) -> None:
        self._by_place = dict(kept or {})

    def add(self, place: int, reason: str, words: LastWords) -> None:
        """A worker in that place is gone."""
        self._by_place.pop(place, None)
        self._by_place[place] = LastEnd(f"{reason} at {moment(time.time())}", words.text())

    def get(self, place: int | None) -> LastEnd | None:
        """The last end in a place."""
        return self._by_place.get(place) if place is not None else None

    def latest(self) -> LastEnd | None:
        """The last of all."""
        return next(reversed(self._by_place.values()), None)

    def kept(self) -> dict[int, LastEnd]:
        """The latest ones: what a successor is to know."""
        return dict(list(self._by_place.items())[-KEPT:])


def moment(unix: float) -> str:
    """A Unix time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))
