"""The caller processes of a throughput row, forked as a pre-fork server forks its workers."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

from actorpool import process
from actorpool.benchmarks.calls import add
from actorpool.benchmarks.meter import count

_FORK = multiprocessing.get_context("fork")


class Callers:
    """That many caller processes, which begin and end each turn together."""

    def __init__(self, pool: Any, number: int) -> None:
        pipes = [_FORK.Pipe() for _ in range(number)]
        self._ends = [ours for ours, _ in pipes]
        self._processes = [_FORK.Process(target=_call, args=(pool, theirs), daemon=True) for _, theirs in pipes]
        for child in self._processes:
            child.start()
        self.turn(0.02)  # until all have connected

    def turn(self, seconds: float) -> tuple[int, float]:
        """Let all call for so long; returns calls and CPU seconds of all together."""
        for end in self._ends:
            end.send(seconds)
        answers = [end.recv() for end in self._ends]
        return sum(calls for calls, _ in answers), sum(cpu for _, cpu in answers)

    def close(self) -> None:
        """End them."""
        for end in self._ends:
            end.send(None)
        for child in self._processes:
            child.join()


def _call(pool: Any, orders: Connection) -> None:
    """The process: answers each number of seconds with calls and CPU seconds."""
    process.link_to_parent()
    while (seconds := orders.recv()) is not None:
        before = time.process_time()
        calls = count(lambda: pool.run(add, 1, 2), seconds)
        orders.send((calls, time.process_time() - before))
