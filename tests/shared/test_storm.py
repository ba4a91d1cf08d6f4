"""Fifty callers on three connections of one resource, while these are killed, expire, close and break."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

import actorpool
from actorpool.errors import NoMatch, NoResource, WorkerDied
from tests.shared.kit import Book, tokens

THREADS, TASKS, CALLS = 25, 25, 200
CONNECTIONS, AT_ONCE = 3, 20


class Callers:
    """Half of them threads, half of them tasks of one event loop; each makes its calls one after another.

    Beside them, one for each connection makes several calls at once, which may go nowhere else: these can neither move
    nor wait in two places, so they have to begin in the order in which they were made.
    """

    def __init__(self, pool: actorpool.SharedPool) -> None:
        self.pool = pool
        self.outcomes: dict[str, object] = {}

    def run(self) -> None:
        threads = [threading.Thread(target=self._thread, args=(number,)) for number in range(THREADS)]
        loop = threading.Thread(target=lambda: asyncio.run(self._tasks()))
        for thread in (*threads, loop):
            thread.start()
        for thread in (*threads, loop):
            thread.join()

    def _thread(self, number: int) -> None:
        for token in self._tokens(f"thread{number}"):
            try:
                self._note(token, self.pool.call("book", "write", token))
            except Exception as error:
                self._note(token, error)

    async def _tasks(self) -> None:
        lines = (self._line(number) for number in range(CONNECTIONS))
        await asyncio.gather(*(self._task(number) for number in range(TASKS)), *lines)

    async def _line(self, number: int) -> None:
        made = self._tokens(f"line{number}")
        for first in range(0, CALLS, AT_ONCE):
            here = {"where": {"number": number}}
            calls = [self.pool.aio.call("book", "write", token, **here) for token in made[first : first + AT_ONCE]]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            for token, outcome in zip(made[first:], outcomes, strict=False):
                self._note(token, outcome)
            if any(isinstance(outcome, (NoMatch, NoResource)) for outcome in outcomes):
                await self._until_open(number)

    async def _until_open(self, number: int) -> None:
        while True:
            with suppress(NoMatch, NoResource, WorkerDied):
                await self.pool.aio.call("book", "pid", where={"number": number})
                return
            await asyncio.sleep(0.002)

    async def _task(self, number: int) -> None:
        for token in self._tokens(f"task{number}"):
            try:
                self._note(token, await self.pool.aio.call("book", "write", token))
            except Exception as error:
                self._note(token, error)

    @staticmethod
    def _tokens(name: str) -> list[str]:
        return [f"{name}.{call}" for call in range(CALLS)]

    def _note(self, token: str, outcome: object) -> None:
        assert token not in self.outcomes
        self.outcomes[token] = outcome


class Weather:
    """Ends connections in every way, about fifty times a second, until it is told to stop."""

    def __init__(self, pool: actorpool.SharedPool, ids: list[int], seed: int) -> None:
        self.pool = pool
        self.ids = ids
        self.random = random.Random(seed)
        self.kills = 0
        self.did: Counter[str] = Counter()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._blow)

    def __enter__(self) -> Weather:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _blow(self) -> None:
        while not self.over.wait(self.random.uniform(0.005, 0.03)):
            what = self.random.choice((self.kill, self.expire, self.close, self.lose))
            self.did[what.__name__] += 1
            with suppress(NoResource, WorkerDied, ConnectionError):
                what()

    def kill(self) -> None:
        pid = self.pool.info(self.random.choice(self.ids)).pid
        if pid is not None:
            self.kills += 1
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def expire(self) -> None:
        self.pool.update("book", {"number": self.random.randrange(CONNECTIONS)}, ttl=0.001)
        self.pool.update("book", ttl=None)

    def close(self) -> None:
        self.pool.call("book", "shut")

    def lose(self) -> None:
        self.pool.call("book", "lose")


@pytest.mark.slow
def test_every_call_of_fifty_callers_ends_once_whatever_happens_to_connections(
    shared: actorpool.SharedPool, tmp_path: Path
) -> None:
    logs = [tmp_path / f"log{number}" for number in range(CONNECTIONS)]
    ids = [
        shared.add(Book, {"log": str(log), "pace": 0.0003}, extra={"number": number}, revive=True)
        for number, log in enumerate(logs)
    ]
    callers = Callers(shared)
    began = time.monotonic()
    with Weather(shared, ids, seed=1) as weather:
        callers.run()
    print(f"{time.monotonic() - began:.1f} s, {dict(weather.did)}, {Counter(map(type, callers.outcomes.values()))}")

    assert len(callers.outcomes) == (THREADS + TASKS + CONNECTIONS) * CALLS
    begun = Counter(token for log in logs for token in tokens(log))
    died = 0
    for token, outcome in callers.outcomes.items():
        if outcome == token:
            assert begun[token] == 1, f"{token} was answered and begun {begun[token]} times"
        elif isinstance(outcome, WorkerDied):
            died += 1
            assert begun[token] <= 1, f"{token} was begun {begun[token]} times"
        else:
            missing = (NoResource, NoMatch) if token.startswith("line") else NoResource
            assert isinstance(outcome, missing), f"{token}: {outcome!r}"
            assert begun[token] == 0, f"{token} has failed and was begun all the same"
    assert died <= weather.kills, "only the call that runs is lost with its process"
    assert sum(outcome == token for token, outcome in callers.outcomes.items()) > THREADS * CALLS
    for number, log in enumerate(logs):
        order = [int(token.rpartition(".")[2]) for token in tokens(log) if token.startswith(f"line{number}.")]
        assert order == sorted(order), f"connection {number} began calls out of order"
        assert len(order) > AT_ONCE
    assert min(weather.did.values()) > 0, "every way to end a connection was tried"
