"""How long a start takes, in an interpreter that has loaded nothing; and what plain Thespian takes for the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from thespian.actors import Actor, ActorSystem

from actorpool.benchmarks.meter import Figures, Measure, pss

OURS = """
import json, time
begun = time.perf_counter()
import actorpool
imported = time.perf_counter()
system = actorpool.start()
served = time.perf_counter()
system.shutdown()
print(json.dumps({"import": (imported - begun) * 1e3, "start": (served - imported) * 1e3}))
"""
THESPIANS = """
import json, time
begun = time.perf_counter()
from actorpool.benchmarks.starting import Parent, plain_system
from thespian.actors import ActorSystem
imported = time.perf_counter()
with plain_system() as system:
    assert system.ask(system.createActor(Parent), 1, 30) is not None
    print(json.dumps({"start": (time.perf_counter() - imported) * 1e3}))
"""


@contextmanager
def ours() -> Iterator[Measure]:
    """Contender: `import actorpool`, and then `start()` until it serves."""
    yield lambda seconds: _turn(OURS, seconds)


@contextmanager
def thespians() -> Iterator[Measure]:
    """Contender: a system of plain Thespian until an actor and a child of it have answered."""
    yield lambda seconds: _turn(THESPIANS, seconds)


def _turn(program: str, seconds: float) -> Figures:
    """Run it in new interpreters for so long, once at least; the median of what each has printed."""
    end = time.perf_counter() + seconds
    turns: list[Figures] = []
    while not turns or time.perf_counter() < end:
        ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60, check=True)
        turns.append(json.loads(ended.stdout))
    return {name: median(turn[name] for turn in turns) for name in turns[0]}


@contextmanager
def thespian_children(size: int) -> Iterator[Measure]:
    """Contender: an actor of plain Thespian has that many children that have answered; the memory of one."""
    with plain_system() as system:

        def measure(seconds: float) -> Figures:
            parent = system.createActor(Parent)
            begun = time.perf_counter()
            pids = system.ask(parent, size, 60)
            taken = time.perf_counter() - begun
            return {"ms": taken * 1e3, "pss": sum(map(pss, pids)) / len(pids)}

        yield measure


@contextmanager
def plain_system() -> Iterator[Any]:
    """A system of plain Thespian at a port of its own, with the fork that ours has, too."""
    capabilities = {"Admin Port": 20000 + os.getpid() % 40000, "Process Startup Method": "fork"}
    quiet = {"version": 1, "root": {"level": "CRITICAL"}}
    system = ActorSystem("multiprocTCPBase", capabilities, logDefs=quiet)
    try:
        yield system
    finally:
        system.shutdown()


class Parent(Actor):  # type: ignore[misc]
    """Asked for a number of children, it answers with their pids once each has answered."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        if isinstance(message, int):
            self.asker, self.wanted, self.pids = sender, message, []
            for _ in range(message):
                self.send(self.createActor(Child), "pid")
        elif isinstance(message, tuple):
            self.pids.append(message[0])
            if len(self.pids) == self.wanted:
                self.send(self.asker, self.pids)


class Child(Actor):  # type: ignore[misc]
    """Tells its pid."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        if message == "pid":
            self.send(sender, (os.getpid(),))
