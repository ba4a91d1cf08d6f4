"""Keyed leases with real processes: whoever comes next with the key meets the state, or is told that there is none."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import actorpool
from actorpool import Pool, PoolConfig, process
from actorpool.errors import (
    CallTimeout,
    CheckoutTimeout,
    InvalidConfig,
    LeaseExpired,
    PoolFull,
    WorkerDied,
)
from actorpool.serialization import pickling
from actorpool.testing import eventually
from actorpool.transport import bodies, frames, paths
from actorpool.transport.client import ClientConn
from actorpool.workers import Worker, method
from tests.pools.conftest import StartPool


class Notes(Worker):
    """Remembers what it was told, until it is reset."""

    def open(self) -> None:
        self.notes: list[Any] = []

    def reset(self) -> None:
        self.notes = []

    @method
    def note(self, what: Any) -> list[Any]:
        self.notes.append(what)
        return self.notes

    @method
    def read(self) -> list[Any]:
        return self.notes

    @method
    def dwell(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture(params=["channel", "messages", "local"])
def notes(request: pytest.FixtureRequest) -> Iterator[Callable[..., Pool]]:
    """A pool of `Notes` by each way there is."""
    if request.param == "local":
        made: list[actorpool.LocalPool] = []

        def local(**fields: Any) -> Pool:
            made.append(actorpool.LocalPool(PoolConfig(worker=Notes, **{"size": 2, **fields})))
            return made[-1]

        yield local
        for pool in made:
            pool.close()
        return
    base = "multiprocTCPBase" if request.param == "channel" else "simpleSystemBase"
    with actorpool.start(base=base, log_level="CRITICAL") as system:
        yield lambda **fields: system.start_pool(
            "notes", worker=Notes, **{"size": 2, "max_overflow": 0, "health_interval": None, **fields}
        )


def told(pool: Pool, key: Any, what: Any) -> tuple[bool, list[Any]]:
    """Whether the lease was fresh, and what the worker remembers then."""
    with pool.checkout(key=key) as lease:
        return lease.fresh, lease.note(what)


def test_the_next_lease_of_a_key_meets_what_the_one_before_has_left(notes: Callable[..., Pool]) -> None:
    pool = notes()
    assert told(pool, "a", 1) == (True, [1])
    assert told(pool, ("b", 2), 1) == (True, [1])
    assert told(pool, "a", 2) == (False, [1, 2])
    assert told(pool, ("b", 2), 2) == (False, [1, 2])
    with pool.checkout(key="a") as lease:
        assert (lease.fresh, lease.read()) == (False, [1, 2])


def test_an_unkeyed_caller_meets_nothing_of_any_key(notes: Callable[..., Pool]) -> None:
    pool = notes(size=1)
    assert told(pool, "a", 1) == (True, [1])
    assert pool.read() == []
    with pool.checkout() as lease:
        assert lease.fresh
        assert lease.read() == []


def test_the_worker_parked_longest_is_evicted_and_its_key_is_told_why_it_is_fresh(notes: Callable[..., Pool]) -> None:
    pool = notes(size=2)
    for key in "abc":
        assert told(pool, key, key) == (True, [key])
    with pool.checkout(key="a") as lease:
        assert (lease.fresh, lease.lost, lease.read()) == (True, "evicted", [])
    assert told(pool, "c", 2) == (False, ["c", 2])


def test_sessions_are_listed_and_ended(notes: Callable[..., Pool]) -> None:
    pool = notes()
    told(pool, "a", 1)
    told(pool, "a", 2)
    (info,) = pool.sessions()
    assert (info.key, info.busy, info.calls) == ("a", False, 2)
    assert 0.0 <= info.idle <= info.age
    assert pool.end_session("a") is True
    assert pool.end_session("a") is False
    assert pool.sessions() == []
    with pool.checkout(key="a") as lease:
        assert (lease.fresh, lease.lost, lease.read()) == (True, None, [])


def test_a_session_that_is_ended_while_it_is_leased_ends_at_its_checkin(notes: Callable[..., Pool]) -> None:
    pool = notes()
    with pool.checkout(key="a") as lease:
        lease.note(1)
        assert pool.end_session("a") is True
        assert lease.note(2) == [1, 2]
        assert [info.busy for info in pool.sessions()] == [True]
    assert told(pool, "a", 3) == (True, [3])


def test_a_parked_worker_is_closed_after_session_idle(notes: Callable[..., Pool]) -> None:
    pool = notes(session_idle=0.2)
    told(pool, "a", 1)
    eventually(lambda: pool.sessions() == [])
    with pool.checkout(key="a") as lease:
        assert (lease.fresh, lease.lost) == (True, "expired")


def test_a_key_that_is_in_use_is_refused_or_waited_for(notes: Callable[..., Pool]) -> None:
    pool = notes()
    with pool.checkout(key="a"):
        with pytest.raises(PoolFull):
            pool.checkout(key="a", block=False)
        with pytest.raises(CheckoutTimeout):
            pool.checkout(key="a", timeout=0.05)
        with pool.checkout(key="b", block=False):
            pass


def test_a_key_that_cannot_be_one_is_refused_before_anything_is_asked_for(notes: Callable[..., Pool]) -> None:
    pool = notes()
    for key in (["a"], lambda: 1):
        with pytest.raises(InvalidConfig, match="key"):
            pool.checkout(key=key)
    with pytest.raises(InvalidConfig, match="key"):
        pool.end_session({})
    assert pool.sessions() == []


def test_a_lease_under_which_nothing_was_called_parks_its_worker_and_leaves_the_key_fresh(
    notes: Callable[..., Pool],
) -> None:
    pool = notes()
    workers = set()
    for _ in range(2):
        with pool.checkout(key="a") as lease:
            assert lease.fresh
            workers.add(lease.worker_id)
        assert [(info.key, info.busy) for info in pool.sessions()] == [("a", False)]
    assert len(workers) == 1
    assert told(pool, "a", 1) == (True, [1])
    with pool.checkout(key="a") as lease:
        assert not lease.fresh
    assert told(pool, "a", 2) == (False, [1, 2])


def test_why_a_state_is_gone_is_told_until_something_is_called(notes: Callable[..., Pool]) -> None:
    pool = notes(size=1)
    told(pool, "a", 1)
    told(pool, "b", 1)
    for _ in range(2):
        with pool.checkout(key="a") as lease:
            assert (lease.fresh, lease.lost) == (True, "evicted")
    told(pool, "a", 2)
    with pool.checkout(key="a") as lease:
        assert (lease.fresh, lease.lost) == (False, None)


def test_coroutines_meet_the_state_that_threads_have_left(notes: Callable[..., Pool]) -> None:
    pool = notes()
    told(pool, "a", 1)

    async def go_on() -> tuple[bool, list[Any], int, bool]:
        async with pool.aio.checkout(key="a") as lease:
            fresh, found = lease.fresh, await lease.note(2)
        sessions = await pool.aio.sessions()
        return fresh, found, len(sessions), await pool.aio.end_session("a")

    assert asyncio.run(go_on()) == (False, [1, 2], 1, True)
    assert told(pool, "a", 3) == (True, [3])


# -- over the channel ---------------------------------------------------------------------------------------------


def _take_turns(pool: Pool, me: str, rounds: int, seen: Any) -> None:
    for _ in range(rounds):
        with pool.checkout(key="shared", timeout=20.0) as lease:
            seen.put((lease.fresh, len(lease.note(me))))


def test_two_processes_share_a_key_in_turn(start: StartPool) -> None:
    pool = start(Notes)
    context = multiprocessing.get_context("spawn")
    seen = context.SimpleQueue()
    callers = [context.Process(target=_take_turns, args=(pool, name, 10, seen)) for name in "ab"]
    for caller in callers:
        caller.start()
    results = [seen.get() for _ in range(20)]
    for caller in callers:
        caller.join(10)
    assert sorted(length for _, length in results) == list(range(1, 21))
    assert sum(fresh for fresh, _ in results) == 1


def test_a_call_that_timed_out_leaves_the_state(start: StartPool) -> None:
    pool = start(Notes)
    told(pool, "a", 1)
    with pool.checkout(key="a") as lease, pytest.raises(CallTimeout):
        lease.call("dwell", 30.0, call_timeout=0.1)
    assert told(pool, "a", 2) == (False, [1, 2])


def test_a_cancelled_task_leaves_the_state(start: StartPool) -> None:
    pool = start(Notes)
    told(pool, "a", 1)

    async def cancelled() -> None:
        async with pool.aio.checkout(key="a") as lease:
            await asyncio.wait_for(lease.dwell(30.0), 0.1)

    with pytest.raises((asyncio.TimeoutError, TimeoutError)):
        asyncio.run(cancelled())
    assert told(pool, "a", 2) == (False, [1, 2])


def _die_with_it(pool: Pool) -> None:
    lease = pool.checkout(key="a")
    lease.note("of the dead")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_caller_that_dies_leaves_the_state(start: StartPool) -> None:
    pool = start(Notes)
    caller = multiprocessing.get_context("spawn").Process(target=_die_with_it, args=(pool,))
    caller.start()
    caller.join(20)
    assert told(pool, "a", 2) == (False, ["of the dead", 2])


def test_a_worker_that_dies_in_a_call_is_told_and_the_next_lease_is_fresh(start: StartPool) -> None:
    pool = start(Notes)
    told(pool, "a", 1)
    with pool.checkout(key="a") as lease, pytest.raises(WorkerDied):
        lease.run(lambda _: os.kill(os.getpid(), signal.SIGKILL))
    with pool.checkout(key="a") as lease:
        assert (lease.fresh, lease.lost, lease.read()) == (True, "died", [])


def test_a_call_of_a_continued_lease_never_moves_to_another_worker(start: StartPool) -> None:
    pool = start(Notes)
    told(pool, "a", 1)
    with pool.checkout(key="a") as lease:
        os.kill(lease.worker_pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            lease.note(2)
    assert told(pool, "a", 3) == (True, [3])


def test_the_first_call_of_a_fresh_lease_may_move_and_keeps_its_key(start: StartPool) -> None:
    pool = start(Notes)
    with pool.checkout(key="a") as lease:
        dead = lease.worker_pid
        os.kill(dead, signal.SIGKILL)
        assert lease.note(1) == [1]
        assert lease.worker_pid != dead
    assert told(pool, "a", 2) == (False, [1, 2])


def test_a_worker_that_dies_while_it_is_parked_takes_its_state_along(start: StartPool) -> None:
    pool = start(Notes)
    told(pool, "a", 1)
    (info,) = pool.sessions()
    assert info.pid is not None
    os.kill(info.pid, signal.SIGKILL)
    eventually(lambda: pool.sessions() == [])
    with pool.checkout(key="a") as lease:
        assert (lease.fresh, lease.lost) == (True, "died")


def test_a_parked_worker_that_was_just_killed_is_never_given_out_as_the_one_with_the_state(start: StartPool) -> None:
    pool = start(Notes, size=2, max_restarts=1000)
    for _ in range(10):
        with pool.checkout(key="a") as lease:
            lease.note("state")
            pid = lease.worker_pid
        os.kill(pid, signal.SIGKILL)
        while process.alive(pid):  # the pool may hear of it later than we do
            pass
        with pool.checkout(key="a") as lease:
            assert (lease.fresh, lease.read()) == (True, [])


def test_a_late_call_of_an_ended_lease_is_refused_and_the_state_stays(start: StartPool, node: actorpool.System) -> None:
    pool = start(Notes)
    with pool.checkout(key="a") as lease:
        lease.note(1)
        handle = lease._handle
        head = frames.CALL_HEAD.pack(handle.id, frames.KEYED, handle.seal)
    line = ClientConn(paths.worker(str(node.directory), handle.worker_pid))
    time.sleep(0.05)  # the end goes by another connection
    line.send(frames.CALL, 1, pickling.dumps_call("note", ("late",), {}), head)
    assert line.receive(1)[0] == frames.NOT_STARTED
    line.close()
    with pytest.raises(LeaseExpired):
        lease.note("late")
    assert told(pool, "a", 2) == (False, [1, 2])


def test_resizing_recycling_and_suspending_end_states_or_leave_them(start: StartPool) -> None:
    pool = start(Notes, size=2)
    told(pool, "a", 1)
    told(pool, "b", 1)
    pool.suspend()
    with pytest.raises(CheckoutTimeout):
        pool.checkout(key="b", timeout=0.1)
    pool.resume()
    assert told(pool, "b", 2) == (False, [1, 2])
    pool.resize(1)
    eventually(lambda: len(pool.sessions()) <= 1)
    (left,) = pool.sessions()
    pool.recycle(timeout=10.0)
    with pool.checkout(key=left.key) as lease:
        assert lease.fresh
        assert lease.read() == []


def test_the_successor_of_a_pool_that_was_killed_is_fresh(start: StartPool) -> None:
    pool = start(Notes)
    told(pool, "a", 1)
    with pool.checkout(key="a") as lease:
        os.kill(lease._handle.pool_pid, signal.SIGKILL)
    eventually(lambda: told(pool, "b", 1) == (True, [1]) or True)
    assert told(pool, "a", 2) == (True, [2])


def test_nobody_starves_who_waits_beside_many_keys(start: StartPool) -> None:
    pool = start(Notes, size=2, checkout_timeout=20.0)
    stop = threading.Event()
    errors: list[BaseException] = []

    def keyed(key: str) -> None:
        try:
            while not stop.is_set():
                with pool.checkout(key=key) as lease:
                    assert set(lease.note(key)) == {key}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=keyed, args=(key,)) for key in "abcd"]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert pool.read() == []
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert errors == []


def test_a_key_that_the_pool_cannot_read_is_refused_and_the_pool_goes_on(
    start: StartPool, node: actorpool.System
) -> None:
    pool = start(Notes)
    line = ClientConn(paths.Endpoint(str(node.directory)).pool(pool.name))
    for ref, key in enumerate((b"\x80\x05]q\x00.", b"\x80\x05cno_such_module\nKey\n.", b"rubbish"), 1):
        line.send(frames.CHECKOUT, ref, bodies.pack_checkout(1.0, True, None, None, False, key))
        kind, body = line.receive(ref)
        assert kind == frames.ERROR
        assert isinstance(frames.load_error(body), TypeError)
    line.close()
    assert told(pool, "a", 1) == (True, [1])
