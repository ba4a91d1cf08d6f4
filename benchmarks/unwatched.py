"""A worker whose pool tells nothing of its calls, for the price of being told: import it nowhere else.

Its module is imported in the pool's process before the first worker is forked. There it takes out what is done for an
operator at every call: durations, the slowest of an interval, the name of what runs; and the pipe of the last words.
"""

from __future__ import annotations

import os
from typing import Any

from actorpool.pools.worker_handles import WorkerHandles
from actorpool.transport import usage_counters
from actorpool.workers import EchoWorker


class UnwatchedWorker(EchoWorker):
    """As `EchoWorker`."""


def _count_only(meter: usage_counters.Meter, _seconds: float) -> None:
    """By how many uses have ended, the pool knows whether a sticky lease is in use: that is no figure."""
    meter._count += 1
    meter._words[usage_counters._COUNT] = meter._count


def _nothing(*_: Any) -> None:
    """Not told."""


if os.environ.get("ACTORPOOL_BENCHMARK") == "unwatched":
    usage_counters.Meter.count_one = _count_only  # type: ignore[method-assign, assignment]
    usage_counters.Meter.measure = _nothing  # type: ignore[method-assign, assignment]
    usage_counters.UsageCounters.measure = _nothing  # type: ignore[method-assign, assignment]
    usage_counters.UsageCounters.runs = _nothing  # type: ignore[method-assign, assignment]
    usage_counters.UsageCounters.rests = _nothing  # type: ignore[method-assign, assignment]
    WorkerHandles._listen = lambda self, id, words: []  # type: ignore[method-assign]
