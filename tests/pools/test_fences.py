"""A worker runs what its own pool has granted for it, and nothing of which the caller was told that it is over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import Call, CallTimeout, Checkin, Checkout, Err, LeaseExpired
from actorpool.serialization import pickling
from actorpool.transport import frames, paths
from actorpool.transport.client import ClientConn
from actorpool.workers import EchoWorker, Worker, method
from tests.pools.conftest import StartPool

HUGE = 2**62
"""Of an invented lease: higher than any that there will be."""


@pytest.fixture(params=["node", "messages"])
def system(request: pytest.FixtureRequest, node: actorpool.System) -> Iterator[actorpool.System]:
    """A system whose workers are processes, and one that hosts all in this one."""
    if request.param == "node":
        yield node
        return
    with actorpool.start(base="simpleSystemBase") as inside:
        yield inside


def test_a_call_with_the_grant_of_another_worker_is_expired_and_the_worker_serves_its_own_caller(
    system: actorpool.System,
) -> None:
    ask, manager = system.actor_system.ask, system.manager
    pool = system.start_pool("two", worker=EchoWorker, size=2, max_overflow=0)
    older, younger = (ask(manager, Checkout("two"), 5).unwrap() for _ in range(2))
    for there, theirs in ((older.worker, younger), (younger.worker, older)):
        mixed = ask(there, Call(theirs, "echo", (1,)), 5)
        assert isinstance(mixed, Err)
        assert isinstance(mixed.error, LeaseExpired)
    for grant in (older, younger):
        assert ask(grant.worker, Call(grant, "echo", (2,)), 5).unwrap() == 2
        system.actor_system.tell(manager, Checkin(grant))
    assert [pool.echo(number) for number in range(5)] == list(range(5))
    assert pool.status().restarts == 0
    system.stop_pool("two")


@pytest.fixture
def line(node: actorpool.System) -> Iterator[Callable[[int], ClientConn]]:
    """A line of a stranger to the socket of a worker, by its pid."""
    made: list[ClientConn] = []

    def connect(pid: int) -> ClientConn:
        made.append(ClientConn(paths.worker(str(node.directory), pid)))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def test_no_number_that_was_not_granted_moves_the_fence_of_a_worker(
    start: StartPool, line: Callable[[int], ClientConn]
) -> None:
    pool = start(EchoWorker, size=1)
    with pool.checkout() as lease:
        assert lease.echo(1) == 1
        stranger = line(lease.worker_pid)
        call = pickling.dumps(("echo", (1,), {}))
        for number, flags in ((HUGE, 0), (HUGE, frames.STICKY), (HUGE, frames.TURN), (lease.id, 0)):
            stranger.send(frames.CALL, ref := stranger.new_ref(), frames.CALL_HEAD.pack(number, flags, 1) + call)
            assert stranger.receive(ref)[0] == frames.NOT_STARTED
        for body in (b"", frames.END_BODY.pack(1), b"junk"):
            for number in (HUGE, lease.id):
                stranger.send(frames.END, number, body)
        stranger.send(frames.CONTROL, 0, b"junk")
        assert lease.echo(2) == 2
        assert lease.echo(3) == 3
    assert [pool.echo(number) for number in range(5)] == list(range(5))
    assert pool.status().restarts == 0


def test_a_frame_that_is_cut_short_is_answered_and_the_worker_lives(
    start: StartPool, line: Callable[[int], ClientConn]
) -> None:
    pool = start(EchoWorker, size=1)
    pid = pool.workers()[0].pid
    assert pid is not None
    stranger = line(pid)
    stranger.send(frames.CALL, ref := stranger.new_ref(), b"\0\1")
    assert stranger.receive(ref)[0] == frames.ERROR
    assert pool.workers()[0].pid == pid
    assert pool.echo(1) == 1


def test_a_lease_whose_worker_died_runs_nothing_in_a_worker_of_another_pool_that_has_its_pid_now(
    start: StartPool,
) -> None:
    mine, other = start(EchoWorker, size=1), start(EchoWorker, size=1)
    for _ in range(3):
        mine.checkout().checkin()
    with other.checkout() as theirs, mine.checkout() as lease:
        assert theirs.echo(1) == 1
        lease._handle.worker_pid = theirs.worker_pid  # what the kernel may do with the pid of a process that is gone
        with pytest.raises(LeaseExpired):
            lease.echo(2)
        assert theirs.echo(3) == 3


class Slow(Worker):
    """Takes so many seconds for a check; writes down what it runs."""

    def __init__(self, delay: float) -> None:
        self.delay = delay

    def check(self) -> None:
        time.sleep(self.delay)

    @method
    def mark(self, path: str) -> None:
        Path(path).touch()


def test_nothing_is_run_once_its_caller_was_told_that_it_is_interrupted(start: StartPool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pool = start(Slow, worker_args={"delay": 0.6}, size=1, check_on_checkout=0.05, kill_after=20.0)
    time.sleep(0.2)
    with pytest.raises(CallTimeout):
        pool.call("mark", str(mark), call_timeout=0.2)
    with pool.checkout(timeout=20.0):  # the worker is back from it
        assert not mark.exists()


def test_nothing_of_the_message_way_is_run_once_its_caller_was_told_that_it_is_interrupted(
    node: actorpool.System, start: StartPool, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    limits = {"call_timeout": 0.2, "kill_after": 20.0}
    pool = start(Slow, worker_args={"delay": 0.0}, size=1, check_on_checkout=None, **limits)
    pid = pool.workers()[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # its order is there, and not read
    request = actorpool.WithConnection(pool.name, _mark, (str(mark),))
    try:
        answer = node.actor_system.ask(node.manager, request, 10)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, CallTimeout)
    with pool.checkout(timeout=20.0):
        assert not mark.exists()
    assert pool.status().restarts == 0


def _mark(_connection: Any, path: str) -> None:
    Path(path).touch()


SLOW_TO_LOAD = """
import time
with open({journal!r}, "a") as journal:
    print("begun", file=journal)
for _ in range(60):
    time.sleep(0.01)
with open({journal!r}, "a") as journal:
    print("done", file=journal)
def answer(_connection):
    return 42
"""


@pytest.mark.slow
def test_an_interrupt_waits_while_a_worker_imports_the_callers_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal"
    (tmp_path / "slow_to_load.py").write_text(SLOW_TO_LOAD.format(journal=str(journal)))
    monkeypatch.syspath_prepend(tmp_path)
    import slow_to_load  # type: ignore[import-not-found]

    journal.unlink()
    with actorpool.start(log_level="CRITICAL") as system:  # its workers find the module
        pool = system.start_pool("p", worker=EchoWorker, size=1, max_overflow=0, kill_after=20.0)
        with pytest.raises(CallTimeout):
            pool.run(slow_to_load.answer, call_timeout=0.2)
        assert pool.run(slow_to_load.answer, checkout_timeout=20.0) == 42
    assert journal.read_text().split() == ["begun", "done"]
