"""One caller process of a throughput row.

A pickled pool on standard input, then a line with seconds for each turn; answers each with calls and CPU seconds.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from typing import Any

from actorpool import host
from actorpool.benchmarks.meter import count


def add(connection: object, left: int, right: int) -> int:
    """The call that is measured: as little as possible."""
    return left + right


class Callers:
    """That many caller processes, which begin and end each turn together."""

    def __init__(self, pool: Any, number: int) -> None:
        # Not as `__main__`: its functions would go by value.
        command = [sys.executable, "-c", "from actorpool.benchmarks import caller; caller.main()"]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(number)
        ]
        for process in self._processes:
            assert process.stdin is not None
            pickle.dump(pool, process.stdin)
            process.stdin.flush()
        self.turn(0.02)  # until all have connected

    def turn(self, seconds: float) -> tuple[int, float]:
        """Let all call for so long; returns calls and CPU seconds of all together."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n".encode())
            process.stdin.flush()
        answers = [process.stdout.readline().split() for process in self._processes if process.stdout is not None]
        return sum(int(calls) for calls, _ in answers), sum(float(cpu) for _, cpu in answers)

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.communicate()


def main() -> None:
    """The process."""
    host.link_to_parent()
    pool = pickle.load(sys.stdin.buffer)
    for line in sys.stdin.buffer:
        before = time.process_time()
        calls = count(lambda: pool.run(add, 1, 2), float(line))
        print(calls, time.process_time() - before, flush=True)
