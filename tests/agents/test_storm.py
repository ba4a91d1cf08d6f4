"""Many conversations in many processes while workers are killed, and many kills of workers that had started programs.

`ACTORPOOL_STORM=full` is the whole of it: 1000 conversations on 20 workers from 8 processes, and 500 kills.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

import actorpool
from actorpool import Pool
from actorpool.errors import ActorPoolError
from actorpool.testing import eventually
from tests.agents import storm

FULL = os.environ.get("ACTORPOOL_STORM") == "full"
CONVERSATIONS, WORKERS, PROCESSES, CALLS, KILLS = (1000, 20, 8, 10_000, 500) if FULL else (150, 6, 4, 1500, 40)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@contextmanager
def killing(pool: Pool, pause: float) -> Iterator[list[int]]:
    """Kill a worker now and then, in use or parked."""
    stop, killed = threading.Event(), []

    def kill() -> None:
        while not stop.wait(pause * random.uniform(0.5, 1.5)):
            with suppress(ActorPoolError, ProcessLookupError):
                pids = [worker.pid for worker in pool.workers() if worker.pid]
                if pids:
                    killed.append(random.choice(pids))
                    os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def test_no_state_crosses_and_each_loss_is_told_exactly_once_while_workers_are_killed() -> None:
    name = f"storm-{secrets.token_hex(4)}"
    context = multiprocessing.get_context("spawn")
    with actorpool.start(name, log_level="CRITICAL") as system:
        pool = storm.diaries(system, WORKERS).start()
        jobs, done = context.Queue(), context.Queue()
        talkers = [context.Process(target=storm.talk, args=(name, WORKERS, jobs, done)) for _ in range(PROCESSES)]
        for talker in talkers:
            talker.start()
        with killing(pool, 0.1) as killed:
            seen, wrong = converse(jobs, done)
        for talker in talkers:
            talker.join(20)
    print(f"\n{dict(seen)}, {len(killed)} kills")
    assert wrong == []
    assert sum(seen.values()) == CALLS
    assert seen["lost"] > CONVERSATIONS // 2
    assert seen["met"] > CONVERSATIONS
    assert len(killed) > 5
    assert seen["died"] > 0
    assert seen["late"] == 0


def converse(jobs: Any, done: Any) -> tuple[Counter[str], list[str]]:
    """Have all calls made, those of one conversation one after the other, by whatever process is free.

    Some conversations are busier than others, so that their workers stay; those of the others are evicted.
    """
    waiting: dict[int, list[Any]] = {who: [] for who in range(CONVERSATIONS)}
    for number in range(PROCESSES * 2):
        jobs.put((number, number, waiting.pop(number)))
    begun, ended = PROCESSES * 2, 0
    while ended < CALLS:
        who, expected = done.get(timeout=60)
        ended += 1
        waiting[who] = expected
        if begun < CALLS:
            busy = [other for other in range(WORKERS // 2) if other in waiting]
            chosen = random.choice(busy) if busy and random.random() < 0.5 else random.choice(list(waiting))
            jobs.put((chosen, begun, waiting.pop(chosen)))
            begun += 1
    seen, wrong = Counter[str](), []
    for _ in range(PROCESSES):
        jobs.put(None)
    for _ in range(PROCESSES):
        counted, errors = done.get(timeout=60)
        seen += counted
        wrong += errors
    return seen, wrong


def test_what_killed_workers_had_started_ends_with_them() -> None:
    mark = f"storm {secrets.token_hex(8)}"
    began = time.monotonic()
    with actorpool.start(log_level="CRITICAL") as system:
        storm.programs.start(system)
        try:
            start_programs = storm.start_programs.sync
            most = 0
            for number in range(KILLS):
                os.kill(start_programs(mark), signal.SIGKILL)
                if number % 20 == 0:
                    most = max(most, len(marked(mark)))
            eventually(lambda: marked(mark) == [], timeout=20.0)
        finally:
            storm.programs.stop()
    print(f"\n{KILLS} kills in {time.monotonic() - began:.1f} s, at most {most} programs at a time")
    assert most > 0
    assert most < 60


def marked(mark: str) -> list[int]:
    """The programs that run, whoever is their parent."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if mark in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
