"""Executors: what many small calls cost, and what a worker's death does, beside the standard library's pools."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import actorpool
from actorpool.benchmarks.meter import Figures, Measure
from actorpool.workers import EchoWorker

WORKERS = 4
CALLS = 10_000
ROWS, CHUNK = 100_000, 100


def nothing(*_: object) -> None:
    """The call that is measured."""


def _rate(burst: Callable[[], int], seconds: float) -> Figures:
    """Calls a second, in as many whole bursts as fit, and one at least."""
    done, began = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - began < seconds:
        done += burst()
    return {"rate": done / (time.perf_counter() - began)}


def _submitted(submit: Callable[..., Future[Any]]) -> Measure:
    def burst() -> int:
        for future in [submit(nothing) for _ in range(CALLS)]:
            future.result()
        return CALLS

    burst()
    return lambda seconds: _rate(burst, seconds)


@contextmanager
def submit() -> Iterator[Measure]:
    """Contender: `Executor.submit`."""
    with actorpool.Executor(WORKERS) as executor:
        yield _submitted(executor.submit)


@contextmanager
def pool_submit() -> Iterator[Measure]:
    """Contender: `Pool.submit`, each call under a lease of its own."""
    with actorpool.start() as system:
        yield _submitted(system.start_pool("bench", worker=EchoWorker, size=WORKERS, max_overflow=0).submit)


@contextmanager
def standard_submit() -> Iterator[Measure]:
    """Contender: `ProcessPoolExecutor.submit`."""
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork")) as executor:
        yield _submitted(executor.submit)


def _mapped(rows: Callable[[], Any]) -> Measure:
    def burst() -> int:
        if sum(rows()) != sum(range(ROWS)):
            raise RuntimeError("the sum is wrong")
        return ROWS

    burst()
    return lambda seconds: _rate(burst, seconds)


@contextmanager
def chunks() -> Iterator[Measure]:
    """Contender: `Executor.map` in chunks."""
    with actorpool.Executor(WORKERS) as executor:
        yield _mapped(lambda: executor.map(abs, range(ROWS), chunksize=CHUNK))


@contextmanager
def standard_chunks() -> Iterator[Measure]:
    """Contender: `multiprocessing.Pool.map` in the same chunks."""
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        yield _mapped(lambda: pool.map(abs, range(ROWS), chunksize=CHUNK))


@contextmanager
def killed() -> Iterator[Measure]:
    """Contender: futures that fail when a worker is killed among many."""

    def measure(_seconds: float) -> Figures:
        with actorpool.Executor(WORKERS) as executor:
            pid = executor.submit(os.getpid).result()
            futures = [executor.submit(nothing) for _ in range(CALLS)]
            futures[CALLS // 4].result()
            os.kill(pid, signal.SIGKILL)
            return {"lost": float(sum(future.exception() is not None for future in futures))}

    yield measure
