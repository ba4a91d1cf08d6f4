"""The others: process pools that Python users have at hand, and Thespian by itself. Four workers each, forked."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from operator import add

from thespian.actors import Actor, ActorSystem

from actorpool.benchmarks.meter import Measure, latency

WORKERS = 4


@contextmanager
def multiprocessing_pool() -> Iterator[Measure]:
    """Contender: `multiprocessing.Pool.apply`."""
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        yield lambda seconds: latency(lambda: pool.apply(add, (1, 2)), seconds)


@contextmanager
def executor() -> Iterator[Measure]:
    """Contender: `ProcessPoolExecutor.submit(...).result()`."""
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork")) as pool:
        yield lambda seconds: latency(lambda: pool.submit(add, 1, 2).result(), seconds)


@contextmanager
def pebble() -> Iterator[Measure]:
    """Contender: `pebble.ProcessPool.schedule(...).result()`."""
    from pebble import ProcessPool

    with ProcessPool(WORKERS, context=multiprocessing.get_context("fork")) as pool:
        yield lambda seconds: latency(lambda: pool.schedule(add, args=(1, 2)).result(), seconds)


@contextmanager
def loky() -> Iterator[Measure]:
    """Contender: loky's reusable executor."""
    from loky import get_reusable_executor

    pool = get_reusable_executor(WORKERS)
    try:
        yield lambda seconds: latency(lambda: pool.submit(add, 1, 2).result(), seconds)
    finally:
        pool.shutdown(wait=True, kill_workers=True)


class Adder(Actor):  # type: ignore[misc]
    """Adds what it is sent."""

    def receiveMessage(self, message: object, sender: object) -> None:  # noqa: N802
        if isinstance(message, tuple):
            self.send(sender, add(*message))


@contextmanager
def thespian_ask() -> Iterator[Measure]:
    """Contender: one raw `ask` of an actor, on Thespian's own TCP base."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    system = ActorSystem("multiprocTCPBase", {"Admin Port": port}, logDefs={"version": 1})
    try:
        adder = system.createActor(Adder)

        def call() -> None:
            if system.ask(adder, (1, 2), 10) != 3:
                raise RuntimeError("no answer from the actor")

        yield lambda seconds: latency(call, seconds)
    finally:
        system.shutdown()
