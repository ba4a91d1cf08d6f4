"""Equal lines of a log: beyond ten in a second they are counted, and the count is written in their place.

An outage has every worker of a pool complain at every attempt. Lines that differ in numbers alone are equal. While
they go on at more than ten a second, one of them and a count are written after 1, 3, 7, 15 ... seconds, and then every
minute, so that a long outage does not fill a disk. A second of silence ends that.
What is below WARNING is written as it comes: there is what workers print, of which nothing may be missing.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

MOST = 10
SECOND = 1.0
LONGEST = 60.0
KINDS = 1000
"""Kinds of lines that are told apart."""
_NUMBER = re.compile(r"\d+")


@dataclass
class _Kind:
    """Equal lines within one stretch of time: when it began, how long it is, and what has come in it.

    `most` are written. `latest` is the time of `last`.
    """

    since: float
    latest: float
    last: logging.LogRecord
    length: float = SECOND
    most: int = MOST
    count: int = 0

    def is_over(self, now: float) -> bool:
        return now >= self.since + self.length or now >= self.latest + SECOND

    def goes_on(self, now: float) -> bool:
        """Whether they came at more than ten a second all the time."""
        return self.count > MOST * self.length and now < self.latest + SECOND


class Repeats:
    """Says which lines are written.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, int, str], _Kind] = {}
        self._pid = os.getpid()

    def admit(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """What is to be written now: the counts whose time is over, and the line itself unless it is one too many."""
        now = self._clock()
        written = self.left_out(now)
        if record.levelno < logging.WARNING:
            return [*written, record]
        key = (record.name, record.levelno, _NUMBER.sub("#", record.getMessage()))
        kind = self._seen.get(key)
        if kind is None:
            if len(self._seen) >= KINDS:
                written += self.left_out(math.inf)
            kind = self._seen[key] = _Kind(now, now, record)
        kind.count, kind.latest, kind.last = kind.count + 1, now, record
        return [*written, record] if kind.count <= kind.most else written

    def left_out(self, now: float | None = None) -> list[logging.LogRecord]:
        """The counts of what was not written, of times that are over by then; None is now."""
        now = self._clock() if now is None else now
        if self._pid != os.getpid():  # in a forked process: what was left out before is its parent's to tell
            self._pid, self._seen = os.getpid(), {}
        counts = []
        for key, kind in [(key, kind) for key, kind in self._seen.items() if kind.is_over(now)]:
            del self._seen[key]
            if kind.goes_on(now):
                self._seen[key] = _Kind(now, kind.latest, kind.last, min(2 * kind.length, LONGEST), most=1)
            if kind.count > kind.most:
                last = kind.last
                text = f"{kind.count - kind.most} more lines like this were left out: {last.getMessage()}"
                counts.append(logging.LogRecord(last.name, last.levelno, last.pathname, last.lineno, text, (), None))
        return counts
