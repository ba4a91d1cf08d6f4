"""`Pool.submit` and `Pool.map`: as `run`, for as many calls as one likes, with one thread for all of them."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import CallTimeout, LocalPool, PoolConfig, PoolNotFound, WorkerDied
from actorpool.testing import sandbox
from actorpool.workers import EchoWorker, SqliteWorker
from tests.executor import jobs

Start = Callable[..., actorpool.Pool]


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start() as system:
        yield system


@pytest.fixture
def start(node: actorpool.System) -> Iterator[Start]:
    """Start a pool in the module's node; it is stopped after the test."""
    started: list[str] = []

    def starter(worker: Any = EchoWorker, **fields: Any) -> actorpool.Pool:
        started.append(f"p{time.monotonic_ns()}")
        pool = node.start_pool(started[-1], worker=worker, **{"size": 2, "max_overflow": 0, **fields})
        assert isinstance(pool, actorpool.Pool)
        return pool

    yield starter
    for name in started:
        if name in node.pools():
            node.stop_pool(name, timeout=0.5)


def times(connection: EchoWorker, a: int, b: int = 2) -> int:
    assert isinstance(connection, EchoWorker)
    return a * b


def hold(connection: Any, path: str, line: Any, seconds: float = 0.0) -> Any:
    return jobs.note_then_sleep(path, line, seconds)


def test_a_function_gets_the_connection_first(start: Start) -> None:
    pool = start()
    assert pool.submit(times, 21).result(30) == 42
    assert pool.submit(times, 21, b=3).result(30) == 63
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda connection: 1 / 0).result(30)


def test_a_future_waits_for_a_worker_without_a_limit(start: Start) -> None:
    pool = start(size=1, checkout_timeout=0.05, max_waiting=0)
    with pool.checkout():
        futures = [pool.submit(times, n) for n in range(5)]
        time.sleep(0.4)
        assert not any(future.done() or future.running() for future in futures)
    assert [future.result(30) for future in futures] == [0, 2, 4, 6, 8]


def test_a_future_can_be_cancelled_until_it_begins(start: Start, tmp_path: Path) -> None:
    pool, log = start(size=1), str(tmp_path / "log")
    futures = [pool.submit(hold, log, n, 0.3) for n in range(4)]
    jobs.wait_for(log)
    assert futures[0].running()
    assert [future.cancel() for future in futures] == [False, True, True, True]
    assert pool.submit(hold, log, 4).result(30) == 4
    assert jobs.noted(log) == ["0", "4"]


@pytest.mark.slow
def test_ten_thousand_futures_need_one_thread_and_few_places_in_the_queue(start: Start) -> None:
    pool = start()
    pool.submit(times, 1).result(30)
    before = threading.active_count()
    futures = [pool.submit(times, n) for n in range(10_000)]
    assert threading.active_count() <= before
    assert pool.status().waiting <= 8
    assert [future.result(60) for future in futures] == [2 * n for n in range(10_000)]


def test_other_callers_are_served_meanwhile(start: Start) -> None:
    pool = start(size=1)
    futures = [pool.submit(lambda connection: time.sleep(0.01)) for _ in range(300)]
    assert pool.echo(5) == 5
    assert sum(future.done() for future in futures) < 100
    for future in futures:
        future.cancel()


def test_a_death_costs_one_future(start: Start, tmp_path: Path) -> None:
    pool, log = start(), str(tmp_path / "log")
    futures = [pool.submit(hold, log, n) for n in range(50)]
    futures.insert(25, pool.submit(lambda connection: os._exit(1)))
    assert isinstance(futures.pop(25).exception(30), WorkerDied)
    assert [future.result(30) for future in futures] == list(range(50))
    assert Counter(jobs.noted(log)) == Counter(map(str, range(50)))


@pytest.mark.slow
def test_the_pools_call_timeout_counts_from_the_beginning_of_the_call(start: Start) -> None:
    pool = start(size=1, call_timeout=0.5)
    futures = [pool.submit(lambda connection: time.sleep(0.2)) for _ in range(5)]
    slow = pool.submit(lambda connection: time.sleep(30))
    assert [future.result(30) for future in futures] == [None] * 5
    with pytest.raises(CallTimeout):
        slow.result(30)


def test_futures_of_a_pool_that_stops_say_so(start: Start, node: actorpool.System) -> None:
    pool = start(size=1)
    futures = [pool.submit(lambda connection: time.sleep(0.5)) for _ in range(4)]
    time.sleep(0.1)
    node.stop_pool(pool.name)
    assert all(isinstance(future.exception(30), actorpool.ActorPoolError) for future in futures[1:])
    assert isinstance(pool.submit(times, 1).exception(30), PoolNotFound)


def test_map_gives_results_in_order_and_takes_its_arguments_at_once(start: Start) -> None:
    pool = start()
    values = iter(range(20))
    results = pool.map(times, values, [3] * 15)
    assert next(values) == 16  # one was taken before the shorter one ended
    assert list(results) == [3 * n for n in range(15)]
    assert list(pool.map(times, range(100), chunksize=7)) == [2 * n for n in range(100)]
    assert list(pool.map(times, range(10), range(9), chunksize=4)) == [n * n for n in range(9)]
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(times, [1], chunksize=0)


def test_map_has_until_its_timeout(start: Start) -> None:
    pool = start()
    results = pool.map(lambda connection, seconds: time.sleep(seconds), [0, 0, 30], timeout=1.0)
    assert [next(results), next(results)] == [None, None]
    with pytest.raises(concurrent.futures.TimeoutError):  # the built-in one since Python 3.11
        next(results)


@pytest.mark.parametrize("end", ["close", "drop", "error"])
def test_an_iterator_that_ends_early_cancels_what_has_not_begun(end: str, start: Start, tmp_path: Path) -> None:
    pool, log = start(size=1), str(tmp_path / "log")
    results: Any = pool.map(lambda connection, n: jobs.note_then_sleep(log, n, 0.1) // (n - 1), range(50))
    if end == "close":
        results.close()
    elif end == "drop":
        del results
    else:
        with pytest.raises(ZeroDivisionError):
            list(results)
    assert pool.submit(times, 1).result(30) == 2
    assert len(jobs.noted(log)) <= 4


def test_inside_a_sandbox_it_is_the_sandboxs(start: Start, tmp_path: Path) -> None:
    database = str(tmp_path / "app.db")
    pool = start(SqliteWorker, worker_args={"database": database})
    pool.execute("create table t (x int)")

    def insert(connection: sqlite3.Connection, value: int) -> int:
        connection.execute("insert into t values (?)", (value,))
        return value

    with sandbox(pool):
        assert list(pool.map(insert, range(5))) == list(range(5))
        assert pool.execute("select count(*) from t").scalar() == 5
    assert pool.execute("select count(*) from t").scalar() == 0
    assert pool.submit(insert, 7).result(30) == 7
    assert pool.execute("select count(*) from t").scalar() == 1


def test_a_forked_child_has_futures_of_its_own(start: Start) -> None:
    pool = start()
    mine = [pool.submit(lambda connection: time.sleep(0.05)) for _ in range(10)]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(40)
            code = 0 if list(pool.map(times, range(20))) == [2 * n for n in range(20)] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(wait(mine, 30).done) == 10


def test_a_local_pool_has_them_too() -> None:
    with LocalPool(PoolConfig(worker=EchoWorker)) as pool:
        before = threading.active_count()
        assert list(pool.map(times, range(200))) == [2 * n for n in range(200)]
        assert threading.active_count() - before <= 40


@pytest.mark.parametrize("base", [pytest.param("multiprocUDPBase", marks=pytest.mark.slow), "simpleSystemBase"])
def test_other_bases_have_them_too(base: str) -> None:
    with actorpool.start(base=base) as system:
        pool = system.start_pool("p", worker=EchoWorker, size=2, max_overflow=0)
        assert list(pool.map(times, range(10))) == [2 * n for n in range(10)]
        with actorpool.Executor(2, system=system) as executor:
            assert list(executor.map(pow, range(20), range(20))) == [n**n for n in range(20)]
