"""A forked child of a process whose threads are in the middle of something."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import actorpool
from actorpool import LocalPool, PoolConfig
from actorpool.client._at_fork import renewed
from actorpool.client._message_client import MessageClient
from actorpool.client.sandboxes import Gate
from actorpool.workers import EchoWorker


def in_child(act: Callable[[], Any]) -> int:
    """Run it in a forked child; the child's exit status, 0 if it came to its end within some seconds."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Owner:
    def __init__(self) -> None:
        self.lock = renewed(self, "lock", threading.Lock)


def test_a_lock_that_was_held_is_free_in_a_child_and_held_in_the_parent() -> None:
    owner = Owner()
    with owner.lock:
        assert in_child(lambda: owner.lock.acquire(timeout=5) or os._exit(3)) == 0
        assert owner.lock.locked()


def test_an_owner_is_not_kept_alive() -> None:
    owner = Owner()
    known = weakref.ref(owner)
    del owner
    assert known() is None


@pytest.fixture(scope="module")
def system() -> Any:
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


def test_no_part_of_a_system_waits_in_a_child_for_a_thread_of_the_parent(system: actorpool.System) -> None:
    mail, gate = MessageClient(system._node_client), Gate()
    local = LocalPool(PoolConfig(worker=EchoWorker))
    pool = system.start_pool("forked", worker=EchoWorker, size=1)
    pool.echo(1)
    held = [system._lock, system._node_client._lock, mail._turns, gate._lock, local._local._changed]  # type: ignore[attr-defined]
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in held:
            lock.acquire()
        taken.set()
        over.wait(60)
        for lock in held:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()

    def act() -> None:
        gate.ticket()
        gate.leave()
        with mail._turns:
            assert pool.echo(2) == 2
        assert local.echo(3) == 3
        assert system.pools() == ["forked"]
        system.shutdown()

    try:
        assert in_child(act) == 0
    finally:
        over.set()
        thread.join()
    assert pool.echo(4) == 4
    system.stop_pool("forked")


def test_children_of_a_busy_process_never_hang(system: actorpool.System) -> None:
    pool = system.start_pool("busy", worker=EchoWorker, size=2)
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            pool.echo(1)
            system.actor_system  # noqa: B018
            system.pools()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()

    def act() -> None:
        assert pool.echo(2) == 2
        assert pool.status().size == 2
        system.shutdown()

    try:
        assert [in_child(act) for _ in range(15)] == [0] * 15
    finally:
        over.set()
        for thread in threads:
            thread.join()
        system.stop_pool("busy")
