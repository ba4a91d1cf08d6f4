"""Memory in which workers count what they do, and which their pool reads at any time.

The pool makes the pages before it forks its first worker, and every worker inherits them: no file, no descriptor, and
what a dead worker has counted can still be read. Each worker has a slot of its own, so each word has one writer; a word
is written and read whole, because it is aligned. A use is counted as begun before it runs, and as ended before its
answer is sent: the sockets between them keep that order for a process that has the answer. Calls outside of sticky
leases are counted before their answers are sent, too. Only what a histogram wants of them is written after the answer:
the caller does not wait for it.
"""

from __future__ import annotations

import functools
import mmap
import os
import types
from typing import Any, NamedTuple

from actorpool.core.pool.durations import BUCKETS, bucket_of
from actorpool.core.pool.sticky_lease import Uses

HOLDS = 60
"""Seconds of so many uses are remembered, and of so many other calls."""
LAST = 600
"""Seconds of so many calls of all workers are told at each look."""
SLOTS = 1024
"""Workers beyond these have none, and none of their leases is sticky. 1.4 MB; only what is used takes memory."""

# A meter: how many there were, their seconds, the slowest of two intervals (number of the interval, seconds), ...
_COUNT, _SPENT, _SLOWEST = 0, 1, 2
_BUCKETS = _SLOWEST + 4
_LAST = _BUCKETS + BUCKETS
_METER = _LAST + HOLDS
# A slot: uses begun, when the last one began and ended, the meter of the uses, the meter of the other calls.
_BEGUN, _SINCE, _UNTIL, _USES = 0, 1, 2, 3
_OTHERS = _USES + _METER
# ... how many calls have begun (negative: the last one has ended), and the function's name.
_RUNS = _OTHERS + _METER
_NAME = _RUNS + 1
NAME = 64
"""Bytes of a name that are told."""
WORDS = _NAME + NAME // 8


class Meter:
    """How often one kind of thing was done by one worker, and how long it took.

    The slowest of an interval is kept under the interval's number, which the pool counts in a word of its own. There
    are two such places, so that the worker writes into one while the pool reads the other.

    Args:
        words: its part of the memory.
        interval: the word that numbers the intervals.
    """

    __slots__ = ("_count", "_interval", "_now", "_place", "_seen", "_told", "_words")

    def __init__(self, words: memoryview[float], interval: memoryview[float]) -> None:
        self._words = words
        self._interval = interval
        self._count = 0
        self._now = -1.0
        self._place = _SLOWEST
        self._seen = 0  # the pool: how many there were at the last look
        self._told = 0.0  # the pool: the slowest of the last interval, as it was read then

    # -- in the worker's process ------------------------------------------------------------------------------

    def count_one(self, seconds: float) -> None:
        """One was done, and its duration is among the last; `measure` follows."""
        words = self._words
        words[_LAST + self._count % HOLDS] = seconds
        self._count += 1
        words[_COUNT] = self._count

    def measure(self, seconds: float) -> None:
        """What else is told of one: its part of the sum, its bucket, and whether it was the slowest."""
        words = self._words
        words[_SPENT] += seconds
        words[_BUCKETS + bucket_of(seconds)] += 1
        now = self._interval[0]
        if now != self._now:
            self._now, self._place = now, _SLOWEST + 2 * (int(now) % 2)
            words[self._place + 1] = seconds
            words[self._place] = now
        elif seconds > words[self._place + 1]:
            words[self._place + 1] = seconds

    # -- in the pool's process ----------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many were done."""
        return int(self._words[_COUNT])

    def last(self, count: int) -> list[float]:
        """How many seconds the last `count` took, as many of them as are remembered."""
        done = self.count
        return [self._words[_LAST + number % HOLDS] for number in range(max(done - min(count, HOLDS), 0), done)]

    def spent(self) -> list[float]:
        """Seconds of all together, then how many are in each bucket."""
        words = self._words
        return [words[_SPENT], *words[_BUCKETS : _BUCKETS + BUCKETS].tolist()]

    def news(self) -> list[float]:
        """Seconds of those that were done since this was asked last, as many of them as are remembered."""
        seen, self._seen = self._seen, self.count
        return self.last(self._seen - seen)

    def slowest(self, interval: int) -> float:
        """The slowest of the interval of that number, or of the one before if it was written down late; else 0.0."""
        late = self._of(interval - 1)
        late = late if late > self._told else 0.0
        self._told = self._of(interval)
        return max(late, self._told)

    def _of(self, interval: int) -> float:
        place = _SLOWEST + 2 * (interval % 2)
        return self._words[place + 1] if self._words[place] == interval else 0.0


class UsageCounters:
    """The count of one worker.

    Args:
        pages: the memory.
        number: which slot of it.

    Attributes:
        uses: the uses of sticky leases that have ended; each is one call.
        others: all other calls.
    """

    __slots__ = (
        "_begun", "_calls", "_ended", "_name", "_name_bytes", "_since", "_target", "_took", "_words", "others", "uses",
    )  # fmt: skip

    def __init__(self, pages: UsagePages, number: int) -> None:
        view = memoryview(pages.memory)[(1 + number * WORDS) * 8 : (1 + (number + 1) * WORDS) * 8]
        self._words = view.cast("d")  # exact for whole numbers up to 2**53
        self.uses = Meter(self._words[_USES:_OTHERS], pages.interval)
        self.others = Meter(self._words[_OTHERS:_RUNS], pages.interval)
        self._name_bytes = self._words[_NAME:].cast("B")
        self._name: str | None = None
        self._target: Any = None
        self._begun = self._calls = 0
        self._since = 0.0
        self._took: float | None = None
        self._ended = self.uses  # to which the one belongs that `_took` so long

    def begin(self, now: float) -> None:
        """A use begins. In the worker's process."""
        words = self._words
        self._begun += 1
        self._since = words[_SINCE] = now
        words[_BEGUN] = self._begun

    def end(self, now: float) -> None:
        """It has ended. In the worker's process, before the answer is sent."""
        self._words[_UNTIL] = now
        self._took, self._ended = now - self._since, self.uses
        self.uses.count_one(self._took)

    def end_other(self, seconds: float) -> None:
        """A call of no sticky lease has taken so long. In the worker's process, before the answer is sent."""
        self._took, self._ended = seconds, self.others
        self.others.count_one(seconds)

    def measure(self) -> None:
        """The rest of what is told of what has ended. In the worker's process, after the answer was sent."""
        if self._took is not None:
            self._ended.measure(self._took)
            self._took = None

    @property
    def begun(self) -> int:
        """How many uses have begun. In the worker's process."""
        return self._begun

    def runs(self, target: Any) -> None:
        """A call of that method or function begins. In the worker's process."""
        if target is not self._target:
            self._rename(target)
        self._calls += 1
        self._words[_RUNS] = self._calls

    def _rename(self, target: Any) -> None:
        plain = type(target) is types.FunctionType and target.__closure__ is None
        self._target = target if plain or type(target) is str else None  # nothing large is kept alive by this
        name = target if type(target) is str else name_of(target)
        if name != self._name:
            self._name = name
            self._name_bytes[:] = name.encode(errors="replace")[:NAME].ljust(NAME, b"\0")

    def rests(self) -> None:
        """It has ended. In the worker's process."""
        self._words[_RUNS] = -self._calls

    def calls(self) -> int:
        """How many calls have begun, whether or not they have ended. In the pool's process."""
        return int(abs(self._words[_RUNS]))

    def running(self) -> str | None:
        """The name of what runs now. In the pool's process."""
        if self._words[_RUNS] <= 0:
            return None
        return bytes(self._name_bytes).rstrip(b"\0").decode(errors="ignore") or None

    def read(self) -> Uses:
        """What is there now. In the pool's process."""
        words = self._words
        ended = self.uses.count  # first: one that ends meanwhile has begun
        return Uses(int(words[_BEGUN]), ended, words[_SINCE], words[_UNTIL])

    def holds(self, count: int) -> list[float]:
        """How many seconds the last `count` ended uses took, as many of them as are remembered."""
        return self.uses.last(count)

    def spent(self) -> list[float]:
        """Seconds of all ended uses together, then how many of them are in each bucket."""
        return self.uses.spent()

    def clear(self) -> None:
        """Count anew, for another worker."""
        for number in range(WORDS):
            self._words[number] = 0.0


def name_of(function: Any) -> str:
    """What a function is called; of an object that is called, its class. No code of that object runs."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    return str(function.__name__ if isinstance(function, _FUNCTIONS) else type(function).__name__)


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)


class Look(NamedTuple):
    """What the workers of a pool have done in all, and since the last look.

    Attributes:
        calls: calls that have ended, since the pool began.
        last: seconds of some of those that have ended since the last look.
        slowest_call: seconds of the slowest of them; 0.0 if there was none.
        slowest_use: the same of the uses of sticky leases.
    """

    calls: int
    last: list[float]
    slowest_call: float
    slowest_use: float


class UsagePages:
    """The slots of all workers of a pool. Made in its process, before it forks; never given back before it ends."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, (1 + SLOTS * WORDS) * 8)
        self.interval = memoryview(self.memory)[:8].cast("d")
        self.interval[0] = 1.0
        self.owner = os.getpid()
        self._free = list(range(SLOTS - 1, -1, -1))
        self._taken: dict[int, tuple[int, UsageCounters]] = {}
        self._counting: set[int] = set()
        self._gone = Look(0, [], 0.0, 0.0)  # what those have done that are gone

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
            number, slot = taken
            self._gone = _with(self._gone, slot, int(self.interval[0]))
            self._free.append(number)

    def look(self) -> Look:
        """What was done until now; another interval begins."""
        interval = int(self.interval[0])
        self.interval[0] = interval + 1.0
        look, self._gone = self._gone, Look(self._gone.calls, [], 0.0, 0.0)
        for _, slot in self._taken.values():
            look = _with(look, slot, interval)
        return look


def _with(look: Look, slot: UsageCounters, interval: int) -> Look:
    """What one worker has done, added to what others have."""
    uses, others = slot.uses, slot.others
    last = (look.last + uses.news() + others.news())[-LAST:]
    use, other = uses.slowest(interval), others.slowest(interval)
    calls = look.calls + uses.count + others.count
    return Look(calls, last, max(look.slowest_call, use, other), max(look.slowest_use, use))


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
