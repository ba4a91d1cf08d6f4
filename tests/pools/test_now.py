"""What runs now: who holds a worker and for what, and the stack of a worker that is stuck."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool.transport.usage_counters import NAME, UsagePages, name_of
from actorpool.workers import EchoWorker

Eventually = Callable[..., Any]


def hold(_: Any, until: str) -> str:
    while not os.path.exists(until):
        time.sleep(0.01)
    return "held"


def stick_in_c(_: Any, seconds: int) -> str:
    ctypes.PyDLL(None).sleep(seconds)  # with the interpreter's lock
    return "went on"


@pytest.fixture
def pool() -> Iterator[tuple[actorpool.System, Any]]:
    with actorpool.start(log_level="CRITICAL") as system:
        yield system, system.start_pool("db", worker=EchoWorker, size=1, max_overflow=0, checkout_timeout=30)


def test_the_name_of_what_runs_is_told_and_nothing_between_calls() -> None:
    pages = UsagePages()
    pages.take(1)
    pages.counts(1)
    slot = pages.slot(1)
    assert slot is not None
    assert slot.running() is None
    slot.runs("execute")
    assert slot.running() == "execute"
    slot.rests()
    assert slot.running() is None
    slot.runs(functools.partial(hold, until="/secret"))
    assert slot.running() == "hold"
    slot.runs("x" * 100)
    assert slot.running() == "x" * NAME


def test_what_is_called_is_named_without_running_code_of_its_own() -> None:
    class Callable:
        __slots__ = ()

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("no")

        def __call__(self) -> None: ...

    called = (hold, len, int, [].append, Callable())
    assert [name_of(one) for one in called] == ["hold", "len", "int", "append", "Callable"]


def test_a_lease_tells_its_holder_and_what_runs_while_others_wait(pool: Any, tmp_path: Path) -> None:
    system, db = pool
    done = tmp_path / "done"
    with ThreadPoolExecutor(2) as threads:
        holding = threads.submit(db.run, hold, str(done))
        began = time.monotonic()
        while not any(lease.function for lease in db.leases()):
            assert time.monotonic() < began + 10
        waiting = threads.submit(db.echo, "waited")
        asked = time.monotonic()
        while not system.status("db").waiting:
            assert time.monotonic() < began + 10
        time.sleep(1)
        status, [lease] = system.status("db"), db.leases()
        now = time.monotonic()
        done.touch()
        assert (holding.result(10), waiting.result(10)) == ("held", "waited")
    assert (lease.caller_pid, lease.function) == (os.getpid(), "hold")
    assert lease.program, "whatever runs the tests"
    assert abs(status.oldest_wait - (now - asked)) < 0.5
    assert abs(status.oldest_lease - (now - began)) < 0.5 + (asked - began)
    assert abs(lease.age - status.oldest_lease) < 0.5
    assert str(done) not in repr(lease)


def test_a_lease_between_two_calls_runs_nothing(pool: Any) -> None:
    _, db = pool
    with db.checkout() as lease:
        assert lease.echo(1) == 1
        [told] = db.leases()
        assert (told.function, told.caller_pid) == (None, os.getpid())


def test_a_script_is_told_by_its_name_and_not_its_arguments(tmp_path: Path) -> None:
    script = tmp_path / "report.py"
    script.write_text(
        "import actorpool\nfrom actorpool.workers import EchoWorker\n"
        "if __name__ == '__main__':\n"
        "    with actorpool.start() as system:\n"
        "        db = system.start_pool('db', worker=EchoWorker, size=1)\n"
        "        with db.checkout():\n"
        "            print(db.leases()[0].program)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), "--token=hunter2"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "report.py\n"


@pytest.mark.parametrize("stuck", [False, True])
def test_the_stack_of_a_worker_is_told_within_a_second_and_its_call_goes_on(
    stuck: bool, pool: Any, tmp_path: Path
) -> None:
    system, db = pool
    done = tmp_path / "done"
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(db.run, stick_in_c, 4) if stuck else threads.submit(db.run, hold, str(done))
        began = time.monotonic()
        while not any(lease.function for lease in db.leases()):
            assert time.monotonic() < began + 10
        [worker] = db.workers()
        asked = time.monotonic()
        text = system.stack("db", worker.id)
        assert time.monotonic() - asked < 2, "one second, on a machine that is busy"
        done.touch()
        assert running.result(20) == ("went on" if stuck else "held")
    assert f"in {'stick_in_c' if stuck else 'hold'}" in text
    assert db.workers()[0].pid == worker.pid


def test_several_who_ask_at_once_get_each_the_stack_of_their_worker() -> None:
    with actorpool.start(log_level="CRITICAL") as system, ThreadPoolExecutor(8) as threads:
        db = system.start_pool("db", worker=EchoWorker, size=3)
        ids = [worker.id for worker in db.workers()]
        told = list(threads.map(lambda id: system.stack("db", id), ids * 4))
        assert all("most recent call first" in text for text in told)
        assert {worker.restarts for worker in db.workers()} == {0}


def test_who_cannot_be_asked_is_said(pool: Any, eventually: Eventually) -> None:
    system, db = pool
    with pytest.raises(LookupError, match="no worker 99; there are: 1"):
        system.stack("db", 99)
    with pytest.raises(actorpool.PoolNotFound):
        system.stack("other", 1)
    [worker] = db.workers()
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError, match="has not told its stack within 1 s"):
        system.stack("db", worker.id)
    os.kill(worker.pid, signal.SIGCONT)
    assert eventually(lambda: db.echo(threading.get_ident())) == threading.get_ident()
