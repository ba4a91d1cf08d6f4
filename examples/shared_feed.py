"""One long-lived connection, as a websocket is one, shared by fifty callers.

The server speaks frames: four bytes of length, then JSON. A client says hello once, which is slow and costs a login;
from then on every request has an id, and its answer repeats it. Between the answers the server sends news that nobody
has asked for. Fifty callers need neither fifty logins nor to know of each other: the worker holds the one connection,
reads past the news while it waits for its answer, and keeps the latest.

Run it: python examples/shared_feed.py
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import threading
import time
from typing import Any

import actorpool
from actorpool import SharedPool
from actorpool.workers import Worker, method

HEAD = "!I"
"""The length of what follows, in four bytes."""
CALLERS, CALLS = 50, 20


class Exchange:
    """The server: an asyncio loop in a thread, on a free port of this machine."""

    def __init__(self) -> None:
        self.logins = self.requests = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        starting = asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.server = asyncio.run_coroutine_threadsafe(starting, self.loop).result()
        self.port: int = self.server.sockets[0].getsockname()[1]
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, from its hello until it hangs up."""
        self.writers.add(writer)
        try:
            while True:
                (length,) = struct.unpack(HEAD, await reader.readexactly(4))
                request = json.loads(await reader.readexactly(length))
                if request["do"] == "hello":
                    await asyncio.sleep(0.2)  # a login takes its time
                    self.logins += 1
                else:
                    self.requests += 1
                if self.requests % 10 == 1:
                    self.send(writer, {"news": f"{self.requests} requests so far"})
                self.send(writer, {"id": request["id"], "answer": request.get("value")})
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has hung up
        finally:
            self.writers.discard(writer)
            writer.close()

    def send(self, writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
        """One frame."""
        data = json.dumps(message).encode()
        writer.write(struct.pack(HEAD, len(data)) + data)

    def hang_up(self) -> None:
        """Cut every connection, as networks do."""
        for writer in list(self.writers):
            self.loop.call_soon_threadsafe(writer.transport.abort)

    def close(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.server.close)
        self.hang_up()
        self.loop.call_soon_threadsafe(self.loop.call_later, 0.05, self.loop.stop)
        self.thread.join()
        self.loop.close()


class Feed(Worker):
    """The one connection. Its methods run one at a time, so each reads its own answer."""

    resource = "feed"

    def __init__(self, port: int) -> None:
        self.port = port
        self.latest: str | None = None

    def open(self) -> None:
        """Connect and log in: once, not for each caller."""
        self.ids = itertools.count(1)
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.stream = self.socket.makefile("rwb")
        self._request("hello")

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def _request(self, do: str, value: Any = None) -> Any:
        id = next(self.ids)
        data = json.dumps({"id": id, "do": do, "value": value}).encode()
        self.stream.write(struct.pack(HEAD, len(data)) + data)
        self.stream.flush()
        while True:
            message = self._receive()
            if "news" in message:
                self.latest = message["news"]
            elif message["id"] == id:
                return message["answer"]

    def _receive(self) -> Any:
        head = self.stream.read(4)
        if len(head) < 4:
            raise ConnectionResetError("the exchange has hung up")
        return json.loads(self.stream.read(*struct.unpack(HEAD, head)))

    @method
    def quote(self, share: str) -> Any:
        """Ask for something."""
        return self._request("quote", share)

    @method
    def news(self) -> str | None:
        """The latest that came unasked."""
        return self.latest


async def ask(feed: SharedPool) -> int:
    """Fifty callers at once; how many of their calls were answered by what they had asked for."""

    async def caller(name: int) -> int:
        return sum([await feed.aio.call("feed", "quote", f"{name}/{n}") == f"{name}/{n}" for n in range(CALLS)])

    return sum(await asyncio.gather(*(caller(name) for name in range(CALLERS))))


def main() -> None:
    """Share one connection, have it cut, and go on."""
    exchange = Exchange()
    with actorpool.start() as system:
        feed = system.start_shared_pool("feed", backoff_min=0.02)
        id = feed.add(Feed, {"port": exchange.port}, revive=True)
        print(f"{CALLERS} callers, {CALLS} calls each, rightly answered:", asyncio.run(ask(feed)))
        print("requests the server has seen:", exchange.requests)
        print("logins it has cost:", exchange.logins)
        print("news that came in between:", feed.call("feed", "news"))

        exchange.hang_up()
        try:
            feed.call("feed", "quote", "cut off")
        except ConnectionError as error:
            print("the network fails, one caller hears:", error)
        while feed.is_empty("feed"):
            time.sleep(0.005)  # it logs in anew meanwhile
        print("and all go on over a new one:", asyncio.run(ask(feed)))
        stats = feed.info(id).stats["quote"]
        print(f"calls on connection {id}: {stats.count}, of which failed: {stats.errors}, logins: {exchange.logins}")
        assert exchange.logins == 2
        assert stats.count == 2 * CALLERS * CALLS + 1
    exchange.close()


if __name__ == "__main__":
    main()
