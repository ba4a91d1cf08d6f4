"""What a process keeps of a pool, and how its threads share it: nothing is lost, nobody has what another has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from actorpool.client import _sticky
from actorpool.client._calls import LeaseHandle
from actorpool.transport import frames

_paths = count()


class Pool:
    """Hears of what is given back."""

    def __init__(self) -> None:
        self.back: list[int] = []
        self.path = f"/nowhere/{next(_paths)}.pool"

    def hold(self, number: int, rested: float | None = None) -> LeaseHandle:
        """A sticky lease that was used a moment ago."""
        lease = LeaseHandle(number, 1, 1, self.give_back, flags=frames.STICKY)
        lease.idle_since = time.perf_counter() if rested is None else rested
        return lease

    def give_back(self, lease: LeaseHandle) -> bool:
        self.back.append(lease.id)
        lease.end()
        return True


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    _sticky.forget(made.path)


def waiting(pool: Pool, seconds: float = 5.0) -> tuple[threading.Thread, list[Any]]:
    """A thread that waits in line; what it got."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(_sticky.wait(pool.path, seconds)))
    line = len(_sticky._of(pool.path).waiters)
    thread.start()
    while len(_sticky._of(pool.path).waiters) == line and thread.is_alive():
        time.sleep(0.0005)
    return thread, got


def test_what_is_kept_is_taken_once(pool: Pool) -> None:
    lease = pool.hold(1)
    _sticky.keep(pool.path, lease)
    assert _sticky.take(pool.path) is lease
    assert lease.idle_since == 0.0
    assert _sticky.take(pool.path) is None


def test_the_one_used_last_is_taken_first(pool: Pool) -> None:
    for lease in (1, 2):
        _sticky.keep(pool.path, pool.hold(lease))
    assert _sticky.take(pool.path).id == 2


def test_what_has_rested_for_long_is_given_back(pool: Pool) -> None:
    _sticky.keep(pool.path, pool.hold(1, rested=1.0))
    _sticky.keep(pool.path, pool.hold(2, rested=2.0))
    assert _sticky.take(pool.path) is None
    assert sorted(pool.back) == [1, 2]


def test_who_waits_gets_what_the_next_use_leaves(pool: Pool) -> None:
    thread, got = waiting(pool)
    lease = pool.hold(1)
    _sticky.keep(pool.path, lease)
    thread.join(5)
    assert got == [lease]
    assert lease.idle_since == 0.0


def test_first_come_first_served(pool: Pool) -> None:
    threads = [waiting(pool) for _ in range(3)]
    for number, (thread, got) in enumerate(threads):
        _sticky.keep(pool.path, pool.hold(number))
        thread.join(5)
        assert [lease.id for lease in got] == [number]


def test_a_newcomer_does_not_overtake_the_line(pool: Pool) -> None:
    thread, _ = waiting(pool)
    assert _sticky.take(pool.path) is None
    _sticky.keep(pool.path, pool.hold(1))
    thread.join(5)


def test_who_has_waited_long_enough_leaves_the_line(pool: Pool) -> None:
    assert _sticky.wait(pool.path, 0.01) is None
    lease = pool.hold(1)
    _sticky.keep(pool.path, lease)
    assert _sticky.take(pool.path) is lease


def test_a_recall_sends_everybody_to_the_pool(pool: Pool) -> None:
    _sticky.note_all(pool.path)
    threads = [waiting(pool) for _ in range(3)]
    _sticky.disband(pool.path)
    for thread, got in threads:
        thread.join(5)
        assert got == [None]
    assert not _sticky.is_all(pool.path)


def test_a_recall_gives_the_others_back(pool: Pool) -> None:
    _sticky.keep(pool.path, pool.hold(1))
    _sticky.disband(pool.path)
    assert pool.back == [1]


def test_the_pools_word_is_good_for_a_moment(pool: Pool, eventually: Callable[..., Any]) -> None:
    _sticky.note_all(pool.path)
    assert _sticky.is_all(pool.path)
    eventually(lambda: not _sticky.is_all(pool.path))


def test_a_system_that_has_ended_is_forgotten(pool: Pool) -> None:
    lease = pool.hold(1)
    _sticky.keep(pool.path, lease)
    _sticky.forget("/nowhere/")
    assert _sticky.take(pool.path) is None
    assert not lease.open
    assert pool.back == []


# -- a process that is busy with itself ---------------------------------------------------------------------


def in_use(pool: Pool, *leases: int) -> list[LeaseHandle]:
    """So many leases in the hands of threads."""
    holds = [pool.hold(lease) for lease in leases]
    for lease in holds:
        _sticky.use(pool.path, lease)
    return holds


def end(pool: Pool, lease: LeaseHandle) -> None:
    """A use is over."""
    lease.idle_since = time.perf_counter()
    _sticky.keep(pool.path, lease)


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sticky._Load, "is_busy", lambda _load, _now: True)
    monkeypatch.setattr(_sticky, "QUICK", 0.2)


@pytest.mark.usefixtures("busy")
def test_one_lease_goes_round_and_the_others_rest(pool: Pool) -> None:
    first, second = in_use(pool, 1, 2)
    thread, got = waiting(pool)
    end(pool, first)
    assert got == []
    end(pool, second)
    thread.join(5)
    assert got == [second]
    assert _sticky._pools[pool.path].idle == [first]


@pytest.mark.usefixtures("busy")
def test_who_waits_takes_one_that_rests_when_the_others_are_not_quick(pool: Pool) -> None:
    first, _ = in_use(pool, 1, 2)
    thread, got = waiting(pool)
    end(pool, first)
    thread.join(5)
    assert got == [first]


@pytest.mark.usefixtures("busy")
def test_who_has_waited_longer_than_that_gets_the_next_at_once(pool: Pool, eventually: Callable[..., Any]) -> None:
    first, _ = in_use(pool, 1, 2)
    thread, got = waiting(pool)
    kept = _sticky._pools[pool.path]
    eventually(lambda: time.perf_counter() - kept.waiters[0].since > _sticky.QUICK)
    end(pool, first)
    thread.join(5)
    assert got == [first]
    assert kept.idle == []


def test_a_process_that_is_not_busy_uses_all_it_has(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sticky._Load, "is_busy", lambda _load, _now: False)
    first, _ = in_use(pool, 1, 2)
    thread, got = waiting(pool)
    end(pool, first)
    thread.join(5)
    assert got == [first]


def test_a_process_is_busy_while_it_computes_and_not_while_it_sleeps() -> None:
    load = _sticky._Load()
    load.is_busy(time.perf_counter())
    end, sums = time.process_time() + 3 * _sticky.WINDOW, 0
    began = time.perf_counter()
    while time.process_time() < end:
        sums += 1
    alone = 3 * _sticky.WINDOW / (time.perf_counter() - began)
    assert load.is_busy(time.perf_counter()) or alone < 0.9, "it had the processor to itself"
    time.sleep(5 * _sticky.WINDOW)
    assert not load.is_busy(time.perf_counter())


# -- what is not used any more ----------------------------------------------------------------------------------


def test_what_is_kept_of_a_pool_that_is_not_used_any_more_goes_when_another_one_is(pool: Pool) -> None:
    _sticky.keep(pool.path, pool.hold(1, rested=1.0))
    other = Pool()
    _sticky.keep(other.path, other.hold(2))
    assert pool.back == [1]
    assert pool.path not in _sticky._pools
    third = Pool()
    _sticky.keep(third.path, third.hold(3))
    assert other.back == []
    for made in (other, third):
        _sticky.forget(made.path)


def test_many_threads_lose_none_and_share_none(pool: Pool) -> None:
    holds = [pool.hold(lease) for lease in range(3)]
    for lease in holds:
        _sticky.keep(pool.path, lease)
    used: set[int] = set()
    problems: list[str] = []
    served = count()

    def call() -> None:
        for _ in range(300):
            lease = _sticky.take(pool.path) or _sticky.wait(pool.path, 0.0005)
            if lease is None:
                continue
            if lease.id in used:
                problems.append(f"lease {lease.id} is in two hands")
            used.add(lease.id)
            next(served)
            time.sleep(0)
            used.discard(lease.id)
            lease.idle_since = time.perf_counter()
            _sticky.keep(pool.path, lease)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not problems
    assert next(served) > 300
    kept = [_sticky.take(pool.path) for _ in range(3)]
    assert {lease.id for lease in kept if lease} | set(pool.back) == {0, 1, 2}
