"""Equal lines of a log: beyond ten in a second they are counted, and the count is written in their place.

An outage has every worker of a pool complain at every attempt. Lines that differ in numbers alone are equal.
What is below WARNING is written as it comes: there is what workers print, of which nothing may be missing.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator

MOST = 10
SECOND = 1.0
KINDS = 1000
"""Kinds of lines that are told apart."""
_NUMBER = re.compile(r"\d+")


class Repeats:
    """Says which lines are written.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, int, str], tuple[float, int, logging.LogRecord]] = {}

    def admit(self, record: logging.LogRecord) -> Iterator[logging.LogRecord]:
        """What is to be written now: the counts whose second is over, and the line itself unless it is one too many."""
        now = self._clock()
        yield from self.left_out(now)
        if record.levelno < logging.WARNING:
            yield record
            return
        key = (record.name, record.levelno, _NUMBER.sub("#", record.getMessage()))
        since, count, _ = self._seen.get(key, (now, 0, record))
        if count == 0 and len(self._seen) >= KINDS:
            self._seen.clear()
        self._seen[key] = (since, count + 1, record)
        if count < MOST:
            yield record

    def left_out(self, now: float) -> Iterator[logging.LogRecord]:
        """The counts of what was not written, of seconds that are over at that time."""
        over = [key for key, (since, _, _) in self._seen.items() if now >= since + SECOND]
        for key in over:
            _, count, last = self._seen.pop(key)
            if count > MOST:
                text = f"{count - MOST} more lines like this were left out: {last.getMessage()}"
                yield logging.LogRecord(last.name, last.levelno, last.pathname, last.lineno, text, (), None)
