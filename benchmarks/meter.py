"""Two ways to measure a call: how long one takes, and how many there are in a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import psutil

Figures = dict[str, float]
Measure = Callable[[float], Figures]
"""What a contender offers: measure for about so many seconds, and return its figures by name."""


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of numbers in order."""
    return ordered[min(int(len(ordered) * q), len(ordered) - 1)]


def latency(call: Callable[[], object], seconds: float) -> Figures:
    """One caller, one call after the other: microseconds at the median and the 99th percentile, calls a second."""
    clock = time.perf_counter
    call()  # whatever the first one has to set up
    taken = []
    begun = before = clock()
    end = begun + seconds
    while before < end:
        call()
        after = clock()
        taken.append(after - before)
        before = after
    return _figures(taken, before - begun)


async def latency_of_awaits(call: Callable[[], Awaitable[object]], seconds: float) -> Figures:
    """The same of awaited calls."""
    clock = time.perf_counter
    await call()
    taken = []
    begun = before = clock()
    end = begun + seconds
    while before < end:
        await call()
        after = clock()
        taken.append(after - before)
        before = after
    return _figures(taken, before - begun)


def _figures(taken: list[float], seconds: float) -> Figures:
    taken.sort()
    return {
        "p50": quantile(taken, 0.5) * 1e6,
        "p99": quantile(taken, 0.99) * 1e6,
        "rate": len(taken) / seconds,
    }


def count(call: Callable[[], object], seconds: float) -> int:
    """How many calls are done in that time."""
    end = time.perf_counter() + seconds
    calls = 0
    while time.perf_counter() < end:
        call()
        calls += 1
    return calls


def threads(call: Callable[[], object], number: int, seconds: float) -> Figures:
    """Calls a second of that many threads together."""
    counts: list[int] = []
    running = [threading.Thread(target=lambda: counts.append(count(call, seconds))) for _ in range(number)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if len(counts) < number:
        raise RuntimeError(f"{number - len(counts)} of {number} threads failed")
    return {"rate": sum(counts) / seconds}


def until(done: Callable[[], object], limit: float = 10.0) -> float:
    """Milliseconds until `done` is true.

    Raises:
        TimeoutError: it was not within `limit` seconds.
    """
    begun = time.perf_counter()
    while not done():
        if time.perf_counter() - begun > limit:
            raise TimeoutError(f"not within {limit:.0f} s")
        time.sleep(0.0002)
    return (time.perf_counter() - begun) * 1e3


def pss(pid: int) -> float:
    """Proportional set size in MB: shared pages count by their share."""
    return float(psutil.Process(pid).memory_full_info().pss) / 1e6
