"""What the processes of the storm do: they must be importable where they are started."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import actorpool
from actorpool.agents import Sessions, Tools
from actorpool.errors import CheckoutTimeout, SessionLost, WorkerDied
from actorpool.workers import Worker, method

PAUSES = (0.0, 0.0, 0.0, 0.02)
"""Seconds that a call takes; in a long one its worker may be killed."""
DIED = ["the worker has died in a call"]
"""What is expected of a conversation of which the loss is still to be told."""


class Diary(Worker):
    """Remembers who has written what."""

    def open(self) -> None:
        self.lines: list[tuple[int, int]] = []

    reset = open

    @method
    def write(self, who: int, number: int, seconds: float = 0.0) -> list[tuple[int, int]]:
        """Write a line, take a while, and read all."""
        self.lines.append((who, number))
        time.sleep(seconds)
        return self.lines


def diaries(system: actorpool.System, size: int) -> Sessions:
    """The sessions that all processes share."""
    sessions = Sessions(Diary, size=size, name="diaries", max_restarts=1_000_000)
    sessions.start(system)
    return sessions


def talk(node: str, size: int, jobs: Any, done: Any) -> None:
    """A process: takes a conversation, makes one call, and hands it on with what its next call has to find."""
    system = actorpool.connect(node)
    sessions = diaries(system, size)
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    while (job := jobs.get()) is not None:
        who, number, expected = job
        expected, what = _one_call(sessions, who, number, expected)
        if what.startswith("wrong"):
            wrong.append(f"conversation {who}, call {number}: {what}")
        seen[what.partition(":")[0]] += 1
        done.put((who, expected))
    done.put((seen, wrong))


def _one_call(sessions: Sessions, who: int, number: int, expected: list[Any]) -> tuple[list[Any], str]:
    """What the next call has to find, and what this one came to."""
    try:
        with sessions(("storm", who)) as lease:
            found = [tuple(line) for line in lease.write(who, number, random.choice(PAUSES))]
    except WorkerDied:
        return DIED, "died"
    except SessionLost:
        return [], "lost" if expected else "wrong: a loss that was told before"
    except CheckoutTimeout:
        return expected, "late"
    if found == [*expected, (who, number)]:
        return found, "met"
    return found, f"wrong: found {found} in place of {expected}"


programs = Tools(size=4, name="programs", max_restarts=1_000_000)


@programs
def start_programs(mark: str) -> int:
    """Start what a careless tool starts: a child, its children, a daemon of its own session."""
    sleeper = f"import time; time.sleep(600)  # {mark}"
    shell = f"'{sys.executable}' -S -c '{sleeper}' & '{sys.executable}' -S -c '{sleeper}' & wait"
    subprocess.Popen(["sh", "-c", shell], start_new_session=random.random() < 0.5)
    daemon = f"import os, sys; os.fork() and sys.exit(); os.setsid(); os.fork() and sys.exit(); {sleeper}"
    subprocess.run([sys.executable, "-S", "-c", daemon], check=True)
    return os.getpid()
