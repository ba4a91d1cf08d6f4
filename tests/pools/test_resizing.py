"""Sixty-four callers in several processes while the pool is resized: no failed call, no overlap, exact counts."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

import actorpool
from tests.pools import storm
from tests.pools.conftest import StartPool
from tests.pools.storm import Outcome, Stamp, Stamper, Turn

CALLERS = 64
SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def callers(pool: actorpool.Pool, processes: int) -> Iterator[list[Future[Outcome]]]:
    """All callers, at work until the end of the block; every other process has tasks instead of threads."""
    over = SPAWN.Event()
    with ProcessPoolExecutor(processes, SPAWN, storm.enter, (over,)) as executor:
        share = CALLERS // processes
        outcomes = [executor.submit(storm.blow, pool, share, seed, seed % 2 == 1) for seed in range(processes)]
        try:
            yield outcomes
        finally:
            over.set()


def at_once(stamps: Iterable[Stamp]) -> int:
    """The largest number of calls that ran at the same moment."""
    edges = [edge for stamp in stamps for edge in ((stamp.begin, 1), (stamp.end, -1))]
    return max(itertools.accumulate(step for _, step in sorted(edges)), default=0)


def processes_below(node: actorpool.System, name: str) -> set[int]:
    """The living children of the process of that pool, as the operating system tells."""
    pids = [below.pid for below in _nodes(node.tree()) if below.kind == "pool" and below.id == name]
    return {child.pid for child in psutil.Process(pids[0]).children() if child.status() != psutil.STATUS_ZOMBIE}


def _nodes(tree: Any) -> Iterator[Any]:
    yield tree
    for child in tree.children:
        yield from _nodes(child)


def check_turns(turns: list[Turn]) -> None:
    """No worker was in two hands at once, and each ran every call that it was given exactly once."""
    by_worker: dict[int, list[Turn]] = defaultdict(list)
    for turn in turns:
        assert len({stamp.pid for stamp in turn.stamps}) == 1, "a lease changed its worker"
        by_worker[turn.stamps[0].pid].append(turn)
    for pid, own in by_worker.items():
        own.sort(key=lambda turn: turn.stamps[0].begin)
        for before, after in itertools.pairwise(own):
            assert before.stamps[-1].end <= after.stamps[0].begin, f"worker {pid} was in two hands at once"
        numbers = [stamp.number for turn in own for stamp in turn.stamps]
        assert numbers == list(range(1, len(numbers) + 1)), f"worker {pid} ran a call that nobody knows of"


@pytest.mark.parametrize(
    ("processes", "turns_each"), [(2, 200), pytest.param(8, 1500, marks=pytest.mark.slow)], ids=["quick", "long"]
)
@pytest.mark.slow
def test_sixty_four_callers_do_not_notice_that_the_pool_is_resized(
    node: actorpool.System, start: StartPool, eventually: Callable[..., Any], processes: int, turns_each: int
) -> None:
    pool = start(Stamper, size=8, checkout_timeout=30.0)
    spells: list[tuple[int, float, float]] = []

    def work(size: int) -> None:
        """Let the callers go on with workers of that number, and nothing else changing."""
        eventually(lambda: (status := pool.status()).size == size == status.total, timeout=20)
        begin, before = time.monotonic(), pool.status().checkouts
        eventually(lambda: pool.status().checkouts >= before + turns_each, timeout=20)
        spells.append((size, begin, time.monotonic()))

    with callers(pool, processes) as pending:
        work(8)
        for size in (2, 16, 8):
            pool.resize(size)
            work(size)
    outcomes = [future.result() for future in pending]

    assert [error for outcome in outcomes for error in outcome.errors] == []
    turns = [turn for outcome in outcomes for turn in outcome.turns]
    check_turns(turns)
    stamps = [stamp for turn in turns for stamp in turn.stamps]
    for size, begin, end in spells:
        busy = at_once(stamp for stamp in stamps if begin < stamp.begin and stamp.end < end)
        assert size / 4 <= busy <= size, f"{busy} calls ran at once on {size} workers"

    status = eventually(lambda: (now := pool.status()).monitors == 0 and now.checkins == now.checkouts and now)
    assert (status.state, status.size, status.total, status.workers, status.overflow) == ("ready", 8, 8, 8, 0)
    assert (status.waiting, status.timeouts, status.shed, status.restarts, status.reclaimed) == (0, 0, 0, 0, 0)
    assert status.checkouts == status.checkins == len(turns)
    assert pool.leases() == []
    workers = pool.workers()
    assert {worker.pid for worker in workers} == processes_below(node, pool.name)
    assert sum(worker.calls for worker in workers) == sum(
        turn.stamps[0].pid in {worker.pid for worker in workers} for turn in turns
    )
