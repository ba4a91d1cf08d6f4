"""One connection to a server that speaks a text protocol, shared by many callers.

The server keeps counters. It speaks lines: `INCR <name>` is answered by `OK <value>`, `GET <name>` by `OK <value>` or
`NONE`, `QUIT` by `BYE`, whereupon it hangs up; anything else by `ERR <why>`. Such a conversation suffers no second
speaker: an answer belongs to the question before it. So the callers share the connection through its queue.

Run it: python examples/shared_text_protocol.py
"""

from __future__ import annotations

import socket
import socketserver
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import actorpool
from actorpool.errors import NoResource
from actorpool.workers import Reply, Worker, method


class Counters(socketserver.StreamRequestHandler):
    """The server's side of one connection."""

    counters: dict[str, int] = {}
    connections = 0

    def handle(self) -> None:
        """Answer line by line until the other side has enough."""
        Counters.connections += 1
        for line in self.rfile:
            answer = self.answer(*line.decode().split())
            self.wfile.write(f"{answer}\n".encode())
            if answer == "BYE":
                return

    def answer(self, word: str = "", name: str = "") -> str:
        """What is said to one line."""
        if word == "INCR":
            Counters.counters[name] = Counters.counters.get(name, 0) + 1
        if word in ("INCR", "GET"):
            return f"OK {Counters.counters[name]}" if name in Counters.counters else "NONE"
        return "BYE" if word == "QUIT" else f"ERR unknown word {word!r}"


class Server(socketserver.ThreadingTCPServer):
    """Listens on a free port of this machine."""

    allow_reuse_address = daemon_threads = True


class CountersClient(Worker):
    """The client's side: runs in a process of its own, one call at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.resource = f"counters at {port}"

    def open(self) -> None:
        """Connect; whatever it raises means "not now", and is tried again where that was asked for."""
        self.socket = socket.create_connection(self.address, timeout=5)
        self.lines = self.socket.makefile("rw", encoding="utf-8", newline="\n")

    def close(self) -> None:
        """Hang up."""
        self.lines.close()
        self.socket.close()

    def _ask(self, line: str) -> str:
        self.lines.write(f"{line}\n")
        self.lines.flush()
        answer = self.lines.readline()
        if not answer:
            raise ConnectionResetError("the server has hung up")  # a lost connection, as for every OSError of its kind
        return answer.rstrip("\n")

    @method
    def increment(self, name: str) -> int:
        """Count one more; the new value."""
        return int(self._ask(f"INCR {name}").removeprefix("OK "))

    @method
    def get(self, name: str) -> int | None:
        """The value, None for a counter that there is not."""
        answer = self._ask(f"GET {name}")
        return None if answer == "NONE" else int(answer.removeprefix("OK "))

    @method
    def say(self, line: str) -> str:
        """Anything else; an error of the server's is an exception for this caller alone."""
        answer = self._ask(line)
        if answer.startswith("ERR"):
            raise ValueError(answer)
        return answer

    @method
    def quit(self) -> Any:
        """Part as friends; the connection is over then."""
        return Reply(self._ask("QUIT"), close=True)


def main() -> None:
    """Count from twenty threads over one connection, then end it."""
    server = Server(("127.0.0.1", 0), Counters)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host, port = server.server_address[:2]

    with actorpool.start() as system:
        pool = system.start_shared_pool("counters")
        id = pool.add(CountersClient, {"host": host, "port": port})
        [resource] = pool.resources()
        print("resource:", resource.replace(str(port), "<port>"))
        print("methods:", ", ".join(pool.info(id).methods))

        with ThreadPoolExecutor(20) as callers:
            seen = list(callers.map(lambda _: pool.call(resource, "increment", "visits"), range(1000)))
        assert sorted(seen) == list(range(1, 1001)), "an answer reached somebody else"
        print("counted by 20 threads:", pool.call(resource, "get", "visits"))
        print("connections the server has seen:", Counters.connections)
        print("a counter that there is not:", pool.call(resource, "get", "nothing"))
        try:
            pool.call(resource, "say", "PLEASE")
        except ValueError as error:
            print("an error of one caller's:", error)

        print("the server says:", pool.call(resource, "quit"))
        try:
            pool.call(resource, "get", "visits")
        except NoResource as error:
            print("after that:", type(error).__name__, f"({error.reason})")
        print("resources left:", pool.resources())
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main()
