"""What agents wait for: a tool's call beside a thread's, a stop, a crash, an interpreter, a model loaded once."""

from __future__ import annotations

import asyncio
import importlib
import mmap
import os
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil

import actorpool
from actorpool.agents import PythonWorker, Sessions, Tools
from actorpool.benchmarks.meter import Figures, Measure, latency_of_awaits, until
from actorpool.errors import WorkerDied
from actorpool.workers import EchoWorker

MODEL_MB = 200
KILLS = 20
MANY = 100_000  # restarts tolerated: these are on purpose
_STAMP = struct.Struct("d")

tools = Tools(size=2, max_restarts=MANY)


def add(left: int, right: int) -> int:
    """The call that is measured: as little as possible."""
    return left + right


tool = tools(add)


@tools
def work(file: str) -> None:
    """Write down the time for as long as it runs."""
    with Clock(file) as clock:
        while True:
            clock.write()


@tools
def crash(file: str) -> None:
    """Write down the time, and die."""
    with Clock(file) as clock:
        clock.write()
        os.kill(os.getpid(), signal.SIGKILL)


class Clock:
    """A moment in a file, which one process writes and another reads."""

    def __init__(self, file: str) -> None:
        with open(file, "r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _STAMP.size)

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *error: object) -> None:
        self._memory.close()

    def write(self) -> None:
        """It is now."""
        _STAMP.pack_into(self._memory, 0, time.monotonic())

    def read(self) -> float:
        """When it was; 0.0: never."""
        return float(_STAMP.unpack_from(self._memory)[0])


@contextmanager
def _new_clock() -> Iterator[tuple[str, Clock]]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(_STAMP.size))
        file.flush()
        with Clock(file.name) as clock:
            yield file.name, clock


@contextmanager
def _loop() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """One loop for all turns, as an agent has it."""
    loop = asyncio.new_event_loop()
    try:
        yield loop.run_until_complete
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def thread() -> Iterator[Measure]:
    """Contender: what frameworks do with a synchronous tool."""
    with _loop() as run:
        yield lambda seconds: run(latency_of_awaits(lambda: asyncio.to_thread(add, 1, 2), seconds))


@contextmanager
def call() -> Iterator[Measure]:
    """Contender: the same function as a tool."""
    with tools, _loop() as run:
        yield lambda seconds: run(latency_of_awaits(lambda: tool(1, 2), seconds))


@contextmanager
def cancelled() -> Iterator[Measure]:
    """Contender: a task that awaits a tool is cancelled; the work goes on until it is interrupted."""
    with tools, _loop() as run:

        async def stop() -> float:
            with _new_clock() as (file, clock):
                task = asyncio.ensure_future(work(file))
                while not clock.read():
                    await asyncio.sleep(0.001)
                began = time.monotonic()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                last = 0.0
                while clock.read() != last:
                    last = clock.read()
                    await asyncio.sleep(0.05)
                return (last - began) * 1e3

        yield lambda seconds: {"stopped": max(run(stop()) for _ in range(5))}


@contextmanager
def crashed() -> Iterator[Measure]:
    """Contender: a tool dies in its call; the agent is told, and makes the next call."""
    with tools, _loop() as run:

        async def die() -> tuple[float, float]:
            with _new_clock() as (file, clock):
                try:
                    await crash(file)
                except WorkerDied:
                    told = time.monotonic()
                await tool(1, 2)
                return (told - clock.read()) * 1e3, (time.monotonic() - told) * 1e3

        def measure(seconds: float) -> Figures:
            told, following = zip(*(run(die()) for _ in range(KILLS)), strict=True)
            return {"told": median(told), "next": median(following)}

        yield measure


@contextmanager
def interpreter() -> Iterator[Measure]:
    """Contender: a conversation needs an interpreter, and no worker runs yet; until its first code has run."""
    with actorpool.start() as system:
        sessions = Sessions(PythonWorker, size=0, max_overflow=1)
        pool = sessions.start(system)

        def begin(key: int) -> tuple[float, float]:
            until(lambda: pool.status().total == 0)
            began = time.monotonic()
            with sessions(key) as lease:
                lease.run_python("1")
                return (time.monotonic() - began) * 1e3, _own_memory(lease.worker_pid)

        def measure(seconds: float) -> Figures:
            taken, sizes = zip(*map(begin, range(10)), strict=True)
            return {"ready": median(taken), "memory": median(sizes)}

        yield measure


MODEL = f"""
import random
weights = random.Random(1).randbytes({MODEL_MB} * 2**20)
"""


USE = """
def use(_):
    from bench_model import weights
    return len(weights)
"""  # in a module of its own: this one would be imported by each worker, with all that it imports


@contextmanager
def model(preload: bool) -> Iterator[Measure]:
    """Contender: four workers use a model of 200 MB, and then one more; loaded before them, or by each."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        Path(directory, "bench_model.py").write_text(MODEL)
        Path(directory, "bench_use.py").write_text(USE)
        sys.path.insert(0, directory)
        stack.callback(sys.path.remove, directory)
        use_model = importlib.import_module("bench_use").use
        system = stack.enter_context(actorpool.start())

        def measure(seconds: float) -> Figures:
            fields: dict[str, Any] = {"preload": ("bench_model",)} if preload else {}
            pool = system.start_pool("model", worker=EchoWorker, size=4, max_overflow=1, **fields)
            leases = [pool.checkout() for _ in range(4)]
            for lease in leases:
                lease.run(use_model)
            began = time.monotonic()
            leases.append(pool.checkout())
            leases[-1].run(use_model)
            another = (time.monotonic() - began) * 1e3
            sizes = [_own_memory(lease.worker_pid) for lease in leases]
            for lease in leases:
                lease.checkin()
            system.stop_pool("model")
            return {"memory": median(sizes), "another": another}

        yield measure


def _own_memory(pid: int) -> float:
    """Megabytes that a process shares with no other."""
    return float(psutil.Process(pid).memory_full_info().uss / 1e6)
