"""What the pool does under overload, outage and change, simulated on its pure core: seconds of computing for minutes.

`python -m actorpool.benchmarks.simulations.scenarios [DIRECTORY]` prints the figures of every scenario and draws the
pictures of docs/operations.md into DIRECTORY (default docs/img). The scenarios are functions, so that tests run shorter
ones.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from actorpool.benchmarks.simulations.chart import Line, Point, draw
from actorpool.benchmarks.simulations.world import World
from actorpool.config import Autoscale, Breaker, PoolConfig
from actorpool.core.effects import Granted
from actorpool.core.machine import Quantiles
from actorpool.core.pool.core import PoolCore
from actorpool.workers.base import Worker

CALLERS = 200


@dataclass
class Run:
    """What came of a simulation: when whom was served after how long, and what the others got."""

    world: World
    served: list[tuple[float, float]] = field(default_factory=list)
    refused: list[tuple[float, float, str]] = field(default_factory=list)
    curves: dict[str, list[Point]] = field(default_factory=dict)

    def waits(self, start: float, end: float) -> Quantiles:
        """The waits of those served between two moments, seconds."""
        meter = Quantiles(len(self.served) or 1)
        for at, waited in self.served:
            if start <= at < end:
                meter.add(waited)
        return meter

    def refusals(self, start: float = 0.0, end: float = math.inf) -> Counter[str]:
        """How many were refused between two moments, by the error."""
        return Counter(error for at, _, error in self.refused if start <= at < end)

    def ask(self, hold: float, then: Callable[[bool], None] | None = None, holder: Any = None) -> None:
        """One caller: waits, uses the connection for `hold` seconds, gives it back; `then(worked)` afterwards."""
        world, asked = self.world, self.world.now

        def served(grant: Granted) -> None:
            self.served.append((world.now, world.now - asked))
            world.call(grant, hold, lambda worked: done(grant, worked))

        def done(grant: Granted, worked: bool) -> None:
            world.checkin(grant)
            if not worked:
                self.refused.append((world.now, world.now - asked, "ConnectionError"))
            if then is not None:
                then(worked)

        def turned(error: Exception) -> None:
            self.refused.append((world.now, world.now - asked, type(error).__name__))
            if then is not None:
                then(False)

        world.checkout(served, turned, holder)

    def watch(self, seconds: float, **figures: Callable[[], float]) -> None:
        """Record figures (functions without arguments) every so many seconds, as `curves`."""

        def look() -> None:
            for name, figure in figures.items():
                self.curves.setdefault(name, []).append((self.world.now, figure()))

        look()
        self.world.every(seconds, look)


# -- overload ---------------------------------------------------------------------------------------------------

HOLD = 0.04
WORKERS = 8


def overload(queue_target: float | None, *, calm: float = 10.0, storm: float = 30.0, rest: float = 40.0) -> Run:
    """Eight workers, calls of 40 ms on average: 70 % of capacity, then 150 % for a while, then 70 % again."""
    world = World(WORKERS, max_overflow=0, queue_target=queue_target, queue_interval=1.0)
    run = Run(world)
    capacity = WORKERS / HOLD

    def arrive() -> None:
        load = 1.5 if calm <= world.now < calm + storm else 0.7
        run.ask(world.random.expovariate(1 / HOLD), holder=world.random.randrange(CALLERS))
        world.after(world.random.expovariate(capacity * load), arrive)

    world.after(0.1, arrive)
    world.run(calm + storm + rest)
    return run


# -- outage -----------------------------------------------------------------------------------------------------


def outage(*, length: float = 60.0, callers: int = CALLERS, rest: float = 60.0, **config: Any) -> Run:
    """Callers that ask again and again on 20 workers; the server is away for a while from the 20th second on."""
    world = World(20, **config)
    run = Run(world)

    def caller(number: int) -> None:
        def again(_worked: bool) -> None:
            world.after(world.random.expovariate(1.0), ask)

        def ask() -> None:
            run.ask(world.random.expovariate(1 / HOLD), again, holder=number)

        world.after(world.random.random(), ask)

    for number in range(callers):
        caller(number)
    world.after(20.0, lambda: setattr(world, "up", False))
    world.after(20.0 + length, lambda: setattr(world, "up", True))
    world.run(20.0 + length + rest)
    return run


def busiest(moments: Sequence[float], window: float = 1.0) -> int:
    """The most moments that lie within one window of so many seconds."""
    most, first = 0, 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - window:
            first += 1
        most = max(most, last - first + 1)
    return most


def per_second(moments: Iterable[float], end: float) -> list[Point]:
    """How many moments fall into each second."""
    counted = Counter(int(moment) for moment in moments)
    return [(float(second), float(counted[second])) for second in range(int(end))]


# -- change -----------------------------------------------------------------------------------------------------


def resizing(*, callers: int = 64, pace: float = 5.0) -> Run:
    """64 callers without a pause on 8 workers, resized 8, 2, 16, 8, then drained and resumed."""
    world = World(8, max_overflow=0, checkout_timeout=30.0)
    run = Run(world)

    def caller(number: int) -> None:
        run.ask(world.random.expovariate(1 / 0.02), lambda worked: caller(number), holder=number)

    for number in range(callers):
        caller(number)
    run.watch(
        0.02,
        size=lambda: world.core.life.size,
        workers=lambda: len(world.core.workers),
        leases=lambda: len(world.core.leases),
    )

    def resize(size: int) -> None:
        world.carry(world.core.resize(world.now, size))

    for step, size in enumerate((2, 16, 8), 1):
        world.after(step * pace, partial(resize, size))
    world.after(4 * pace, lambda: world.carry(world.core.drain(world.now, "drain", 5.0)))
    world.after(4.5 * pace, lambda: world.carry(world.core.resume(world.now)))
    world.run(5.5 * pace)
    return run


def day(*, hours: float = 24.0) -> Run:
    """A day of traffic, quiet at night and busy at noon, on a pool that scales itself; calls of 5 s keep it short."""
    config: dict[str, Any] = {"autoscale": Autoscale(), "overflow_ttl": 60.0, "health_interval": None}
    world = World(5, max_overflow=40, **config)
    run = Run(world)
    usage: list[int] = []

    def arrive() -> None:
        busy = 30 * math.sin(math.pi * world.now / 86400) ** 4 + 2  # leases out on average
        run.ask(world.random.expovariate(1 / 5.0), holder=0)
        world.after(world.random.expovariate(busy / 5.0), arrive)

    def sample() -> None:
        usage.append(len(world.core.leases))
        world.carry(world.core.sampled(world.now, usage[-100:]))

    world.after(0.1, arrive)
    world.every(10.0, sample)
    run.watch(300.0, size=lambda: world.core.life.size, leases=lambda: sum(usage[-30:]) / max(len(usage[-30:]), 1))
    world.run(hours * 3600)
    return run


# -- cost -------------------------------------------------------------------------------------------------------


def idle_pool(workers: int, **config: Any) -> PoolCore:
    """A pool core with that many connected, idle workers."""
    core = PoolCore("cost", PoolConfig(worker=Worker, max_restarts=10**9, **config), workers, 0.0, lambda: 0.5)
    core.start(0.0)
    for id in range(1, workers + 1):
        core.worker_started(0.0, id)
        core.opened(0.0, id)
    return core


def cost_of_pairs(workers: int, pairs: int) -> float:
    """Microseconds of processor time for one checkout and checkin on a pool of so many idle workers."""
    core, now = idle_pool(workers), 0.0
    began = time.process_time()
    for ref in range(pairs):
        now += 1e-5
        (granted,) = core.checkout(now, ref, "caller")
        core.checkin(now, granted.lease)
    return (time.process_time() - began) / pairs * 1e6


def cost_of_handovers(workers: int, pairs: int) -> float:
    """Microseconds of processor time for a checkin that serves a waiter, and the next waiter.

    All workers are out, and as many callers wait.
    """
    core, now = idle_pool(workers, max_overflow=0), 0.0
    leases = [effect.lease for ref in range(workers) for effect in core.checkout(now, ref, "caller")]
    for ref in range(workers, 2 * workers):
        core.checkout(now, ref, "caller")
    began = time.process_time()
    for number in range(pairs):
        now += 1e-6
        (granted,) = core.checkin(now, leases[number])
        leases.append(granted.lease)
        core.checkout(now, 2 * workers + number, "caller")
    return (time.process_time() - began) / pairs * 1e6


def cost_of_deaths(workers: int, deaths: int) -> float:
    """Microseconds of processor time for the death of an idle worker, its replacement's start and connection."""
    core = idle_pool(workers)
    began = time.process_time()
    for id in range(1, deaths + 1):
        core.died(1.0, id)
        core.worker_started(1.0, workers + id)
        core.opened(1.0, workers + id)
    return (time.process_time() - began) / deaths * 1e6


# -- figures and pictures ---------------------------------------------------------------------------------------


def milliseconds(meter: Quantiles) -> str:
    """Median, 99th percentile and maximum for a line of the report."""
    p50, p99, most = (meter.quantile(q) * 1e3 for q in (0.5, 0.99, 1.0))
    return f"{len(meter):6,} served, waited p50 {p50:5.0f}  p99 {p99:5.0f}  max {most:5.0f} ms"


def medians(pairs: Sequence[Point], width: float) -> list[Point]:
    """The median of the second numbers in each stretch of the first."""
    found: dict[int, list[float]] = {}
    for at, value in pairs:
        found.setdefault(int(at / width), []).append(value)
    return [(number * width, sorted(values)[len(values) // 2]) for number, values in sorted(found.items())]


def show_overload() -> str:
    """Overload with and without CoDel."""
    target, lines = 0.1, []
    for name, queue_target in (("without CoDel", None), (f"queue_target={target}", target)):
        run = overload(queue_target)
        for phase, start, end in (("overload", 15.0, 40.0), ("afterwards", 45.0, 80.0)):
            refused = dict(run.refusals(start, end))
            print(f"{name:16} {phase:10} {milliseconds(run.waits(start, end))}; refused {refused}")
        lines.append(Line(name, [(at, wait * 1e3) for at, wait in medians(run.served, 0.5)]))
    lines.append(Line("twice the target", [(0, 2e3 * target), (80, 2e3 * target)], dashed=True))
    title = "Overload: how long the served have waited (8 workers, calls of 40 ms)"
    return draw(title, "seconds", "median wait, ms", lines, [(10, 40, "150 % of capacity")])


def show_outage() -> str:
    """An outage of a minute, with the defaults, with a shorter backoff, and with a breaker."""
    for name, config in OUTAGES.items():
        run = outage(**config)
        world = run.world
        back = [moment for moment in world.attempts if moment >= 80]
        lost = Quantiles(len(run.refused))
        for at, waited, _ in run.refused:
            if 25 <= at < 80:
                lost.add(waited)
        print(
            f"{name:34} attempts: {busiest(world.attempts)} in the busiest second, "
            f"{sum(25 <= moment < 80 for moment in world.attempts)} from 5 s on until the end of the outage; "
            f"recovery: first attempt after {back[0] - 80:.1f} s, all {len(world.core.workers)} workers connected "
            f"{back[19] - back[0]:.2f} s later; callers lost {lost.quantile(0.5):.1f} s each"
        )
    asked = [at for at, _ in run.served] + [at for at, _, _ in run.refused]
    lines = [
        Line("callers asking", per_second(asked, 140)),
        Line("served", per_second([at for at, _ in run.served], 140)),
        Line("connection attempts", per_second(world.attempts, 140)),
    ]
    title = "An outage of 60 s: 200 callers, 20 workers, with a breaker"
    return draw(title, "seconds", "per second", lines, [(20, 80, "the server is away")])


OUTAGES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "backoff_max=5": {"backoff_max": 5.0},
    "backoff_max=5, Breaker(reset_after=2)": {"backoff_max": 5.0, "breaker": Breaker(reset_after=2.0)},
}


def show_resizing() -> str:
    """Resizing and draining under load."""
    run = resizing()
    world = run.world
    drained = world.answers["drain"][0] - 20.0
    print(f"resized 8, 2, 16, 8 under 64 callers: {len(run.served):,} calls, {sum(run.refusals().values())} failed; "
          f"drained in {drained * 1e3:.0f} ms")  # fmt: skip
    lines = [Line(name, points, step=True, dashed=name == "size") for name, points in run.curves.items()]
    return draw("Resized and drained under load (64 callers, calls of 20 ms)", "seconds", "count", lines)


def show_day() -> str:
    """A day with autoscaling."""
    run = day()
    events = run.world.events
    print(f"a day with autoscale: {len(run.served):,} calls, {events['pool.resized']} resizes, "
          f"{events['pool.overflow']} overflow workers")  # fmt: skip
    lines = [
        Line(name, [(at / 3600, value) for at, value in points], step=name == "size")
        for name, points in run.curves.items()
    ]
    return draw("A day with Autoscale()", "hour of the day", "workers", lines)


def show_cost() -> str:
    """What one operation costs on pools of 10 to 10 000 workers."""
    print(f"1 000 000 checkout/checkin pairs on 10 workers: {cost_of_pairs(10, 1_000_000):.2f} s")
    costs: dict[str, list[Point]] = {"checkout + checkin": [], "hand-over to a waiter": [], "death and replacement": []}
    for power in (1, 2, 3, 4):
        workers = 10**power
        figures = cost_of_pairs(workers, 50_000), cost_of_handovers(workers, 50_000), cost_of_deaths(workers, 5_000)
        for points, figure in zip(costs.values(), figures, strict=True):
            points.append((power, figure))
        print(f"{workers:6,} workers: " + ", ".join(f"{n} {f:.1f} µs" for n, f in zip(costs, figures, strict=True)))
    lines = [Line(name, points) for name, points in costs.items()]
    return draw("Cost of one operation of the core", "workers, as a power of ten", "microseconds", lines)


def main(directory: str = "docs/img") -> None:
    """Run everything, print the figures, draw the pictures."""
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    for show in (show_overload, show_outage, show_resizing, show_day, show_cost):
        began = time.process_time()
        picture = target / f"{show.__name__.removeprefix('show_')}.svg"
        picture.write_text(show(), encoding="utf-8")
        print(f"-> {picture} ({time.process_time() - began:.1f} s)\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
