"""Ten thousand who come and go: what a node then has of memory and descriptors is what it had at first."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import actorpool
from actorpool.messages import StartChild, TerminateChild
from actorpool.supervisors import ChildSpec
from actorpool.workers import EchoWorker
from tests.supervisors.supervised_actors import Plain

CLIENTS = """
import os, sys, actorpool
pool = actorpool.connect(sys.argv[1]).pool("db")
for _ in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        pool.echo(1)
        lease = pool.checkout(timeout=60)
        lease.echo(2)
        os._exit(0)  # with the lease
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
SUBSCRIBERS = """
import os, sys, actorpool
node = actorpool.connect(sys.argv[1])
for _ in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        with node.actor_system.private() as context:
            os._exit(0 if context.ask(node.manager, actorpool.Subscribe("*"), 60) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def by_program(node: actorpool.System, program: str, number: int) -> None:
    subprocess.run([sys.executable, "-c", program, node.name, str(number)], check=True, timeout=900)


def pools(node: actorpool.System, number: int) -> None:
    for _ in range(number):
        node.start_pool("short", worker=EchoWorker, size=1).echo(1)
        node.stop_pool("short", timeout=0.5)


def children(node: actorpool.System, number: int) -> None:
    with node.actor_system.private() as context:
        for count in range(number):
            context.ask(node.manager, StartChild(ChildSpec(f"child {count}", Plain, restart="temporary")), 30).unwrap()
            context.ask(node.manager, TerminateChild(f"child {count}"), 30).unwrap()


KINDS: dict[str, tuple[Callable[[actorpool.System, int], None], int]] = {
    "clients": (lambda node, number: by_program(node, CLIENTS, number), 7000),
    "subscribers": (lambda node, number: by_program(node, SUBSCRIBERS, number), 2000),
    "pools": (pools, 300),
    "children": (children, 700),
}


def all_at_once(node: actorpool.System, part: int) -> None:
    """A part of all that come and go, the four kinds side by side."""
    failed: list[BaseException] = []

    def run(go: Any, number: int) -> None:
        try:
            go(node, number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(go, number // part)) for go, number in KINDS.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def usage(node: actorpool.System) -> tuple[float, int]:
    """Megabytes and descriptors of all processes of a node, once what has gone is gone."""
    time.sleep(2)
    root = psutil.Process(node._node_client.facts.pid)
    processes = [root, *root.children(recursive=True)]
    return sum(one.memory_info().rss for one in processes) / 2**20, sum(one.num_fds() for one in processes)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_who_came_and_went_leave_nothing_behind() -> None:
    assert sum(number for _, number in KINDS.values()) == 10_000
    with actorpool.start("churn", log_level="CRITICAL") as node:
        pool = node.start_pool("db", worker=EchoWorker, size=2, max_overflow=0)
        all_at_once(node, 50)
        memory, descriptors = usage(node)
        for _ in range(4):
            all_at_once(node, 4)
            print("megabytes, descriptors:", usage(node), "at first:", (memory, descriptors))
        after = usage(node)
        assert pool.echo(1) == 1
        assert node.pools() == ["db"]
        assert len(node.tree().children[0].children) == 1
        status = node.status("db")
    assert after[0] <= 1.05 * memory
    assert abs(after[1] - descriptors) <= 0.05 * descriptors
    assert status.monitors == status.waiting == 0
