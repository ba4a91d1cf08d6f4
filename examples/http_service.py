"""A pool of HTTP clients in front of a service that is slow, sometimes fails, and is called by many threads.

Each worker keeps its own connection open. The pool bounds how many requests are under way at once; a status such as
503 is an answer that the program decides about; a timeout is a `CallTimeout`, whatever the client library calls it.

Run it: python examples/http_service.py
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import actorpool
from actorpool.errors import CallTimeout
from actorpool.workers import HttpWorker


class Weather(BaseHTTPRequestHandler):
    """The service: `/temperature/<city>`, `/slow`, `/map`."""

    protocol_version = "HTTP/1.1"
    at_once = most_at_once = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        """Answer, and note how many are being answered."""
        with Weather.lock:
            Weather.at_once += 1
            Weather.most_at_once = max(Weather.most_at_once, Weather.at_once)
        time.sleep(1.0 if self.path == "/slow" else 0.02)
        city = self.path.rpartition("/")[2]
        known = {"oslo": 4, "rome": 21}
        told = json.dumps({"city": city, "celsius": known.get(city)}).encode()
        body = bytes(1 << 20) if city == "map" else told
        with Weather.lock:
            Weather.at_once -= 1
        self.send_response(200 if city in (*known, "map", "slow") else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


def main() -> None:
    """Ask the service from sixteen threads through four clients."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Weather)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {"base_url": f"http://127.0.0.1:{server.server_address[1]}", "headers": {"X-Api-Key": "kept to itself"}}

    with tempfile.TemporaryDirectory() as folder, actorpool.start() as system:
        weather = system.start_pool("weather", worker=HttpWorker, worker_args=settings, size=4, max_overflow=0)

        def ask(city: str) -> str:
            answer = weather.get(f"/temperature/{city}")
            return f"{city}: {answer.json()['celsius']} °C" if answer.ok else f"{city}: status {answer.status_code}"

        with ThreadPoolExecutor(16) as callers:
            answers = sorted(set(callers.map(ask, ["oslo", "rome", "atlantis"] * 16)))
        print(*answers, sep="\n")
        print("requests under way at once, at most:", Weather.most_at_once)

        try:
            weather.call("request", "GET", "/slow", timeout=0.1)
        except CallTimeout as error:
            print("too slow:", type(error.cause).__name__)

        target = Path(folder) / "map.bin"
        weather.download("/map", str(target))
        print("downloaded by a worker, past this process:", target.stat().st_size, "bytes")
        print("what a worker tells about itself:", weather.get_status()["headers"])
        assert Weather.most_at_once <= 4
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main()
