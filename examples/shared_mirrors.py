"""Two mirrors of one resource: calls go to the faster one, to the other while that is down, and back again.

Both serve the same pages over HTTP. The pool knows them as one resource; who calls need not know that there are two.
A mirror that goes down is opened again in the background for as long as that takes, and joins as soon as it is back.

Run it: python examples/shared_mirrors.py
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import actorpool
from actorpool import SharedPool
from actorpool.workers import Worker, method


class Mirror:
    """One HTTP server, which can be taken down and brought back on its port."""

    def __init__(self, name: str, delay: float) -> None:
        class Pages(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one piece

            def do_GET(self) -> None:
                time.sleep(delay)
                body = f"{self.path} from {name}".encode()
                self.send_response(200 if mirror.up else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing is logged."""

        mirror = self
        self.up = True
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End it for good."""
        self.server.shutdown()
        self.server.server_close()


class MirrorClient(Worker):
    """One kept-alive connection to one mirror."""

    def __init__(self, port: int) -> None:
        self.port = port

    def open(self) -> None:
        """Connect, and see that it serves: a mirror that is down is no use although its port may answer."""
        self.http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        self._get("/health")

    def close(self) -> None:
        """Hang up."""
        self.http.close()

    def _get(self, path: str) -> str:
        self.http.request("GET", path)
        response = self.http.getresponse()
        body = response.read().decode()
        if response.status == 503:
            raise ConnectionError(f"the mirror at port {self.port} is down")  # which `is_disconnect` takes for lost
        return body

    @method
    def get(self, path: str) -> str:
        """A page."""
        return self._get(path)


def many(pages: SharedPool, calls: int) -> Counter[str]:
    """Get pages from eight threads; which mirror served how many, and what went wrong how often."""
    served: Counter[str] = Counter()

    def caller() -> None:
        for number in range(calls // 8):
            try:
                served[pages.call("pages", "get", f"/{number}").rpartition(" ")[2]] += 1
            except ConnectionError:
                served["down"] += 1  # the one call that found it so; it is for its caller to try again

    callers = [threading.Thread(target=caller) for _ in range(8)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    return served


def until(condition: Callable[[], Any]) -> None:
    """Look again and again until it is so."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def main() -> None:
    """Call while both are up, while the fast one is down, and when it is back."""
    fast, slow = Mirror("fast", 0.002), Mirror("slow", 0.010)
    with actorpool.start(log_level="ERROR") as system:
        pages = system.start_shared_pool("pages", backoff_min=0.05, backoff_max=0.2)
        ids = {
            name: pages.add(MirrorClient, {"port": mirror.port}, resource="pages", extra={"mirror": name}, revive=True)
            for name, mirror in (("fast", fast), ("slow", slow))
        }
        both = many(pages, 240)
        print("both up: all pages were served:", both.total() == 240)
        print("the fast one has served more:", both["fast"] > both["slow"] > 0)

        fast.up = False
        one = many(pages, 80)
        print("the fast one is down: calls that found it so:", one["down"])
        print("all the others went to the slow one:", one["slow"] == 80 - one["down"])
        print("its connection is closed:", pages.info(ids["fast"]).closed)
        print("the resource is there all the time:", pages.resources())

        fast.up = True
        until(lambda: not pages.info(ids["fast"]).closed)
        again = many(pages, 240)
        print("it is back, under its old id, and serves more again:", again["fast"] > again["slow"])
        print("the other one still serves who asks for it:", pages.call("pages", "get", "/", where={"mirror": "slow"}))
    fast.close()
    slow.close()
    assert both.total() == 240
    assert one["down"] <= 1
    assert again["fast"] > again["slow"]


if __name__ == "__main__":
    main()
