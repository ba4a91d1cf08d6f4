"""A worker is there at once: with its connection, and without what Thespian would keep of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import actorpool
from actorpool.workers import EchoWorker, Worker

from .conftest import StartPool


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def sockets_of(pid: int) -> int:
    links = (os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    return sum(link.startswith("socket:") for link in links)


def test_a_pool_keeps_one_connection_to_each_worker(start: StartPool, eventually: Callable[..., Any]) -> None:
    few, many = start(EchoWorker, size=2), start(EchoWorker, size=42)
    pools = [parent_of(pool.workers()[0].pid or 0) for pool in (few, many)]
    eventually(lambda: sockets_of(pools[1]) - sockets_of(pools[0]) == 40, timeout=5.0)


class Forked(Worker):
    """Has a process of its own from the beginning, with copies of all its descriptors."""

    def __init__(self) -> None:
        if not os.fork():
            signal.pause()
            os._exit(0)


def test_a_call_that_a_dead_worker_has_not_read_is_run_by_its_successor(
    start: StartPool, node: actorpool.System, eventually: Callable[..., Any]
) -> None:
    pool = start(Forked, size=1)
    victim = pool.workers()[0].pid
    assert victim is not None
    with node.actor_system.private() as asker:
        os.kill(victim, signal.SIGSTOP)
        asker.tell(node.manager, actorpool.WithConnection(pool.name, _pid, timeout=20))
        eventually(pool.leases)
        os.kill(victim, signal.SIGKILL)
        assert asker.listen(20).unwrap() != victim


def _pid(_: Any) -> int:
    return os.getpid()
