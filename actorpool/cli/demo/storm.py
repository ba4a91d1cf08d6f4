"""The demo itself: a pool under its supervisor, callers in processes of their own, and SIGKILL for both meanwhile."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

import actorpool
from actorpool import process
from actorpool.cli.demo import bank
from actorpool.cli.demo.books import RECOVERY_LIMIT, Books, Faults, Promise, promises
from actorpool.cli.demo.caller import Assignment
from actorpool.status import PoolStatus, TreeNode
from actorpool.workers import SqliteWorker

WARM_UP = 0.6  # seconds before the first kill
PAUSE = 0.15  # seconds from one recovery to the next kill
PATIENCE = 30.0  # seconds for the last calls to end


@dataclass(frozen=True)
class Settings:
    """How much of everything."""

    seconds: float = 6.0
    workers: int = 4
    callers: int = 6
    rows: int = 100_000
    seed: int = 1


@dataclass
class Tally:
    """What was done so far. Seconds."""

    workers_killed: int = 0
    callers_killed: int = 0
    recoveries: list[float] = field(default_factory=list)
    releases: list[float] = field(default_factory=list)


class Screen(Protocol):
    """Where the demo shows itself."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def show(self, elapsed: float, tree: TreeNode, status: PoolStatus, tally: Tally) -> None:
        """The state of things, several times a second."""


@dataclass(frozen=True)
class Outcome:
    """The whole story."""

    settings: Settings
    books: Books
    tally: Tally
    status: PoolStatus
    promises: list[Promise]


class Callers:
    """The caller processes: started, killed, replaced, and their books."""

    def __init__(self, pool: Any, place: Path, settings: Settings, until: float) -> None:
        self._pool = pool
        self._place = place
        self._settings = settings
        self._until = until
        self._processes: list[subprocess.Popen[bytes]] = []
        self._killed: set[int] = set()

    def start(self) -> None:
        """One more caller."""
        number = len(self._processes)
        seed = self._settings.seed * 1000 + number
        book = str(self._place / f"{number}.book")
        assignment = Assignment(number, os.getpid(), book, self._settings.rows, self._until, seed)
        command = [sys.executable, "-m", "actorpool.cli.demo.caller"]
        # A session of its own: Ctrl-C in the terminal is for the demo, which then takes its callers along.
        child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        self._processes.append(child)
        assert child.stdin is not None
        with child.stdin:
            pickle.dump((assignment, self._pool), child.stdin)

    def alive(self) -> list[int]:
        """Pids of the callers that run."""
        return [child.pid for child in self._processes if child.poll() is None]

    def kill(self, pid: int) -> None:
        """SIGKILL one."""
        child = next(child for child in self._processes if child.pid == pid)
        child.kill()
        child.wait()
        self._killed.add(self._processes.index(child))

    def finish(self, timeout: float) -> None:
        """Wait until all are done; those that are not in time are killed."""
        deadline = time.monotonic() + timeout
        for child in self._processes:
            try:
                child.wait(max(deadline - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def books(self) -> Books:
        """What all of them wrote down, and how those ended that were not killed."""
        books = Books()
        for number, child in enumerate(self._processes):
            book = self._place / f"{number}.book"
            if book.exists():
                with book.open(encoding="utf-8", newline="\n") as lines:
                    books.add(number, lines)
            if child.returncode != 0 and number not in self._killed:
                books.unexpected.append(f"caller {number} ended with {child.returncode}")
        return books


def run(settings: Settings, screen: Screen) -> Outcome:
    """Make the bank, let the storm loose on it, and check what is left.

    Runs in: the process of `actorpool demo`. Takes `settings.seconds` and a few more.
    """
    with tempfile.TemporaryDirectory(prefix="actorpool-demo-") as directory:
        place = Path(directory)
        database = place / "bank.db"
        bank.create(database, settings.rows)
        screen.say(f"{database}: {settings.rows} accounts, {database.stat().st_size / 1e6:.1f} MB")
        with actorpool.start(log_level="ERROR") as system:  # that workers die is no news here
            pool = _start_pool(system, database, settings)
            screen.say(f"{settings.callers} callers on {settings.workers} workers for {settings.seconds:g} s")
            callers = Callers(pool, place, settings, time.monotonic() + settings.seconds)
            try:
                tally = _storm(system, pool, callers, settings, screen)
                callers.finish(PATIENCE)
            finally:
                callers.finish(0)
            status = _settled(pool, settings)
            processes = _processes(system.tree())
        books = callers.books()
        faults = Faults(
            **vars(tally),
            leases_out=status.monitors,
            waiting=status.waiting,
            workers=status.total,
            size=settings.workers,
            processes_left=_still_alive(processes),
        )
        return Outcome(settings, books, tally, status, promises(books, bank.read(database), faults))


def _start_pool(system: Any, database: Path, settings: Settings) -> Any:
    return system.start_pool(
        "bank",
        worker=SqliteWorker,
        worker_args={"database": str(database), "timeout": PATIENCE, "pragmas": {"synchronous": "normal"}},
        size=settings.workers,
        max_overflow=1,
        overflow_ttl=1.0,
        checkout_timeout=PATIENCE,
        max_restarts=int(settings.seconds / PAUSE) + 10,  # this storm is on purpose
    )


def _storm(system: Any, pool: Any, callers: Callers, settings: Settings, screen: Screen) -> Tally:
    chance = random.Random(settings.seed)
    tally = Tally()
    begun = time.monotonic()
    for _ in range(settings.callers):
        callers.start()
    next_kill = begun + WARM_UP
    while (now := time.monotonic()) < begun + settings.seconds:
        screen.show(now - begun, system.tree(), pool.status(), tally)
        if now >= next_kill:
            if chance.random() < 0.6:
                _kill_worker(pool, chance, tally, settings)
            else:
                _kill_caller(pool, callers, chance, tally)
            next_kill = time.monotonic() + PAUSE
        time.sleep(0.05)
    screen.show(settings.seconds, system.tree(), pool.status(), tally)
    return tally


def _kill_worker(pool: Any, chance: random.Random, tally: Tally, settings: Settings) -> None:
    running = [worker.pid for worker in pool.workers() if worker.pid]
    if not running:
        return
    victim = chance.choice(running)
    if not process.kill(victim):
        return
    tally.workers_killed += 1

    def replaced() -> bool:
        pids = {worker.pid for worker in pool.workers() if worker.pid}
        return victim not in pids and len(pids) >= settings.workers

    _measure(replaced, tally.recoveries)


def _kill_caller(pool: Any, callers: Callers, chance: random.Random, tally: Tally) -> None:
    running = set(callers.alive())
    holding = [lease.caller_pid for lease in pool.leases() if lease.caller_pid in running]
    if not running:
        return
    victim = chance.choice(holding or sorted(running))
    callers.kill(victim)
    tally.callers_killed += 1
    _measure(lambda: all(lease.caller_pid != victim for lease in pool.leases()), tally.releases)
    callers.start()


def _measure(done: Callable[[], bool], times: list[float]) -> None:
    """Note how long it takes until `done`; nothing is noted when it takes longer than any promise."""
    begun = time.monotonic()
    while not done():
        if time.monotonic() > begun + 2 * RECOVERY_LIMIT:
            return
        time.sleep(0.001)
    times.append(time.monotonic() - begun)


def _settled(pool: Any, settings: Settings) -> PoolStatus:
    """The pool's status once the load is over (checkins are not awaited, so give them a moment)."""
    deadline = time.monotonic() + RECOVERY_LIMIT
    while True:
        status: PoolStatus = pool.status()
        if (not status.monitors and status.total >= settings.workers) or time.monotonic() > deadline:
            return status
        time.sleep(0.01)


def _processes(tree: TreeNode) -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    stack = [tree]
    while stack:
        node = stack.pop()
        stack.extend(node.children)
        if node.pid and psutil.pid_exists(node.pid):
            found.append(psutil.Process(node.pid))
    return [child for child in found if child.pid != os.getpid()]


def _still_alive(processes: list[psutil.Process]) -> list[int]:
    _, alive = psutil.wait_procs(processes, timeout=RECOVERY_LIMIT)
    return [child.pid for child in alive if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
