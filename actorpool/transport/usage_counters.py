"""Memory in which workers count what they do under sticky leases, and which their pool reads at any time.

The pool makes the pages before it forks its first worker, and every worker inherits them: no file, no descriptor, and
what a dead worker has counted can still be read. Each worker has a slot of its own, so each word has one writer; a word
is written and read whole, because it is aligned. A use is counted as begun before it runs, and as ended before its
answer is sent: the sockets between them keep that order for a process that has the answer.
"""

from __future__ import annotations

import mmap
import os

from actorpool.core.pool.sticky_lease import Uses

HOLDS = 60
"""Seconds of so many uses are remembered."""
WORDS = 4 + HOLDS
SLOTS = 1024
"""Workers beyond these have none, and none of their leases is sticky. 512 KB; only what is used takes memory."""


class UsageCounters:
    """The count of one worker.

    Args:
        pages: the memory.
        number: which slot of it.
    """

    __slots__ = ("_at", "_begun", "_ended", "_since", "_words")

    def __init__(self, pages: UsagePages, number: int) -> None:
        view = memoryview(pages.memory)[number * WORDS * 8 : (number + 1) * WORDS * 8]
        self._words = view.cast("d")  # exact for whole numbers up to 2**53
        self._begun = self._ended = 0
        self._since = 0.0

    def begin(self, now: float) -> None:
        """A use begins. In the worker's process."""
        words = self._words
        self._begun += 1
        self._since = words[2] = now
        words[0] = self._begun

    def end(self, now: float) -> None:
        """It has ended. In the worker's process, before the answer is sent."""
        words = self._words
        words[4 + self._ended % HOLDS] = now - self._since
        words[3] = now
        self._ended += 1
        words[1] = self._ended

    @property
    def begun(self) -> int:
        """How many uses have begun. In the worker's process."""
        return self._begun

    def read(self) -> Uses:
        """What is there now. In the pool's process."""
        words = self._words
        ended = int(words[1])  # first: one that ends meanwhile has begun
        return Uses(int(words[0]), ended, words[2], words[3])

    def holds(self, count: int) -> list[float]:
        """How many seconds the last `count` ended uses took, as many of them as are remembered."""
        ended = int(self._words[1])
        return [self._words[4 + number % HOLDS] for number in range(max(ended - min(count, HOLDS), 0), ended)]

    def clear(self) -> None:
        """Count anew, for another worker."""
        for number in range(WORDS):
            self._words[number] = 0.0


class UsagePages:
    """The slots of all workers of a pool. Made in its process, before it forks; never given back before it ends."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SLOTS * WORDS * 8)
        self.owner = os.getpid()
        self._free = list(range(SLOTS - 1, -1, -1))
        self._taken: dict[int, tuple[int, UsageCounters]] = {}
        self._counting: set[int] = set()

    def take(self, worker: int) -> int | None:
        """A slot for a worker that is about to start; None when all are taken."""
        if not self._free:
            return None
        number = self._free.pop()
        slot = UsageCounters(self, number)
        slot.clear()
        self._taken[worker] = number, slot
        return number

    def counts(self, worker: int) -> None:
        """The worker says that it has found its slot."""
        self._counting.add(worker)

    def slot(self, worker: int) -> UsageCounters | None:
        """The slot of a worker; None if it does not count."""
        return self._taken[worker][1] if worker in self._counting else None

    def give(self, worker: int) -> None:
        """The worker is gone, and what it has counted is counted."""
        self._counting.discard(worker)
        taken = self._taken.pop(worker, None)
        if taken is not None:
            self._free.append(taken[0])


_pages: UsagePages | None = None
"""Those of the pool in this process, or (in a worker's process) of the pool that forked it."""


def found() -> UsagePages:
    """Make the pages of this pool, which its workers will inherit."""
    global _pages
    _pages = UsagePages()
    return _pages


def inherited(number: int | None) -> UsageCounters | None:
    """The slot of this worker; None where it has none, or was not forked by its pool."""
    if number is None or _pages is None or _pages.owner != os.getppid():
        return None
    return UsageCounters(_pages, number)
