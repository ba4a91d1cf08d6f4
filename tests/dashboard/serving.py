"""A dashboard's server in a thread of the test, so that what it has seen, and who reads it, can be looked at."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from actorpool.dashboard.collector import Collector
from actorpool.dashboard.server import Server, server_of


class Served:
    """Attributes: `address`, `url` of the server; `collector`, `loop` of it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.url = f"http://{address[0]}:{address[1]}/"
        self.collector: Any = None
        self.loop: Any = None
        self.server: Server | None = None

    @property
    def readers(self) -> int:
        """How many read a stream now."""
        return len(self.collector.streams)

    def send(self, frames: list[bytes]) -> None:
        """Send messages to everyone who reads a stream."""
        self.loop.call_soon_threadsafe(self.collector.streams.send, frames)


@contextlib.contextmanager
def serving(connect: Callable[[], Any]) -> Iterator[Served]:
    """Serve what `connect` attaches to."""
    begun = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as ours:
        served = Served(ours.getsockname())

        async def run() -> None:
            served.loop = asyncio.get_running_loop()
            served.collector = Collector(connect)
            served.server = server_of(served.collector, ours)
            begun.set()
            await served.server.serve([ours])

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        try:
            assert begun.wait(10)
            yield served
        finally:
            if served.server is not None:
                served.server.should_exit = True
            thread.join(10)
        assert not thread.is_alive()
