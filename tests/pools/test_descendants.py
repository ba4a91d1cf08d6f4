"""What a worker's process has started ends with it, daemons included; what a call has started, with its interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import CallTimeout, process
from actorpool.supervisors import ChildSpec
from actorpool.workers import EchoWorker, Worker, method
from tests.pools.conftest import StartPool

pytestmark = pytest.mark.skipif(not process.CAN_LINK, reason="daemons can be found by a subreaper only")

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
# A shell's child, and a daemon by the book: two forks and a session of its own. Each prints its pid.
SHELL = f"""{sys.executable} -S -c 'import time; time.sleep(60)' & echo $!; wait"""
DAEMON = """
import os, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
time.sleep(60)
"""


def started(command: list[str]) -> int:
    """Start it; the pid that it prints."""
    member = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert member.stdout is not None
    return int(member.stdout.readline())


def start_all(_: Any = None) -> list[int]:
    """A child, a child's child, a daemon: their pids."""
    return [subprocess.Popen(SLEEP).pid, started(["sh", "-c", SHELL]), started([sys.executable, "-S", "-c", DAEMON])]


def start_and_wait(_: Any, file: str) -> None:
    """Write the pids into a file, and wait for the first of them, as a `with` block does."""
    with subprocess.Popen(SLEEP) as first:
        Path(file).write_text(" ".join(map(str, [first.pid, *start_all()])))


def leave(_: Any) -> None:
    os._exit(3)


def pids_in(file: Path) -> list[int]:
    return [int(pid) for pid in file.read_text().split()]


def none_lives(pids: list[int]) -> bool:
    return not any(process.alive(pid) for pid in pids)


class Keeper(Worker):
    """Starts processes when it connects, and keeps them."""

    def open(self) -> None:
        self.pids = start_all()

    @method
    def kept(self) -> list[int]:
        """What `open` has started."""
        return self.pids


@pytest.fixture
def system() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


def by_signal(number: int) -> Callable[[actorpool.System, actorpool.Pool], None]:
    return lambda _, pool: os.kill(pool.pid(), number)


def by_exit(_: actorpool.System, pool: actorpool.Pool) -> None:
    with pytest.raises(actorpool.WorkerDied):
        pool.run(leave)


def killed(process: Callable[[actorpool.System, actorpool.Pool], int]) -> Any:
    return lambda system, pool: os.kill(process(system, pool), signal.SIGKILL)


def manager_of(system: actorpool.System, _: Any) -> int:
    return pid_of(system.tree(), "pool", 0)


def pool_of(system: actorpool.System, _: Any) -> int:
    return pid_of(system.tree(), "pool", 1)


def pid_of(tree: Any, kind: str, above: int) -> int:
    """The process of the first node of that kind; or, if `above` is 0, of its parent."""
    for child in tree.children:
        if child.kind == kind:
            return child.pid if above else tree.pid
    for child in tree.children:
        found = pid_of(child, kind, above)
        if found:
            return found
    return 0


ENDS = {
    "SIGTERM": by_signal(signal.SIGTERM),
    "SIGKILL": by_signal(signal.SIGKILL),
    "SIGSEGV": by_signal(signal.SIGSEGV),
    "os._exit": by_exit,
    "stop_pool": lambda system, pool: system.stop_pool("db"),
    "resize": lambda system, pool: pool.resize(0),
    "recycle": lambda system, pool: pool.recycle(restart=True),
    "its pool is killed": killed(pool_of),
    "the manager is killed": killed(manager_of),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.slow
def test_what_a_worker_has_started_ends_with_it(
    system: actorpool.System, eventually: Callable[..., Any], end: str
) -> None:
    pool = system.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
    pids = pool.run(start_all)
    time.sleep(0.05)
    assert all(process.alive(pid) for pid in pids), "they live between two calls"
    ENDS[end](system, pool)
    eventually(lambda: none_lives(pids))


def test_what_other_workers_have_started_lives_on(system: actorpool.System, eventually: Callable[..., Any]) -> None:
    pool = system.start_pool("db", worker=EchoWorker, size=2, max_overflow=0)
    with pool.checkout() as one, pool.checkout() as other:
        ours, theirs = one.run(start_all), other.run(start_all)
        os.kill(one.worker_pid, signal.SIGKILL)
        eventually(lambda: none_lives(ours))
        assert all(process.alive(pid) for pid in theirs)
        assert other.echo(1) == 1


def test_what_an_interrupted_call_had_started_ends_and_what_open_started_lives_on(
    start: StartPool, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    pool = start(Keeper, size=1, kill_after=5.0)
    kept, earlier, worker = pool.kept(), pool.run(start_all), pool.run(pid_here)
    time.sleep(0.02)  # the kernel counts hundredths of a second
    with pytest.raises(CallTimeout):
        pool.run(start_and_wait, str(tmp_path / "pids"), call_timeout=1.5)
    pids = pids_in(tmp_path / "pids")
    assert len(pids) == 4
    eventually(lambda: none_lives(pids))
    assert all(process.alive(pid) for pid in [*kept, *earlier])
    assert pool.run(pid_here) == worker, "the call ended in time, although it waited for its child"


def pid_here(_: Any) -> int:
    return os.getpid()


def test_what_a_supervised_worker_has_started_ends_with_it(
    system: actorpool.System, eventually: Callable[..., Any]
) -> None:
    system.supervise(ChildSpec("caller", Caller))
    victim = pid_of(system.tree(), "worker", 1)
    pids = [pid for pid in host_children(victim) if process.alive(pid)]
    assert len(pids) == 3
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: none_lives(pids))


class Caller(EchoWorker):
    """Starts processes as soon as it is made."""

    def __init__(self) -> None:
        super().__init__()
        start_all()


def host_children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_daemons_that_have_ended_do_not_pile_up(start: StartPool, eventually: Callable[..., Any]) -> None:
    pool = start(EchoWorker, size=1)
    assert pool.run(start_daemons_that_end, 100) == 7
    eventually(lambda: pool.run(zombies) <= 40, timeout=10)


def start_daemons_that_end(_: Any, number: int) -> int:
    """Leave so many orphans that end at once; the status of a child that is asked for late."""
    late = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"])
    subprocess.run(["sh", "-c", f"for i in $(seq {number}); do (true &) ; done"], check=True)
    time.sleep(0.3)
    return late.wait()


def zombies(_: Any) -> int:
    pids = host_children(os.getpid())
    subprocess.run(["true"], check=True)  # a death, which has the worker look
    return sum(not process.alive(pid) for pid in pids)


def test_shared_memory_that_a_killed_worker_has_left_is_removed(
    system: actorpool.System, eventually: Callable[..., Any]
) -> None:
    pool = system.start_pool("db", worker=EchoWorker, size=1)
    name = pool.run(make_shared_memory)
    assert os.path.exists(f"/dev/shm/{name}")
    os.kill(pool.pid(), signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/dev/shm/{name}"))


_held: list[Any] = []


def make_shared_memory(_: Any) -> str:
    _held.append(shared_memory.SharedMemory(create=True, size=64))
    return _held[-1].name


def test_a_telemetry_function_outlives_the_workers(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    os.environ["DESCENDANTS_BOOK"] = str(tmp_path / "events")
    try:
        with actorpool.start(telemetry="tests.pools.test_descendants:write_down", log_level="CRITICAL") as system:
            pool = system.start_pool("db", worker=EchoWorker, size=1)
            for _ in range(2):
                pids = pool.run(start_all)
                os.kill(pool.pid(), signal.SIGKILL)
                eventually(lambda pids=pids: none_lives(pids))
            eventually(lambda: (tmp_path / "events").read_text().count("worker.died") == 2)
            writers = set((tmp_path / "events").read_text().split()[1::2])
            assert len(writers) <= 2, "the manager's and the pool's"
    finally:
        del os.environ["DESCENDANTS_BOOK"]


def write_down(event: Any) -> None:
    with open(os.environ["DESCENDANTS_BOOK"], "a") as file:
        file.write(f"{event.name} {os.getpid()}\n")
