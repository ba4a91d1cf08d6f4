"""actorpool's own rows. Each contender has a node of its own, so that no row profits from another's warm caches."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

import actorpool
from actorpool.benchmarks.caller import Callers
from actorpool.benchmarks.calls import add
from actorpool.benchmarks.meter import Figures, Measure, latency, pss, threads
from actorpool.messages import WithConnection
from actorpool.workers import EchoWorker

WORKERS = 4


@contextmanager
def _pool(
    spin: bool = True, size: int = WORKERS, telemetry: Any = None, metrics_interval: float = 10.0, **fields: Any
) -> Iterator[tuple[Any, Any]]:
    with actorpool.start(spin=spin, telemetry=telemetry, metrics_interval=metrics_interval) as system:
        # No health checks: an idle pool is to cost the other rows nothing.
        settings = {"worker": EchoWorker, "size": size, "max_overflow": 0, "health_interval": None, **fields}
        yield system, system.start_pool("bench", **settings)


@contextmanager
def run(spin: bool = True, **fields: Any) -> Iterator[Measure]:
    """Contender: checkout, call and checkin in one, one caller."""
    with _pool(spin, **fields) as (_, pool):
        yield lambda seconds: latency(lambda: pool.run(add, 1, 2), seconds)


@contextmanager
def counted() -> Iterator[Measure]:
    """Contender: `run` on a node whose telemetry is sent to a statsd server, as which a socket stands in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        with run(telemetry=actorpool.StatsdSink("127.0.0.1", server.getsockname()[1])) as measure:
            yield measure


@contextmanager
def watched() -> Iterator[Measure]:
    """Contender: `run` on a node that keeps and tells all there is, and takes its samples each second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        sink = actorpool.StatsdSink("127.0.0.1", server.getsockname()[1])
        with _pool(telemetry=sink, metrics_interval=1.0) as (_, pool):
            yield lambda seconds: latency(lambda: pool.run(add, 1, 2), seconds)


@contextmanager
def unwatched() -> Iterator[Measure]:
    """Contender: `run` where nothing is done for who watches; see `benchmarks.unwatched`."""
    os.environ["ACTORPOOL_BENCHMARK"] = "unwatched"
    worker = "actorpool.benchmarks.unwatched:UnwatchedWorker"
    with _pool(metrics_interval=3600.0, worker=worker) as (_, pool):
        yield lambda seconds: latency(lambda: pool.run(add, 1, 2), seconds)


@contextmanager
def lease(spin: bool = True) -> Iterator[Measure]:
    """Contender: a call inside a lease."""
    with _pool(spin) as (_, pool), pool.checkout() as held:
        yield lambda seconds: latency(lambda: held.run(add, 1, 2), seconds)


@contextmanager
def callers(number: int, spin: bool = True) -> Iterator[Measure]:
    """Contender: that many caller processes; calls a second, and CPU of all processes for each call."""
    with _pool(spin) as (system, pool):
        group = Callers(pool, number)
        node = _processes(system.tree())

        def measure(seconds: float) -> Figures:
            before = _cpu(node)
            calls, cpu = group.turn(seconds)
            return {"rate": calls / seconds, "cpu": (cpu + _cpu(node) - before) / max(calls, 1) * 1e6}

        try:
            yield measure
        finally:
            group.close()


@contextmanager
def many_threads(number: int, spin: bool = True) -> Iterator[Measure]:
    """Contender: that many threads of one process."""
    with _pool(spin) as (_, pool):
        yield lambda seconds: threads(lambda: pool.run(add, 1, 2), number, seconds)


@contextmanager
def tasks(number: int, spin: bool = True) -> Iterator[Measure]:
    """Contender: that many asyncio tasks on one loop."""
    with _pool(spin) as (_, pool):
        yield lambda seconds: asyncio.run(_tasks_turn(lambda: pool.aio.run(add, 1, 2), number, seconds))


async def _tasks_turn(call: Callable[[], Awaitable[object]], number: int, seconds: float) -> Figures:
    async def caller() -> int:
        calls = 0
        while time.perf_counter() < end:
            await call()
            calls += 1
        return calls

    await call()
    end = time.perf_counter() + seconds
    return {"rate": sum(await asyncio.gather(*(caller() for _ in range(number)))) / seconds}


@contextmanager
def lease_method() -> Iterator[Measure]:
    """Contender: a method of the worker called inside a lease, as in a shared pool."""
    with _pool() as (_, pool), pool.checkout() as held:
        yield lambda seconds: latency(lambda: held.call("echo", 1), seconds)


@contextmanager
def _shared() -> Iterator[Any]:
    with actorpool.start() as system:
        pool = system.start_shared_pool("bench")
        pool.add(EchoWorker, resource="echo")
        yield pool


@contextmanager
def shared_one() -> Iterator[Measure]:
    """Contender: one caller on one shared connection."""
    with _shared() as pool:
        yield lambda seconds: latency(lambda: pool.call("echo", "echo", 1), seconds)


@contextmanager
def shared_threads(number: int) -> Iterator[Measure]:
    """Contender: that many threads of one process on one shared connection."""
    with _shared() as pool:
        yield lambda seconds: threads(lambda: pool.call("echo", "echo", 1), number, seconds)


@contextmanager
def shared_tasks(number: int) -> Iterator[Measure]:
    """Contender: that many asyncio tasks of one loop on one shared connection."""
    with _shared() as pool:
        yield lambda seconds: asyncio.run(_tasks_turn(lambda: pool.aio.call("echo", "echo", 1), number, seconds))


@contextmanager
def message() -> Iterator[Measure]:
    """Contender: `ask(manager, WithConnection(...))`, no client of ours."""
    with _pool() as (system, _):
        ask, manager = system.actor_system.ask, system.manager

        def call() -> None:
            answer = ask(manager, WithConnection("bench", add, (1, 2)), 10)
            if answer is None or answer.unwrap() != 3:
                raise RuntimeError(f"no answer from the manager: {answer!r}")

        yield lambda seconds: latency(call, seconds)


@contextmanager
def checkout(size: int) -> Iterator[Measure]:
    """Contender: checkout and checkin with that many idle workers."""
    with _pool(size=size) as (_, pool):

        def call() -> None:
            with pool.checkout():
                pass

        latency(call, 1.5)  # the processes that were just started come to rest
        yield lambda seconds: latency(call, seconds)


@contextmanager
def start_pool(size: int) -> Iterator[Measure]:
    """Contender: `start_pool` with that many workers, and the memory of an idle one."""
    with actorpool.start() as system:

        def measure(seconds: float) -> Figures:
            begun = time.perf_counter()
            pool = system.start_pool("bench", worker=EchoWorker, size=size)
            taken = time.perf_counter() - begun
            sizes = [pss(worker.pid) for worker in pool.workers() if worker.pid]
            system.stop_pool("bench")
            return {"ms": taken * 1e3, "pss": sum(sizes) / len(sizes)}

        yield measure


def _processes(tree: Any) -> list[psutil.Process]:
    found = [psutil.Process(tree.pid)] if tree.pid and tree.pid != os.getpid() else []
    for child in tree.children:
        found += _processes(child)
    return found


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)
