"""`ScriptedWorker`: answers by a script, in whatever process, and tells what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import actorpool
from actorpool import LocalPool, PoolConfig
from actorpool.errors import PermanentError, WorkerUnavailable
from actorpool.testing import ScriptedWorker, assert_drained

StartPool = Callable[..., Any]


class OutOfStock(Exception):
    pass


@pytest.fixture
def scripted(start: StartPool) -> StartPool:
    """Start a pool of one worker with a script."""
    return lambda *script, **fields: start(ScriptedWorker, worker_args={"script": script}, size=1, **fields)


def test_calls_of_any_method_are_answered_in_order(scripted: StartPool) -> None:
    pool = scripted(1, "two", None)
    assert pool.get("/a") == 1
    assert pool.call("post", "/b", body=b"x") == "two"
    assert pool.anything() is None
    assert assert_drained(pool) == [("get", ("/a",), {}), ("post", ("/b",), {"body": b"x"}), ("anything", (), {})]


def test_an_exception_in_the_script_is_raised(scripted: StartPool) -> None:
    pool = scripted(OutOfStock("nails"), ConnectionRefusedError, KeyError)
    with pytest.raises(OutOfStock, match="nails"):
        pool.order("nails")
    pool = scripted(KeyError, 1)
    with pytest.raises(KeyError):
        pool.order("nails")
    assert pool.order("nails") == 1


def test_a_function_in_the_script_gets_the_calls_arguments(scripted: StartPool) -> None:
    factor = 3
    pool = scripted(lambda x, by=factor: x * by, OutOfStock)
    assert pool.times(2) == 6
    with pytest.raises(OutOfStock):
        pool.times(2)


def test_run_gives_the_function_something_to_call(scripted: StartPool) -> None:
    pool = scripted([(1, "a"), (2, "b")], 2)

    def report(conn: Any) -> str:
        rows = conn.query("SELECT * FROM t")
        return f"{len(rows)} rows, {conn.count()} counted"

    assert pool.run(report) == "2 rows, 2 counted"
    assert assert_drained(pool) == [("query", ("SELECT * FROM t",), {}), ("count", (), {})]


def test_a_lease_goes_by_the_same_script(scripted: StartPool) -> None:
    pool = scripted(1, 2)
    with pool.checkout() as lease:
        assert (lease.first(), lease.second()) == (1, 2)
    assert_drained(pool)


def test_answers_that_are_left_are_told(scripted: StartPool) -> None:
    pool = scripted(1, 2, 3)
    pool.get()
    with pytest.raises(AssertionError, match=r"answers are left .*: 2}.*'get'"):
        assert_drained(pool)


def test_a_call_beyond_the_end_fails_and_is_told(scripted: StartPool) -> None:
    pool = scripted(1)
    pool.get()
    with pytest.raises(AssertionError, match=r"at its end after 1 answers, and has none for get\('/more', page=2\)"):
        pool.get("/more", page=2)
    with pytest.raises(AssertionError, match=r"beyond the script's end: get\('/more', page=2\)"):
        assert_drained(pool)


@pytest.mark.slow
def test_a_busy_worker_cannot_be_asked(scripted: StartPool) -> None:
    pool = scripted(1)
    pool.get()
    with pool.checkout() as lease, pytest.raises(AssertionError, match="busy"):

        async def ask_while_it_runs() -> None:
            asleep = asyncio.create_task(asyncio.to_thread(lease.run, lambda conn: __import__("time").sleep(2)))
            await asyncio.sleep(0.1)
            try:
                await asyncio.to_thread(assert_drained, pool)
            finally:
                await asleep

        asyncio.run(ask_while_it_runs())


def test_each_worker_has_a_script_of_its_own(start: StartPool) -> None:
    pool = start(ScriptedWorker, worker_args={"script": ["once"]}, size=2)
    with pool.checkout() as one, pool.checkout() as two:
        assert (one.get(), two.get()) == ("once", "once")
    assert assert_drained(pool) == [("get", (), {})] * 2


def test_connecting_goes_by_a_script_too(scripted: StartPool, start: StartPool, eventually: Any) -> None:
    refusals = [ConnectionRefusedError("away"), OSError("still away")]
    args = {"opens": [*refusals, "fine"], "script": [1]}
    pool = start(ScriptedWorker, worker_args=args, size=1, checkout_timeout=0.05, backoff_min=0.2, backoff_max=0.2)
    with pytest.raises((WorkerUnavailable, actorpool.CheckoutTimeout)):
        pool.get()
    assert eventually(lambda: pool.get()) == 1
    with pytest.raises(PermanentError, match="never"):
        start(ScriptedWorker, worker_args={"opens": [PermanentError("never")]}, size=1)


def test_it_works_in_a_local_pool_where_each_lease_begins_the_script_anew() -> None:
    with LocalPool(PoolConfig(worker=ScriptedWorker, worker_args={"script": [1, 2]})) as pool:
        with pool.checkout() as lease:
            assert (lease.get(), lease.get()) == (1, 2)
            assert lease.stats() == {"calls": [("get", (), {})] * 2, "left": 0, "unexpected": []}
        assert pool.get() == 1


def test_a_worker_that_dies_on_request_is_replaced_and_begins_anew(scripted: StartPool) -> None:
    pool = scripted(1, lambda: __import__("os")._exit(1))
    assert pool.get() == 1
    with pytest.raises(actorpool.WorkerDied):
        pool.get()
    assert pool.get() == 1
