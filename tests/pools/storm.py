"""Callers of a storm, in processes of their own, and the worker that stamps their calls."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from typing import Any, NamedTuple

import actorpool
from actorpool.workers import Worker, method


class Stamp(NamedTuple):
    """One call as its worker saw it; the clock is the machine's, so stamps of all processes can be compared."""

    pid: int
    number: int
    begin: float
    end: float


class Turn(NamedTuple):
    """What one caller did with one worker, without a break: a call, or all calls of a lease."""

    stamps: tuple[Stamp, ...]


class Outcome(NamedTuple):
    """What one process of callers brings home."""

    turns: list[Turn]
    errors: list[str]


class Stamper(Worker):
    """Numbers its calls and says when each began and ended."""

    def __init__(self) -> None:
        self.number = 0

    @method
    def stamp(self, seconds: float) -> Stamp:
        begin = time.monotonic()
        self.number += 1
        number = self.number
        time.sleep(seconds)
        return Stamp(os.getpid(), number, begin, time.monotonic())


_over: Any = None


def enter(over: Any) -> None:
    """In each process of callers, first of all: learn by what event the storm ends."""
    global _over
    _over = over


def blow(pool: actorpool.Pool, callers: int, seed: int, tasks: bool) -> Outcome:
    """Call without a pause, by that many threads or asyncio tasks, until the storm is over."""
    outcome = Outcome([], [])
    if tasks:
        asyncio.run(_tasks(pool, callers, seed, outcome))
        return outcome
    threads = [
        threading.Thread(target=_thread, args=(pool, random.Random(100 * seed + number), outcome))
        for number in range(callers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def _plan(source: random.Random) -> list[float]:
    """How long the calls of the next turn take: most turns are one call, some are a lease with several."""
    return [source.uniform(0.0, 0.004) for _ in range(source.choice((1, 1, 1, 3)))]


def _thread(pool: actorpool.Pool, source: random.Random, outcome: Outcome) -> None:
    while not _over.is_set():
        plan = _plan(source)
        try:
            if len(plan) == 1:
                stamps = [pool.call("stamp", plan[0])]
            else:
                with pool.checkout() as lease:
                    stamps = [lease.call("stamp", seconds) for seconds in plan]
            outcome.turns.append(Turn(tuple(stamps)))
        except Exception as error:
            outcome.errors.append(repr(error))


async def _tasks(pool: actorpool.Pool, callers: int, seed: int, outcome: Outcome) -> None:
    await asyncio.gather(*(_task(pool, random.Random(100 * seed + number), outcome) for number in range(callers)))


async def _task(pool: actorpool.Pool, source: random.Random, outcome: Outcome) -> None:
    while not _over.is_set():
        plan = _plan(source)
        try:
            if len(plan) == 1:
                stamps = [await pool.aio.call("stamp", plan[0])]
            else:
                async with pool.aio.checkout() as lease:
                    stamps = [await lease.call("stamp", seconds) for seconds in plan]
            outcome.turns.append(Turn(tuple(stamps)))
        except Exception as error:
            outcome.errors.append(repr(error))
