"""The client against a real system under load: who is served first, large values, and nobody who starves."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import psutil
import pytest

import actorpool
from actorpool import Pool, System
from actorpool._protocol.requests import Status
from actorpool.errors import MessageTooBig
from actorpool.messages import WhereIs
from actorpool.transport import client as lines
from actorpool.workers import EchoWorker
from tests.client.standin import add

Eventually = Callable[..., Any]
MB = 2**20


@pytest.fixture(scope="module")
def node() -> Iterator[System]:
    with actorpool.start() as system:
        yield system


@pytest.fixture
def pool(node: System) -> Iterator[Pool]:
    yield node.start_pool("db", worker=EchoWorker, size=2, max_overflow=0)
    node.stop_pool("db")


def clock(_connection: object) -> float:
    return time.monotonic()


def _call_on(pool: Pool, over: Any) -> None:
    while not over.is_set():
        pool.run(add, 1, 2)


def _growth(pool: Pool, size: int) -> tuple[int, int]:
    """By how many bytes a worker and its caller have grown after a value of that size went both ways."""
    value = os.urandom(MB) * (size // MB)
    with pool.checkout() as lease:
        lease.echo(b"x" * MB)
        processes = psutil.Process(lease.worker_pid), psutil.Process()
        before = [process.memory_info().rss for process in processes]
        assert lease.echo(value) == value
        assert lease.echo(1) == 1
        worker, caller = (process.memory_info().rss - was for process, was in zip(processes, before, strict=True))
    return worker, caller


@pytest.fixture
def loaded(pool: Pool) -> Iterator[Pool]:
    """The pool with four processes that call it as fast as they can."""
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    callers = [context.Process(target=_call_on, args=(pool, over)) for _ in range(4)]
    for caller in callers:
        caller.start()
    before = pool.status().checkouts
    deadline = time.monotonic() + 20
    while pool.status().checkouts < before + 1000 and time.monotonic() < deadline:
        time.sleep(0.01)
    yield pool
    over.set()
    for caller in callers:
        caller.join()


def test_a_waiter_is_served_before_a_newcomer_however_quick_that_is(node: System, eventually: Eventually) -> None:
    pool = node.start_pool("one", worker=EchoWorker, size=1, max_overflow=0)
    for _ in range(30):
        lease = pool.checkout()
        served: list[float] = []  # when each was served, by the clock of the worker
        waiter = threading.Thread(target=lambda served=served: served.append(pool.run(clock)))
        waiter.start()
        eventually(lambda: pool.status().waiting == 1)
        lease.checkin()
        newcomer = pool.checkout()  # right behind the checkin, on the same connection
        came = newcomer.run(clock)
        newcomer.checkin()
        waiter.join()
        assert served[0] < came
    node.stop_pool("one")


def test_every_caller_gets_his_share(loaded: Pool) -> None:
    waits = []
    for _ in range(50):
        began = time.perf_counter()
        loaded.echo(1)
        waits.append(time.perf_counter() - began)
    assert max(waits) < 1.0


@pytest.mark.slow
def test_a_busy_channel_starves_no_message(node: System, loaded: Pool) -> None:
    address = node.actor_system.ask(node.manager, WhereIs("db"), 10).unwrap()
    by_channel, by_message = [], []
    for _ in range(100):
        began = time.perf_counter()
        loaded.status()
        by_channel.append(time.perf_counter() - began)
        began = time.perf_counter()
        node.actor_system.ask(address, Status(), 10).unwrap()
        by_message.append(time.perf_counter() - began)
    by_channel.sort()
    by_message.sort()
    print(f"status under full load: channel {by_channel[50] * 1e3:.1f} ms, message {by_message[50] * 1e3:.1f} ms")
    assert by_channel[50] < 0.02  # medians: the machine may have more to do than this
    assert by_message[50] < 0.02


@pytest.mark.parametrize("size", [16 * MB, pytest.param(256 * MB, marks=pytest.mark.slow)])
def test_a_long_value_crosses_intact_and_its_memory_is_given_back(pool: Pool, size: int) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:  # here, the allocator has a past
        worker, caller = fresh.submit(_growth, pool, size).result()
    assert worker < size / 4
    assert caller < size / 4


@pytest.mark.slow
def test_a_long_result_does_not_delay_another_callers_small_call(pool: Pool) -> None:
    value = os.urandom(MB) * 256

    def slowest_small_call(meanwhile: Callable[[], Any]) -> float:
        with pool.checkout() as lease:
            context = multiprocessing.get_context("spawn")
            caller = context.Process(target=meanwhile)
            caller.start()
            times = []
            while caller.is_alive():
                began = time.perf_counter()
                lease.echo(1)
                times.append(time.perf_counter() - began)
                time.sleep(0.001)
            caller.join()
        return sorted(times)[int(len(times) * 0.99)]

    print(f"99 of 100 small calls took less than {slowest_small_call(_Caller(pool, value)) * 1e3:.1f} ms")
    assert slowest_small_call(_Caller(pool, value)) < 0.1


class _Caller:
    """Calls with a long value from a process of its own."""

    def __init__(self, pool: Pool, value: bytes) -> None:
        self.pool, self.size = pool, len(value)

    def __call__(self) -> None:
        value = b"x" * self.size
        for _ in range(3):
            assert len(self.pool.echo(value)) == self.size


def test_a_result_beyond_the_limit_is_an_error_of_that_call_only() -> None:
    with actorpool.start(max_message=MB) as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1)
        with pool.checkout() as lease:
            with pytest.raises(MessageTooBig, match="max_message"):
                lease.run(_make, 2 * MB)
            with pytest.raises(MessageTooBig, match="max_message"):
                lease.echo(b"x" * 2 * MB)
            assert lease.echo("fine") == "fine"


def _make(_connection: Any, size: int) -> bytes:
    return b"x" * size


def test_without_the_spin_everything_is_the_same() -> None:
    with actorpool.start(spin=False) as system:
        pool = system.start_pool("db", worker=EchoWorker, size=2)
        assert pool.name == "db"
        assert pool._transport.endpoint.seconds == 0.0  # type: ignore[attr-defined]
        assert [pool.run(add, n, 1) for n in range(20)] == list(range(1, 21))
        assert asyncio.run(_several(pool)) == list(range(100))


async def _several(pool: Pool) -> list[int]:
    return await asyncio.gather(*[pool.aio.echo(n) for n in range(100)])


def test_more_workers_than_kept_lines_are_reached_all_the_same(node: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_PATHS", 3)
    pool = node.start_pool("many", worker=EchoWorker, size=6, max_overflow=0, strategy="fifo")
    assert len({pool.pid() for _ in range(30)}) == 6
    leases = [pool.checkout() for _ in range(6)]
    assert [lease.echo(lease.id) for lease in leases] == [lease.id for lease in leases]
    for lease in leases:
        lease.checkin()
    node.stop_pool("many")
