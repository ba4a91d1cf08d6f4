"""Why it restarted: the tree knows how each worker's predecessor ended, and what that wrote last."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import actorpool
from actorpool import WorkerDied
from actorpool.pools.last_words import CRASH, LINES, LastEnds, LastWords
from actorpool.status import TreeNode
from actorpool.supervisors import ChildSpec, SupervisorSpec
from actorpool.workers import EchoWorker

Eventually = Callable[..., Any]

CHATTER = 3000
PROGRAM = """
import time, actorpool
from actorpool.workers import EchoWorker
from tests.pools.test_last_ends import chat
with actorpool.start(log_level="CRITICAL") as system:
    pool = system.start_pool("db", worker=EchoWorker, size=1)
    chatting = pool.submit(chat)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        status = pool.status()
    print(f"busy: {status.monitors} of {status.total}", flush=True)
    chatting.result(30)
    print("done", flush=True)
"""


def abort_deep_within(_: Any) -> None:
    os.abort()


def segfault(_: Any) -> None:
    ctypes.string_at(0)


def leave(_: Any) -> None:
    for number in range(50):
        os.write(2, f"line {number}\n".encode())
    os._exit(3)


def chat(_: Any) -> None:
    for number in range(CHATTER):
        sys.stderr.write(f"{number} {'x' * 100}\n")


def nodes(tree: TreeNode) -> Iterator[TreeNode]:
    yield tree
    for child in tree.children:
        yield from nodes(child)


def find(system: actorpool.System, kind: str, id: str | None = None) -> TreeNode:
    return next(node for node in nodes(system.tree()) if node.kind == kind and id in (None, node.id))


def test_the_last_lines_are_kept_and_the_first_of_a_crash() -> None:
    words = LastWords()
    for number in range(30):
        words.add(f"line {number}")
    assert words.text().splitlines() == [f"line {number}" for number in range(10, 30)]
    words.add(f"{CRASH}Aborted")
    for number in range(100):
        words.add(f"frame {number}")
    assert words.text().splitlines() == [f"{CRASH}Aborted", *(f"frame {number}" for number in range(LINES - 1))]


def test_only_the_latest_ends_are_handed_on() -> None:
    ends = LastEnds()
    for place in range(1, 100):
        ends.add(place, "exit status 1", LastWords())
    assert list(ends.kept()) == list(range(90, 100))
    assert LastEnds(ends.kept()).latest() == ends.get(99)


@pytest.mark.parametrize(("end", "sign"), [(abort_deep_within, "SIGABRT"), (segfault, "SIGSEGV")])
def test_a_native_crash_leaves_its_signal_and_its_python_stack_which_outlive_the_manager(
    end: Any, sign: str, eventually: Eventually
) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1)
        pid = pool.pid() if hasattr(pool, "pid") else pool.workers()[0].pid
        with pytest.raises(WorkerDied):
            pool.run(end)
        worker = eventually(lambda: (node := find(system, "worker")).last_end and node)
        assert worker.restarts == 1
        assert worker.last_end.startswith(f"killed by {sign} (pid ")
        assert worker.output.startswith(CRASH)
        assert f"in {end.__name__}" in worker.output
        assert len(worker.output.splitlines()) <= LINES
        parent = find(system, "pool")
        assert (parent.last_end, parent.output) == (worker.last_end, worker.output)
        assert (parent.restarts_used, parent.restarts_limit, parent.restarts_period) == (1, 10, 60.0)
        manager = find(system, "supervisor", "manager")
        time.sleep(0.2)  # what the pool has its supervisor remember is on its way to the one above
        os.kill(manager.pid or 0, signal.SIGKILL)
        eventually(lambda: find(system, "supervisor", "manager").pid not in (None, manager.pid), timeout=20)
        assert eventually(lambda: pool.echo(pid), timeout=20) == pid
        after = eventually(lambda: (node := find(system, "worker")).last_end and node)
        assert (after.last_end, after.output) == (worker.last_end, worker.output)
        again = find(system, "supervisor", "manager")
        assert again.restarts == 1
        assert "killed by SIGKILL" in (again.last_end or "")


def test_an_exit_leaves_its_status_and_its_last_twenty_lines(eventually: Eventually) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=2)
        with pytest.raises(WorkerDied):
            pool.run(leave)
        eventually(lambda: pool.status().workers == 2)
        ended = [node for node in nodes(system.tree()) if node.kind == "worker" and node.last_end]
        assert len(ended) == 1, "the other one has not ended"
        assert ended[0].last_end is not None
        assert ended[0].last_end.startswith("exit status 3 (pid ")
        assert ended[0].output.splitlines() == [f"line {number}" for number in range(30, 50)]


def test_workers_that_end_as_they_are_told_leave_nothing_to_explain(eventually: Eventually) -> None:
    with actorpool.start(log_level="CRITICAL") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=2)
        pool.recycle(restart=True)
        eventually(lambda: pool.status().workers == 2)
        # one that was told to end may still be among them
        eventually(lambda: [n.last_end for n in nodes(system.tree()) if n.kind == "worker"] == [None, None])


def test_supervisors_tell_their_strategy_and_what_is_left_of_their_restarts(eventually: Eventually) -> None:
    began = time.time()
    with actorpool.start(log_level="CRITICAL") as system:
        spec = SupervisorSpec([ChildSpec("echo", EchoWorker)], strategy="one_for_all", max_restarts=3, max_seconds=50)
        system.supervise(ChildSpec("own", spec))
        child = find(system, "worker", "echo")
        os.kill(child.pid or 0, signal.SIGKILL)
        eventually(lambda: find(system, "worker", "echo").restarts == 1)
        own = find(system, "supervisor", "own")
        assert (own.strategy, own.restarts_used, own.restarts_limit, own.restarts_period) == ("one_for_all", 1, 3, 50)
        assert "killed by SIGKILL" in (find(system, "worker", "echo").last_end or "")
        root = system.tree()
        assert (root.strategy, root.restarts_limit, root.restarts_period) == ("one_for_one", 10, 60)
        times = [node.since for node in nodes(root) if node is not root]
        assert all(began - 1 <= since <= time.time() for since in times if since is not None)
        assert None not in times


@pytest.mark.slow
def test_errors_that_the_program_does_not_read_hold_up_their_worker_and_not_its_pool() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == b"busy: 1 of 1\n"
        assert len(program.stderr.read().splitlines()) == CHATTER
        assert program.stdout.read() == b"done\n"
