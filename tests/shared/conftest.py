"""One node for each module, one shared pool for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import SharedPool
from tests.shared.kit import Book, tokens

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    """A system that the tests of one module share."""
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


@pytest.fixture
def shared(node: actorpool.System) -> Iterator[SharedPool]:
    """An empty shared pool, stopped after the test."""
    pool = node.start_shared_pool(f"shared{next(_numbers)}", backoff_min=0.02, backoff_max=0.2, kill_after=0.5)
    yield pool
    with suppress(actorpool.PoolNotFound):
        node.stop_pool(pool.name, timeout=0.2)


class Library:
    """Connections to the resource `"book"`: each can be kept busy until it is told to go on; calls wait meanwhile.

    Attributes:
        begun: the tokens of all calls that were begun, in order.
    """

    def __init__(self, shared: SharedPool, folder: Path, eventually: Callable[..., Any]) -> None:
        self.shared = shared
        self._folder = folder
        self._eventually = eventually
        self._threads = ThreadPoolExecutor(40)

    def add(self, **settings: Any) -> int:
        """Another connection; `extra` holds its number, counted from 0."""
        number = len(self.shared.map("book", "pid"))
        settings.setdefault("extra", {"number": number})
        args = {"log": str(self._folder / "log"), **settings.pop("worker_args", {})}
        return self.shared.add(Book, args, **settings)

    @property
    def begun(self) -> list[str]:
        return [token for token in tokens(self._folder / "log") if not token.startswith("busy")]

    def occupy(self, id: int) -> Future[Any]:
        """Have a connection do nothing until `go_on(id)`."""
        call = self._threads.submit(
            self.shared.call, "book", "wait_for", str(self._gate(id)), f"busy{id}", where=lambda info: info.id == id
        )
        self._eventually(lambda: f"busy{id}" in tokens(self._folder / "log"))
        return call

    def go_on(self, *ids: int) -> None:
        for id in ids:
            self._gate(id).touch()

    def over(self, id: int) -> bool:
        """Whether a connection that was kept busy has done that."""
        return f"busy{id} over" in tokens(self._folder / "log")

    def queue(self, method: str, *args: Any, **options: Any) -> Future[Any]:
        """Make a call while all connections are busy; returns once it waits."""
        waiting = self.waiting()
        call = self._threads.submit(self.shared.call, "book", method, *args, **options)
        self._eventually(lambda: self.waiting() > waiting or call.done())
        return call

    def later(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have it done meanwhile."""
        return self._threads.submit(function, *args)

    def wait_until_closed(self, id: int) -> None:
        self._eventually(lambda: self.shared.info(id).closed)

    def waiting(self) -> int:
        """How many calls wait, on all connections together."""
        return self.shared._ask(actorpool.GetPoolStatus(self.shared.name)).waiting  # type: ignore[no-any-return]

    def close(self) -> None:
        for number in range(100):
            self._gate(number).touch()
        self._threads.shutdown()

    def _gate(self, id: int) -> Path:
        return self._folder / f"gate{id}"


@pytest.fixture
def library(shared: SharedPool, tmp_path: Path, eventually: Callable[..., Any]) -> Iterator[Library]:
    """`library.add()`, `library.occupy(id)`, `library.queue(method, ...)`, `library.go_on(id)`."""
    made = Library(shared, tmp_path, eventually)
    yield made
    made.close()
