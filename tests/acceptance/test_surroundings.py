"""Programs as they are: threads that end, forks that live on, Ctrl-C, strict interpreters, many things at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import actorpool
from tests.acceptance import kit

PROLOGUE = "import os, sys, time, threading, signal\nimport actorpool\nfrom tests.acceptance import kit\n"


def run(text: str, *flags: str, timeout: float = 40, **options: Any) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, *flags, "-c", PROLOGUE + text]
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, **options)


def test_a_system_outlives_the_thread_that_started_it() -> None:
    started: list[actorpool.System] = []
    thread = threading.Thread(target=lambda: started.append(actorpool.start()))
    thread.start()
    thread.join()
    (system,) = started
    pools: list[actorpool.Pool] = []
    thread = threading.Thread(target=lambda: pools.append(system.start_pool("p", worker=kit.Toy, size=2)))
    thread.start()
    thread.join()
    time.sleep(0.3)  # what the kernel does at the end of a thread, it does at once
    assert pools[0].echo(1) == 1
    with pools[0].checkout() as lease:
        assert lease.echo(2) == 2
    system.shutdown()


def test_a_forked_child_that_lives_on_does_not_keep_the_node_of_its_dead_parent(tmp_path: Path) -> None:
    text = PROLOGUE + (
        "system = actorpool.start()\npool = system.start_pool('p', worker=kit.Toy, size=1)\npid = pool.pid()\n"
        "child = os.fork()\n"
        "if child == 0:\n    time.sleep(30)\n    os._exit(0)\n"
        "print(pid, child, flush=True)\ntime.sleep(30)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    worker, child = (int(word) for word in owner.stdout.readline().split())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    try:
        deadline = time.monotonic() + 2
        while psutil.pid_exists(worker) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not psutil.pid_exists(worker)
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_end_of_a_forked_child_ends_nothing_of_its_parents() -> None:
    done = run(
        "with actorpool.start() as system:\n"
        "    pool = system.start_pool('p', worker=kit.Toy, size=2)\n"
        "    lease = pool.checkout()\n"
        "    for end in (lambda: os._exit(0), lambda: sys.exit(0), lambda: system.shutdown() or os._exit(0)):\n"
        "        child = os.fork()\n"
        "        if child == 0:\n"
        "            assert pool.echo(5) == 5\n"
        "            end()\n"
        "        os.waitpid(child, 0)\n"
        "        assert lease.echo(1) == 1 and pool.echo(2) == 2\n"
        "    lease.checkin()\n"
        "    print('alive', system.pools())\n"
    )
    assert done.stdout.splitlines()[-1:] == ["alive ['p']"], done.stderr


def test_ctrl_c_interrupts_the_call_and_leaves_the_system_whole() -> None:
    done = run(
        "with actorpool.start() as system:\n"
        "    pool = system.start_pool('p', worker=kit.Toy, size=1)\n"
        "    for number in range(3):\n"
        "        threading.Timer(0.2, lambda: os.killpg(0, signal.SIGINT)).start()\n"
        "        began = time.monotonic()\n"
        "        try:\n"
        "            pool.call('sleep', 30)\n"
        "        except KeyboardInterrupt:\n"
        "            print('interrupted', time.monotonic() - began < 2)\n"
        "        print(pool.echo(number), pool.status().monitors in (0, 1))\n"
        "    while pool.status().monitors: pass\n"
        "    print('whole', pool.status().workers)\n",
        start_new_session=True,
    )
    assert done.stdout.splitlines() == [
        "interrupted True", "0 True", "interrupted True", "1 True", "interrupted True", "2 True", "whole 1",
    ], done.stderr  # fmt: skip


def test_a_strict_interpreter_finds_nothing_to_complain_about() -> None:
    done = run(
        "import asyncio\n"
        "system = actorpool.start()\n"
        "pool = system.start_pool('p', worker=kit.Toy, size=2)\n"
        "assert pool.echo(1) == 1\n"
        "with pool.checkout() as lease: assert lease.echo(2) == 2\n"
        "async def use():\n"
        "    async with pool.aio.checkout() as lease: assert await lease.echo(3) == 3\n"
        "asyncio.run(use())\n"
        "thread = threading.Thread(target=pool.echo, args=(4,))\nthread.start()\nthread.join()\n"
        "system.shutdown()\nprint('fine')\n",
        "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning:thespian",
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_the_arguments_of_workers_are_in_no_command_line_or_environment() -> None:
    with actorpool.start() as system:
        system.start_pool("p", worker=kit.Toy, worker_args={"secret": "hunter2"}, size=1)
        for process in psutil.Process().children(recursive=True):
            if process.status() != psutil.STATUS_ZOMBIE:
                assert "hunter2" not in " ".join(process.cmdline())
                assert "hunter2" not in str(process.environ())


def test_of_many_threads_that_start_one_name_exactly_one_succeeds(node: actorpool.System) -> None:
    def start(size: int) -> Any:
        try:
            return node.start_pool("contended", worker=kit.Toy, size=size)
        except actorpool.PoolAlreadyExists as error:
            return error

    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(start, range(1, 7)))
    winners = [result for result in results if not isinstance(result, Exception)]
    assert len(winners) == 1
    assert winners[0].echo(1) == 1
    node.stop_pool("contended")


def test_pools_start_and_stop_side_by_side(node: actorpool.System) -> None:
    def cycle(number: int) -> None:
        for turn in range(3):
            name = f"side{number}-{turn}"
            pool = node.start_pool(name, worker=kit.Toy, size=1)
            assert pool.echo(turn) == turn
            node.stop_pool(name)

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(cycle, range(5)))
    assert not [name for name in node.pools() if name.startswith("side")]


def test_shutdown_tells_the_calls_of_other_threads(eventually: Callable[..., Any]) -> None:
    system = actorpool.start(log_level="CRITICAL")
    pool = system.start_pool("p", worker=kit.Toy, size=1, max_overflow=0, checkout_timeout=30)
    outcomes: list[Any] = []

    def use(call: Callable[[], Any]) -> None:
        try:
            outcomes.append(call())
        except actorpool.ActorPoolError as error:
            outcomes.append(error)

    threads = [
        threading.Thread(target=use, args=(call,)) for call in (lambda: pool.call("sleep", 30), lambda: pool.echo(1))
    ]
    for number, thread in enumerate(threads):
        thread.start()
        eventually(lambda want=number: (s := pool.status()).monitors == 1 and s.waiting == want)
    started = time.monotonic()
    system.shutdown(timeout=5)
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - started < 6
    assert len(outcomes) == 2
    assert all(isinstance(outcome, actorpool.ActorPoolError) for outcome in outcomes), outcomes


def test_shutdown_keeps_its_timeout_whatever_workers_do(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    system = actorpool.start(log_level="CRITICAL")
    pool = system.start_pool("p", worker=kit.Toy, size=1, kill_after=60.0)
    mark = tmp_path / "mark"
    thread = threading.Thread(target=lambda: _quietly(lambda: pool.run(kit.ignore_interrupts, 60, str(mark))))
    thread.start()
    pid = int(eventually(lambda: mark.read_text()))
    started = time.monotonic()
    system.shutdown(timeout=1.0)
    assert time.monotonic() - started < 4
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    thread.join(5)
    assert not thread.is_alive()


def _quietly(call: Callable[[], Any]) -> None:
    try:
        call()
    except actorpool.ActorPoolError:
        pass


def test_two_systems_in_one_process_do_not_know_each_other() -> None:
    with actorpool.start() as one, actorpool.start() as two:
        first = one.start_pool("p", worker=kit.Toy, size=1)
        second = two.start_pool("p", worker=kit.Toy, size=2)
        assert {w.pid for w in first.workers()}.isdisjoint({w.pid for w in second.workers()})
        with first.checkout() as lease, pytest.raises(ValueError, match="p"):
            second.checkin(lease)
        assert one.actor_system.ask(one.manager, actorpool.GetPoolStatus("p"), 5).unwrap().size == 1
        assert two.actor_system.ask(two.manager, actorpool.GetPoolStatus("p"), 5).unwrap().size == 2
        two.shutdown()
        assert first.echo(1) == 1


def test_a_worker_may_start_a_system_of_its_own(pool: Callable[..., actorpool.Pool]) -> None:
    assert pool().run(nested_system) == 7


def nested_system(_connection: Any) -> Any:
    with actorpool.start() as system:
        return system.start_pool("inner", worker=kit.Toy, size=1).echo(7)


def test_start_works_inside_a_running_event_loop() -> None:
    async def use() -> Any:
        with actorpool.start() as system:
            pool = system.start_pool("p", worker=kit.Toy, size=1)
            return await pool.aio.echo(3)

    assert asyncio.run(use()) == 3


def test_start_works_in_a_daemon_without_standard_streams(tmp_path: Path) -> None:
    result = tmp_path / "result"
    text = PROLOGUE + (
        "for fd in (0, 1, 2): os.close(fd)\n"
        "with actorpool.start() as system:\n"
        "    value = system.start_pool('p', worker=kit.Toy, size=1).echo(9)\n"
        f"open({str(result)!r}, 'w').write(str(value))\n"
    )
    subprocess.run([sys.executable, "-c", text], timeout=30, check=False)
    assert result.read_text() == "9"


def test_a_directory_that_is_gone_or_strange_is_no_obstacle(tmp_path: Path) -> None:
    strange = tmp_path / "ein Ordner mit ümlaut"
    strange.mkdir()
    text = (
        f"actorpool.start, actorpool.workers\nos.chdir({str(strange)!r})\nos.rmdir({str(strange)!r})\n"
        "with actorpool.start() as system: print(system.start_pool('p', worker=kit.Toy, size=1).echo(4))\n"
    )
    done = run(text)
    assert done.stdout == "4\n", done.stderr


def test_a_runtime_directory_that_is_too_long_is_refused_with_advice(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 90)
    done = run("actorpool.start()", env={**os.environ, "ACTORPOOL_RUNTIME_DIR": str(deep)})
    assert done.returncode == 1
    assert "ACTORPOOL_RUNTIME_DIR" in done.stderr.splitlines()[-1]


def test_thousands_of_calls_leave_nothing_behind_in_the_pool(
    pool: Callable[..., actorpool.Pool], node: actorpool.System
) -> None:
    p = pool(size=2, checkout_timeout=20)
    parent = psutil.Process(p.pid()).parent()
    assert parent is not None

    def use(_: int) -> None:
        for number in range(200):
            p.echo(number)
            with p.checkout() as lease:
                lease.echo(1)

    def forked() -> None:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                p.echo(1)
                os._exit(0)
            os.waitpid(child, 0)

    use(0)
    forked()
    descriptors, memory = parent.num_fds(), parent.memory_info().rss
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(8)))
    forked()
    deadline = time.monotonic() + 5
    while parent.num_fds() > descriptors + 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert parent.num_fds() <= descriptors + 8, "at most the free lines of four threads"
    assert parent.memory_info().rss < memory + 8_000_000


def test_a_pool_of_many_workers_starts_and_serves(node: actorpool.System) -> None:
    started = time.monotonic()
    pool = node.start_pool("many", worker=kit.Toy, size=60, max_overflow=0)
    took = time.monotonic() - started
    leases = [pool.checkout() for _ in range(60)]
    assert len({lease.worker_pid for lease in leases}) == 60
    assert [lease.echo(n) for n, lease in enumerate(leases)] == list(range(60))
    for lease in leases:
        lease.checkin()
    print(f"60 workers started in {took:.2f} s")
    assert took < 10
    node.stop_pool("many")


def test_workers_killed_all_at_once_are_all_replaced(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=6, max_restarts=100)
    for _ in range(3):
        pids = [worker.pid for worker in p.workers()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert p.echo("served") == "served"
        eventually(lambda old=set(pids): len(now := {w.pid for w in p.workers()}) == 6 and not now & old)
        eventually(lambda: p.status().workers == 6)


def test_an_alarm_that_user_code_sets_ends_its_own_call_and_nothing_else(pool: Callable[..., actorpool.Pool]) -> None:
    p = pool()
    pid = p.pid()
    with pytest.raises(actorpool.CallTimeout, match="alarm"):
        p.run(set_alarm, 0.1)
    assert p.pid() == pid
    assert p.status().restarts == 0


def set_alarm(_connection: Any, seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    time.sleep(30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE, signal.SIGWINCH])
def test_signals_that_are_not_for_it_leave_a_worker_alone(pool: Callable[..., actorpool.Pool], number: int) -> None:
    p = pool()
    pid = p.pid()
    for _ in range(3):
        os.kill(pid, number)
        assert p.pid() == pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGQUIT, signal.SIGABRT])
def test_whatever_signal_ends_an_idle_worker_no_call_fails(pool: Callable[..., actorpool.Pool], number: int) -> None:
    p = pool(max_restarts=100)
    for turn in range(5):
        os.kill(p.pid(), number)
        assert p.echo(turn) == turn


def test_a_stopped_worker_does_not_stop_the_pool(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(size=2, kill_after=0.3, max_restarts=100)
    with p.checkout() as lease:
        pid = lease.worker_pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(actorpool.CallTimeout):
            lease.call("echo", 1, call_timeout=0.2)
    eventually(lambda: not psutil.pid_exists(pid))
    eventually(lambda: p.status().workers == 2)
    assert p.echo(1) == 1
