"""How a worker's process ended is told, and a fault of the processor ends it like anything else."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
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


def deaf(_: Any) -> None:
    """Listens to no interrupt."""
    while True:
        try:
            time.sleep(0.05)
        except BaseException:
            continue


class Away(EchoWorker):
    def open(self) -> None:
        raise ConnectionError("nobody listens")


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


def node_of(pool: str, system: actorpool.System) -> Any:
    """The pool in the tree."""
    (manager,) = system.tree().children
    return next(node for node in manager.children if node.id == pool)


def warnings(log: Path, of: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if " WARNING " in line and of in line]


def test_the_end_and_the_restart_of_a_worker_are_one_warning(
    system: actorpool.System, log: Path, eventually: Callable[..., Any]
) -> None:
    pool = system.start_pool("one", worker=EchoWorker, size=1, max_overflow=0)
    os.kill(pool.workers()[0].pid or 0, signal.SIGKILL)
    assert pool.run(lambda _: 3) == 3
    assert eventually(lambda: len(warnings(log, "pool one: ")) == 1)
    assert warnings(log, "pool one: ")[0].endswith("is gone: killed by SIGKILL; it is restarted")


def test_the_end_of_a_shared_pools_worker_is_one_warning(
    system: actorpool.System, log: Path, eventually: Callable[..., Any]
) -> None:
    feeds = system.start_shared_pool("feeds")
    id = feeds.add(EchoWorker, resource="a", revive=True)
    pid = feeds.info(id).pid
    os.kill(pid or 0, signal.SIGKILL)
    eventually(lambda: feeds.info(id).pid not in (None, pid) and feeds.call("a", "echo", 1) == 1)
    (line,) = eventually(lambda: warnings(log, "shared pool feeds: "))
    assert f"(pid {pid}) is gone: killed by SIGKILL" in line
    system.stop_pool("feeds")
    assert len(warnings(log, "feeds")) == 1


def test_a_worker_that_was_killed_because_it_did_not_answer_is_a_warning_that_says_so(
    system: actorpool.System, log: Path, eventually: Callable[..., Any]
) -> None:
    pool = system.start_pool("deaf", worker=EchoWorker, size=1, max_overflow=0, kill_after=0.1)
    with pytest.raises(actorpool.CallTimeout):
        pool.run(deaf, call_timeout=0.05)
    (line,) = eventually(lambda: warnings(log, "pool deaf: "))
    assert "is gone: killed by SIGKILL, since it had not answered in time" in line
    assert "had not answered in time" in eventually(lambda: node_of("deaf", system).last_end)


def test_workers_that_end_as_they_are_told_are_no_warning(system: actorpool.System, log: Path) -> None:
    pool = system.start_pool("good", worker=EchoWorker, size=2, max_overflow=1)
    with pool.checkout(), pool.checkout(), pool.checkout():
        pass
    pool.resize(size=1)
    pool.recycle(restart=True)
    system.stop_pool("good")
    assert warnings(log, "good") == []


def test_the_end_and_the_restart_of_a_pool_are_a_warning_each(
    system: actorpool.System, log: Path, eventually: Callable[..., Any]
) -> None:
    pool = system.start_pool("whole", worker=EchoWorker, size=1)
    os.kill(node_of("whole", system).pid, signal.SIGKILL)
    assert eventually(lambda: pool.run(lambda _: 3) == 3)
    eventually(lambda: len(warnings(log, "child 'whole'")) == 2)
    ended, restarted = warnings(log, "child 'whole'")
    assert "ended: killed by SIGKILL" in ended
    assert "was restarted after it ended: killed by SIGKILL" in restarted


def test_a_circuit_breaker_that_opens_is_a_warning_with_its_cause(
    system: actorpool.System, log: Path, eventually: Callable[..., Any]
) -> None:
    breaker = actorpool.Breaker(failures=2)
    system.start_pool("cut", worker=Away, size=1, checkout_timeout=0.1, backoff_min=0.01, breaker=breaker)
    (line,) = eventually(lambda: warnings(log, "pool cut: the circuit breaker has opened"))
    assert "nobody listens" in line


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
