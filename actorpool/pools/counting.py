"""What sinks that count are told of a pool at each interval, read from its figures and the memory of its workers.

Nothing is told for each call, so a pool that is counted serves as one that is not. Run in the pool's process.
"""

from __future__ import annotations

from collections.abc import Iterable

from actorpool.core.pool.core import PoolCore
from actorpool.core.pool.durations import KEPT, Durations
from actorpool.telemetry.events import Counted
from actorpool.transport.usage_counters import UsagePages

SAMPLE = 20
"""How many timings of each kind are told at each interval, beside the slowest."""


class Counting:
    """Counts checkouts, checkins and calls from one look to the next.

    Args:
        core: the pool's core.
        pages: where its workers count.
    """

    def __init__(self, core: PoolCore, pages: UsagePages) -> None:
        self._core = core
        self._pages = pages
        self._told: dict[str, int] = {}
        self._reported = Durations()

    def called(self, seconds: float) -> None:
        """A worker that shares no memory with the pool reports a call."""
        self._reported.add(seconds)

    def look(self) -> list[Counted]:
        """What there was since the last look; nothing of what has not happened."""
        self._core.figures.settle()
        stats, reported, workers = self._core.stats, self._reported, self._pages.look()
        calls = workers.calls + reported.count
        last = workers.last + reported.last(min(self._news("call.done", calls), KEPT))
        holds = stats.holds.last(self._news("pool.checkin", stats.checkins))
        waits = stats.waits.last(self._news("pool.checkout", stats.checkouts))
        counted = (
            self._counted("pool.checkout", stats.checkouts, waits, stats.waits.take_slowest()),
            self._counted("pool.checkin", stats.checkins, holds, stats.holds.take_slowest(), workers.slowest_use),
            self._counted("call.done", calls, last, reported.take_slowest(), workers.slowest_call),
        )
        return [each for each in counted if each.times]

    def _news(self, name: str, total: int) -> int:
        return total - self._told.get(name, 0)

    def _counted(self, name: str, total: int, last: Iterable[float], *slowest: float) -> Counted:
        count, self._told[name] = self._news(name, total), total
        some = list(last)
        longest = max(*slowest, *some, 0.0)
        if longest in some:
            some.remove(longest)
        some = some[:: len(some) // SAMPLE + 1]
        return Counted(name, count, longest * 1e3, [seconds * 1e3 for seconds in some[: count - 1]])
