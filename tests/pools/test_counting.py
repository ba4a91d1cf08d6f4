"""A pool that is counted: exact sums at a statsd server, the slowest call among the timings, no word for each call."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import actorpool
from actorpool import StatsdSink, WorkerDied
from actorpool._protocol import requests
from actorpool.workers import EchoWorker
from tests.pools.conftest import StartPool
from tests.pools.test_sticky import halted, pid_of, pool_pid, slow

Eventually = Callable[..., Any]
BASES = ["multiprocTCPBase", "multiprocUDPBase", "simpleSystemBase"]


class Statsd:
    """A statsd server that adds up."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.port = server.getsockname()[1]
        self.sums: Counter[str] = Counter()
        self.timings: list[tuple[str, float]] = []
        self.said: Counter[str] = Counter()

    def read(self) -> Statsd:
        while True:
            try:
                lines = self._server.recv(65536).decode().split("\n")
            except BlockingIOError:
                return self
            for line in lines:
                name, _, value = line.removeprefix("actorpool.").partition(":")
                number, kind = value.split("|")[:2]
                if kind == "c":
                    self.sums[name] += int(number)
                    self.said[name] += 1
                elif kind == "ms":
                    self.timings.append((name, float(number)))

    def slowest(self, name: str) -> float:
        return max((value for known, value in self.read().timings if known == name), default=0.0)

    def three(self, pool: str) -> tuple[int, int, int]:
        """Checkouts, checkins and calls of a pool."""
        sums = self.read().sums
        return sums[f"{pool}.checkout"], sums[f"{pool}.checkin"], sums[f"{pool}.call.done"]


@pytest.fixture
def statsd() -> Iterator[Statsd]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        yield Statsd(server)


@contextmanager
def counted(statsd: Statsd, *more: Any, interval: float = 0.05, **fields: Any) -> Iterator[tuple[Any, Any]]:
    base = {"base": fields.pop("base")} if "base" in fields else {}
    sinks = [StatsdSink("127.0.0.1", statsd.port, interval=interval), *more]
    with actorpool.start(telemetry=sinks, log_level="CRITICAL", **base) as system:
        yield system, system.start_pool("db", worker=EchoWorker, **{"size": 1, "max_overflow": 0, **fields})


def test_a_caller_goes_on_without_a_pool_that_is_counted(statsd: Statsd, eventually: Eventually) -> None:
    with counted(statsd) as (system, pool):
        worker = pool.run(pid_of)
        with halted(pool_pid(system, "db")):
            assert {pool.run(pid_of) for _ in range(500)} == {worker}
        eventually(lambda: statsd.three("db") == (501, 501, 501))
        assert statsd.said["db.call.done"] < 50, "it was told call by call"


def test_sums_are_exact_when_workers_are_killed_in_between(statsd: Statsd, eventually: Eventually) -> None:
    with counted(statsd, size=2, interval=0.2) as (_, pool):
        calls = 0
        for _ in range(3):
            for _ in range(40):
                worker = pool.run(pid_of)
                calls += 1
            with pool.checkout() as lease:
                calls += sum(lease.echo(number) == number for number in range(5))
            os.kill(worker, signal.SIGKILL)
            eventually(lambda gone=worker: gone not in [each.pid for each in pool.workers()])
        eventually(lambda: statsd.three("db")[2] == calls)
        status = pool.status()
        assert statsd.three("db") == (status.checkouts, status.checkins, calls)


def test_what_a_call_that_kills_its_worker_did_is_no_call_that_is_done(statsd: Statsd, eventually: Eventually) -> None:
    with counted(statsd) as (_, pool):
        for _ in range(10):
            pool.echo(1)
        with pytest.raises(WorkerDied):
            pool.run(lambda _: os._exit(1))
        eventually(lambda: statsd.three("db") == (11, 10, 10))


def test_what_was_counted_last_is_told_when_the_pool_stops(statsd: Statsd, eventually: Eventually) -> None:
    with counted(statsd, interval=3600.0) as (system, pool):
        for _ in range(30):
            pool.echo(1)
        system.stop_pool("db")
        eventually(lambda: statsd.three("db") == (30, 30, 30))


def test_the_slowest_call_of_an_interval_is_among_its_timings(statsd: Statsd, eventually: Eventually) -> None:
    with counted(statsd, interval=1.0) as (_, pool):
        pool.run(slow, 0.15)
        for _ in range(300):  # more than are remembered one by one
            pool.echo(1)
        with pool.checkout() as lease:
            lease.run(slow, 0.25)
        eventually(lambda: statsd.three("db") == (302, 302, 302))
        assert max(value for name, value in statsd.timings if name == "db.hold_time") >= 150
        assert statsd.slowest("db.call.done_time") >= 250


@pytest.mark.parametrize("base", BASES)
@pytest.mark.slow
def test_calls_are_counted_whether_or_not_memory_is_shared(statsd: Statsd, eventually: Eventually, base: str) -> None:
    with counted(statsd, base=base) as (_, pool):
        for number in range(20):
            assert pool.echo(number) == number
        eventually(lambda: statsd.three("db") == (20, 20, 20))
        assert statsd.slowest("db.call.done_time") > 0
        time.sleep(0.2)
        assert statsd.three("db") == (20, 20, 20), "some were told twice"


def test_a_listener_beside_hears_every_call_and_the_sums_stay_exact(
    statsd: Statsd, eventually: Eventually, tmp_path: Any, monkeypatch: Any
) -> None:
    heard = tmp_path / "events"
    monkeypatch.setenv("ACCEPTANCE_EVENTS", str(heard))
    with counted(statsd, "tests.acceptance.test_telemetry:keep") as (_, pool):
        for _ in range(20):
            pool.echo(1)
        eventually(lambda: heard.read_text().count('"call.done"') == 20)
        eventually(lambda: statsd.three("db") == (20, 20, 20))


def test_histograms_have_every_use_once(node: actorpool.System, start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    for number in range(100):
        pool.echo(number)
    with pool.checkout() as lease:
        lease.run(slow, 0.3)
    waits, holds = pool._ask(requests.Histograms())
    status = pool.status()
    assert sum(waits.counts) == status.checkouts == 101
    assert sum(holds.counts) == status.checkins == 101
    assert len(holds.counts) == len(holds.bounds) + 1
    assert sum(holds.counts[holds.bounds.index(0.25) + 1 :]) >= 1
    assert holds.sum >= 0.3
