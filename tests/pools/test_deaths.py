"""How a worker's process ended is told, and a fault of the processor ends it like anything else."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from thespian.actors import Actor

import actorpool
from actorpool import WorkerDied
from actorpool.supervisors import ChildSpec, Supervised, SupervisorSpec, WhereIs
from actorpool.workers import EchoWorker
from tests.pools.conftest import StartPool


def fault(_: Any) -> None:
    """What a bug in a C library does."""
    ctypes.string_at(0)


def kill(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(_: Any) -> None:
    os._exit(3)


class Frail(Supervised, Actor):  # type: ignore[misc]
    """Tells its pid; "fault" is more than it can take."""

    def init(self) -> None:
        """Nothing to begin with."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        if message == "fault":
            fault(None)
        elif message == "pid":
            self.send(sender, os.getpid())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "node.log"


@pytest.fixture
def system(log: Path) -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL", log_file=log) as running:
        yield running


@pytest.mark.parametrize(
    ("end", "told"), [(fault, "killed by SIGSEGV"), (kill, "killed by SIGKILL"), (leave, "exit status 3")]
)
def test_the_log_says_how_a_worker_ended(
    system: actorpool.System, log: Path, eventually: Callable[..., Any], end: Callable[[Any], None], told: str
) -> None:
    pool = system.start_pool(end.__name__, worker=EchoWorker, size=1, max_overflow=0)
    pid = pool.run(lambda _: os.getpid())
    with pytest.raises(WorkerDied):
        pool.run(end, call_timeout=10)
    eventually(lambda: f"(pid {pid}) is gone: {told}" in log.read_text())
    assert pool.run(lambda _: os.getpid()) != pid


def test_an_actor_that_faults_is_restarted(system: actorpool.System, eventually: Callable[..., Any]) -> None:
    supervisor = system.supervise(SupervisorSpec([ChildSpec("frail", Frail)]))
    thespian = system.actor_system

    def frail() -> Any:
        return thespian.ask(supervisor, WhereIs("frail"), 5).unwrap()

    pid = thespian.ask(frail(), "pid", 5)
    thespian.tell(frail(), "fault")
    eventually(lambda: (address := frail()) is not None and thespian.ask(address, "pid", 0.5) not in (pid, None))


ASKS_AND_DIES = """
import os, sys
import actorpool
system = actorpool.connect(sys.argv[1])
system.actor_system.tell(system.manager, actorpool.Checkout(sys.argv[2]))
system.actor_system.tell(system.manager, actorpool.WithConnection(sys.argv[2], repr))
system.actor_system.ask(system.manager, actorpool.ListPools(), 10)
os._exit(0)
"""


def test_a_caller_that_is_dead_when_its_request_is_handled_gets_no_worker(
    node: actorpool.System, start: StartPool
) -> None:
    pool = start(EchoWorker, size=1)
    nodes = [node.tree()]
    for one in nodes:
        nodes.extend(one.children)
    (pid,) = (one.pid for one in nodes if one.id == pool.name)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        subprocess.run([sys.executable, "-c", ASKS_AND_DIES, node.name, pool.name], check=True, timeout=60)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert pool.echo(1, checkout_timeout=20.0) == 1
    assert not pool.leases()
    assert pool.status().checkouts <= 2  # only ours


def test_a_lease_whose_asker_has_gone_while_its_process_lives_is_given_back(
    node: actorpool.System, start: StartPool, eventually: Callable[..., Any]
) -> None:
    pool = start(EchoWorker, size=1)
    with pool.checkout(), node.actor_system.private() as asker:
        asker.tell(node.manager, actorpool.Checkout(pool.name, timeout=60.0))
        eventually(lambda: pool.status().waiting == 1)
    assert pool.echo(1, checkout_timeout=30.0) == 1
    eventually(lambda: not pool.leases(), timeout=30.0)
