"""A shared pool under load, with made-up workers and a driven clock: who gets how much, and what a decision costs."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable

import pytest

from actorpool.core.shared.core import SharedPoolCore
from actorpool.core.shared.effects import Deliver, Run
from actorpool.core.shared.records import Connection


class Mirrors:
    """Mirrors of one resource, each answering after a time of its own; callers that call again at once."""

    def __init__(self, *speeds: Callable[[float], float]) -> None:
        self.now = 0.0
        self.core = SharedPoolCore("mirrors", lambda: 0.5)
        self.speeds = {}
        self.served: Counter[int] = Counter()
        self.waits: list[float] = []
        self.events: list[tuple[float, int, int, int]] = []
        self.until: Counter[int] = Counter()
        self.order = itertools.count()
        for worker, speed in enumerate(speeds, 1):
            self.core.add(0.0, ("add", worker), None, resource="r")
            self.core.worker_started(0.0, worker)
            self.core.opened(0.0, worker, methods=("get",))
            self.speeds[worker] = speed

    def call(self) -> None:
        self.carry_out(self.core.call(self.now, next(self.order), "caller", "r", "get"))

    def carry_out(self, effects: list[object]) -> int:
        answered = 0
        for effect in effects:
            if isinstance(effect, Run):
                begin = max(self.now, self.until[effect.worker])  # it may have been sent ahead
                self.waits.append(begin - effect.call.arrived)
                self.until[effect.worker] = end = begin + self.speeds[effect.worker](begin)
                event = (end, next(self.order), effect.worker, effect.call.number)
                heapq.heappush(self.events, event)
            elif isinstance(effect, Deliver):
                answered += 1
        return answered

    def run(self, callers: int, calls: int) -> None:
        """So many callers, each with one call under way, until so many calls were answered."""
        for _ in range(callers):
            self.call()
        for _ in range(calls):
            self.now, _, worker, number = heapq.heappop(self.events)
            self.served[worker] += 1
            for _ in range(self.carry_out(self.core.done(self.now, worker, number))):
                self.call()

    def share(self, worker: int) -> float:
        return self.served[worker] / sum(self.served.values())


def steady(seconds: float) -> Callable[[float], float]:
    return lambda now: seconds


def noisy(seconds: float, seed: int) -> Callable[[float], float]:
    rng = random.Random(seed)
    return lambda now: rng.expovariate(1 / seconds)


@pytest.mark.parametrize("callers", [4, 10, 50])
@pytest.mark.parametrize("ratio", [2, 5, 20])
def test_a_fast_mirror_gets_the_share_that_its_speed_earns(callers: int, ratio: int) -> None:
    mirrors = Mirrors(noisy(0.001 * ratio, seed=1), noisy(0.001, seed=2))
    mirrors.run(callers, 5000)
    assert mirrors.share(2) == pytest.approx(ratio / (ratio + 1), abs=0.06)


def test_equal_mirrors_share_evenly() -> None:
    mirrors = Mirrors(*(noisy(0.001, seed) for seed in range(4)))
    mirrors.run(20, 8000)
    assert all(mirrors.share(worker) == pytest.approx(0.25, abs=0.03) for worker in mirrors.speeds)


def test_a_single_caller_stays_with_the_oldest_idle_connection() -> None:
    mirrors = Mirrors(steady(0.001), steady(0.001))
    mirrors.run(1, 100)
    assert mirrors.served[1] == 100


def test_a_mirror_that_becomes_slow_loses_its_share() -> None:
    mirrors = Mirrors(lambda now: 0.001 if now < 1.0 else 0.02, steady(0.001))
    mirrors.run(20, 2000)
    assert mirrors.share(1) == pytest.approx(0.5, abs=0.05)
    mirrors.run(0, 2000)
    mirrors.served.clear()
    mirrors.run(0, 3000)
    assert mirrors.share(1) == pytest.approx(1 / 21, abs=0.02)


def test_the_least_wait_beats_the_shortest_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the estimate is good for: nobody stands in a slow mirror's queue that is merely short."""

    def longest_waits() -> float:
        mirrors = Mirrors(noisy(0.020, 1), noisy(0.001, 2))
        mirrors.run(8, 4000)
        return sorted(mirrors.waits)[-len(mirrors.waits) // 100]

    by_wait = longest_waits()
    monkeypatch.setattr(Connection, "mean", lambda connection, method: 1.0)
    by_length = longest_waits()
    print(f"\nwait p99: {by_wait * 1e3:.1f} ms by expected wait, {by_length * 1e3:.1f} ms by length of the queue")
    assert by_wait < 0.8 * by_length


@pytest.mark.parametrize("connections", [1, 3, 10])
def test_a_decision_costs_microseconds(connections: int) -> None:
    """The figure is printed; the bound is what a busy machine still reaches."""
    best = 0.0
    for _ in range(3):
        mirrors = Mirrors(*(steady(0.001) for _ in range(connections)))
        begin = time.perf_counter()
        mirrors.run(5 * connections, 5000)
        best = max(best, 5000 / (time.perf_counter() - begin))
    print(f"\n{connections} connection(s), 5 callers each: {best:,.0f} calls/s, with the simulation around them")
    assert best > 15_000
