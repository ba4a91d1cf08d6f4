"""Whatever is written into the sockets of a node: nobody ends, nobody waits, nothing is counted wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import actorpool
from actorpool.status import TreeNode
from actorpool.workers import EchoWorker
from tests.shared.kit import Book

ROOT = Path(__file__).resolve().parent.parent.parent
Eventually = Callable[..., object]


@pytest.fixture
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


def pids(tree: TreeNode) -> set[int | None]:
    """Every process of it."""
    return {tree.pid}.union(*(pids(child) for child in tree.children))


def memory(processes: set[int | None]) -> int:
    """Bytes that they have for themselves."""
    return sum(psutil.Process(pid).memory_info().rss for pid in processes if pid)


@pytest.mark.parametrize(
    ("seed", "number"),
    [(1, 500), (2, 500), pytest.param(3, 10_000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])],
)
def test_nonsense_in_every_socket_ends_nobody_delays_nobody_and_changes_no_figure(
    node: actorpool.System, eventually: Eventually, seed: int, number: int
) -> None:
    pool = node.start_pool("db", worker=EchoWorker, size=2, max_overflow=0, max_waiting=None)
    shared = node.start_shared_pool("shared")
    shared.add(Book, extra={"a": 1})
    longest, over, failed, made = [0.0], threading.Event(), [], [0]

    def under_lease() -> None:
        with pool.checkout() as lease:
            assert lease.echo(1) == 1

    def call(one: Callable[[], object]) -> None:
        while not over.is_set():
            began = time.perf_counter()
            try:
                one()
            except BaseException as error:
                failed.append(error)
            made[0] += 1
            longest[0] = max(longest[0], time.perf_counter() - began)
            time.sleep(0.001)

    calls: list[Callable[[], object]] = [
        lambda: pool.echo(1), under_lease, lambda: shared.call("book", "write", 1), pool.status,
    ]  # fmt: skip
    for one in calls:
        one()
    processes, before = pids(node.tree()), memory(pids(node.tree()))
    threads = [threading.Thread(target=call, args=(one,)) for one in calls]
    for thread in threads:
        thread.start()
    command = [sys.executable, "-m", "tests.hostile_frames", str(node.directory), str(seed), str(number)]
    try:
        assert subprocess.run(command, cwd=ROOT, timeout=240, check=False).returncode == 0
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert made[0] > 10
    assert longest[0] < 1.0
    assert pids(node.tree()) == processes
    assert memory(processes) - before < 50_000_000
    eventually(lambda: (pool.status().monitors, pool.status().waiting) == (0, 0))
    figures = pool.status()
    assert figures.checkouts == figures.checkins + figures.reclaimed
    assert (figures.workers, figures.restarts, figures.overflow) == (2, 0, 0)
    eventually(lambda: node.status("shared").waiting == 0)
    under_lease()
    node.stop_pool("db")
    node.stop_pool("shared")
