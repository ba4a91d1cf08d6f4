"""Stopping pools whose callers do not let go, or are not there to hear of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

import actorpool
from actorpool import Checkout, ListPools, WithConnection
from actorpool.workers import EchoWorker
from tests.pools.conftest import StartPool

SPAWN = multiprocessing.get_context("spawn")


def ask_and_halt(name: str, requests: list[Any]) -> None:
    """In a process of its own: ask for all that, and read nothing ever after."""
    system = actorpool.connect(name)
    for request in requests:
        system.actor_system.tell(system.manager, request)
    os.kill(os.getpid(), signal.SIGSTOP)


@contextmanager
def halted(node: actorpool.System, requests: list[Any], eventually: Callable[..., Any]) -> Iterator[None]:
    """A caller that has asked for all that and was halted by its user."""
    process = SPAWN.Process(target=ask_and_halt, args=(node.name, requests))
    process.start()
    try:
        eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, timeout=20)
        yield
    finally:
        process.kill()
        process.join()
        process.close()


@pytest.mark.parametrize("waiting", [1, 40])
def test_a_pool_stops_in_time_though_its_waiters_do_not_read(
    node: actorpool.System, start: StartPool, eventually: Callable[..., Any], waiting: int
) -> None:
    pool = start(EchoWorker, size=1)
    requests = [Checkout(pool.name, timeout=60.0) for _ in range(waiting)]
    with pool.checkout(), halted(node, requests, eventually):
        eventually(lambda: pool.status().waiting == waiting)
        began = time.monotonic()
        node.stop_pool(pool.name, timeout=0.1)
        assert time.monotonic() - began < 2.0


def test_a_caller_that_does_not_read_keeps_nobody_else_from_being_answered(
    node: actorpool.System, start: StartPool, eventually: Callable[..., Any]
) -> None:
    pool = start(EchoWorker, size=1)
    calls = [WithConnection(pool.name, EchoWorker.echo, (number,), timeout=60.0) for number in range(40)]
    with halted(node, [ListPools() for _ in range(40)] + calls, eventually):
        eventually(lambda: pool.status().checkouts >= 40)
        began = time.monotonic()
        assert node.actor_system.ask(node.manager, ListPools(), 5).unwrap()
        call = WithConnection(pool.name, EchoWorker.echo, ("mine",))
        assert node.actor_system.ask(node.manager, call, 5).unwrap() == "mine"
        assert time.monotonic() - began < 2.0


def test_a_pool_that_is_stopped_again_under_the_same_name_gets_all_the_time_it_is_given(
    node: actorpool.System, start: StartPool
) -> None:
    first = start(EchoWorker, size=1, kill_after=0.1)
    node.stop_pool(first.name, timeout=0.0)  # one second later it would have been ended in any case
    began = time.monotonic()
    pool = node.start_pool(first.name, worker=EchoWorker, size=1)
    lease = pool.checkout()
    stopping = threading.Thread(target=node.stop_pool, args=(pool.name, 30.0))
    stopping.start()
    assert lease.sleep(1.5, "finished") == "finished"
    lease.checkin()
    stopping.join(5.0)
    assert not stopping.is_alive()
    assert time.monotonic() - began < 5.0
