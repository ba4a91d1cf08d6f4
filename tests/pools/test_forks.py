"""What code in a worker forks is an ordinary process: signals end it, and it never comes back as a second worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool.workers import EchoWorker, Worker, method
from tests.pools.conftest import StartPool

FORK = multiprocessing.get_context("fork")


def fork_and(end: str, file: str | None = None) -> Callable[[Any], int]:
    """A function that forks; its copy takes that way out of the call, the worker tells the copy's pid."""

    def function(_: Any) -> int:
        pid = os.fork()
        if pid:
            return pid
        if file is not None:
            Path(file).write_text(str(os.getpid()))
        if end == "raise":
            raise ValueError("a copy's own affair")
        if end == "exit":
            sys.exit(7)
        return -1

    return function


def status_of(_: Any, pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def double(number: int) -> int:
    return 2 * number


def doubled(_: Any) -> list[int]:
    with FORK.Pool(2) as pool:
        return pool.map(double, range(4))


def ended_by(_: Any, number: int) -> int | None:
    """The exit code of a child of multiprocessing after that signal; None if it lives on."""
    child = FORK.Process(target=time.sleep, args=(60,))
    child.start()
    time.sleep(0.05)
    os.kill(child.pid or 0, number)
    child.join(5)
    code = child.exitcode
    child.kill()
    child.join()
    return code


def own_handler_in_a_child(_: Any) -> int:
    """What a child's handler for SIGUSR1 is, once the parent has set one of its own."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        pid = os.fork()
        if not pid:
            os._exit(signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        signal.signal(signal.SIGUSR1, before)


def blocked(_: Any) -> set[Any]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def oom_score(_: Any) -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


@pytest.fixture
def pool(start: StartPool) -> actorpool.Pool:
    return start(EchoWorker, size=1, call_timeout=20.0)


@pytest.mark.parametrize(("end", "status"), [("return", 0), ("raise", 1), ("exit", 7)])
def test_a_copy_that_leaves_the_call_ends_and_the_caller_is_answered_once(
    pool: actorpool.Pool, end: str, status: int
) -> None:
    worker = pool.pid()
    with pool.checkout() as lease:
        child = lease.run(fork_and(end))
        assert child > 0
        assert lease.run(status_of, child) == status
        assert lease.echo(1) == 1
    assert pool.pid() == worker
    assert pool.status().restarts == 0


class Forker(Worker):
    """Forks in a hook, and lets the copy go on."""

    def __init__(self, where: str, book: str) -> None:
        self.where, self.book = where, book

    def _pass(self, hook: str) -> None:
        if hook == self.where and os.fork() == 0:
            return
        with open(self.book, "a") as file:
            file.write(f"{os.getpid()}\n")

    def open(self) -> None:
        self._pass("open")

    def check(self) -> None:
        self._pass("check")

    def reset(self) -> None:
        self._pass("reset")

    @method
    def run_in(self, book: str) -> int:
        """Write down who runs this."""
        with open(book, "a") as file:
            file.write(f"{os.getpid()}\n")
        return os.getpid()


@pytest.mark.parametrize("hook", ["open", "check", "reset"])
def test_a_copy_that_leaves_a_hook_ends_and_runs_no_call(start: StartPool, tmp_path: Path, hook: str) -> None:
    calls = str(tmp_path / "calls")
    fields = {"size": 1, "check_on_checkout": 0.0}
    pool = start(Forker, worker_args={"where": hook, "book": str(tmp_path / "book")}, **fields)
    pids = {pool.run_in(calls) for _ in range(5)}
    assert len(pids) == 1
    assert Path(calls).read_text().split() == [str(*pids)] * 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_signals_end_what_multiprocessing_has_forked_in_a_worker(pool: actorpool.Pool, number: int) -> None:
    assert pool.run(ended_by, number) == -number


def test_sigint_is_a_keyboard_interrupt_in_what_a_worker_forks(pool: actorpool.Pool) -> None:
    assert pool.run(ended_by, signal.SIGINT) == 1


def test_a_pool_of_multiprocessing_ends_with_its_block_in_a_worker(pool: actorpool.Pool) -> None:
    assert pool.run(doubled) == [0, 2, 4, 6]


def test_a_handler_that_user_code_has_set_is_inherited(pool: actorpool.Pool) -> None:
    assert pool.run(own_handler_in_a_child) == 1


def test_no_signal_is_blocked_in_a_worker_of_a_program_that_blocks_some() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})
    try:
        with actorpool.start(log_level="CRITICAL") as system:
            pool = system.start_pool("db", worker=EchoWorker, size=1)
            assert pool.run(blocked) == set()
            with pytest.raises(actorpool.CallTimeout):
                pool.call("sleep", 30, call_timeout=0.1)
            assert pool.status().restarts == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's own file")
def test_a_worker_is_the_first_choice_when_memory_runs_out(pool: actorpool.Pool) -> None:
    assert pool.run(oom_score) == 500
