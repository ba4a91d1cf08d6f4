"""How long it takes until all is well after a SIGKILL. Each turn kills once; all figures are milliseconds."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import actorpool
from actorpool import process
from actorpool.benchmarks.calls import add, pid
from actorpool.benchmarks.meter import Figures, Measure, until
from actorpool.errors import ActorPoolError
from actorpool.workers import EchoWorker

WORKERS = 4
MANY = 100_000  # restarts tolerated: these are on purpose


@contextmanager
def _pool() -> Iterator[tuple[Any, Any]]:
    with actorpool.start() as system:
        yield system, system.start_pool("bench", worker=EchoWorker, size=WORKERS, max_overflow=0, max_restarts=MANY)


@contextmanager
def idle_worker() -> Iterator[Measure]:
    """Contender: kill an idle worker; the very next call, and the pool at its size again."""
    with _pool() as (_, pool):

        def measure(seconds: float) -> Figures:
            victim = pool.run(pid)
            begun = time.perf_counter()
            process.kill(victim)
            pool.run(add, 1, 2)
            call = (time.perf_counter() - begun) * 1e3
            return {"next_call": call, "full": call + until(lambda: _full(pool, victim))}

        yield measure


@contextmanager
def busy_worker() -> Iterator[Measure]:
    """Contender: kill a worker in a call; its caller knows, and the pool is at its size again."""
    with _pool() as (_, pool):

        def measure(seconds: float) -> Figures:
            told: list[float] = []
            lease = pool.checkout()
            victim = lease.worker_pid

            def caller() -> None:
                try:
                    lease.call("sleep", 30)
                except ActorPoolError:
                    told.append(time.perf_counter())

            thread = threading.Thread(target=caller)
            thread.start()
            time.sleep(0.1)  # until the call runs
            begun = time.perf_counter()
            process.kill(victim)
            thread.join(20)
            lease.checkin()
            full = until(lambda: _full(pool, victim))
            return {"told": (told[0] - begun) * 1e3, "full": max(full, (told[0] - begun) * 1e3)}

        yield measure


HOLDER = """
import pickle, sys, time
lease = pickle.load(sys.stdin.buffer).checkout()
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def caller() -> Iterator[Measure]:
    """Contender: kill a process that holds a lease; the lease is back."""
    with _pool() as (_, pool):

        def measure(seconds: float) -> Figures:
            command = [sys.executable, "-c", HOLDER]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
                assert running.stdin is not None
                assert running.stdout is not None
                running.stdin.write(pickle.dumps(pool))
                running.stdin.close()
                running.stdout.readline()
                running.kill()
                return {"back": until(lambda: pool.status().monitors == 0)}

        yield measure


@contextmanager
def actor(kind: str) -> Iterator[Measure]:
    """Contender: kill the pool's actor (`"pool"`) or the manager (`"manager"`); a call succeeds again."""
    with _pool() as (system, pool):

        def measure(seconds: float) -> Figures:
            victim = _pid_of(system.tree(), kind)
            process.kill(victim)
            until(lambda: not process.alive(victim))

            def serves() -> bool:
                try:
                    return bool(pool.run(add, 1, 2) == 3)
                except ActorPoolError:
                    return False

            return {"serving": until(serves)}

        yield measure


def _full(pool: Any, victim: int) -> bool:
    workers = pool.workers()
    idle = [worker for worker in workers if worker.state == "idle"]
    return len(idle) >= WORKERS and all(worker.pid != victim for worker in workers)


def _pid_of(tree: Any, kind: str) -> int:
    """The pid of the pool's actor, or of the manager, which is its parent."""
    for child in tree.children:
        if child.kind == "pool":
            return int(child.pid if kind == "pool" else tree.pid)
    return _pid_of(tree.children[0], kind)
