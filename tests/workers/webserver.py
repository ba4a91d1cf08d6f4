"""A real HTTP server for the tests, which says what it was asked."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


class WebServer:
    """Answers on loopback at `url`; `requests` counts them, `connections` the TCP connections."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.owner = self  # type: ignore[attr-defined]
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.owner.connections += 1  # type: ignore[attr-defined]

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = dict(parse_qsl(parts.query))
        seen = {
            "method": self.command,
            "path": parts.path,
            "query": query,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body.decode("latin-1"),
        }
        self.server.owner.requests.append(seen)  # type: ignore[attr-defined]
        answer = getattr(self, "answer_" + parts.path.strip("/").split("/")[0], None)
        if answer:
            answer(query)
        else:
            self.reply(200, json.dumps(seen).encode(), {"Content-Type": "application/json"})

    do_POST = do_GET  # noqa: N815
    do_PUT = do_GET  # noqa: N815

    def answer_status(self, query: dict[str, str]) -> None:
        self.reply(int(query["code"]), b"as you wish")

    def answer_redirect(self, query: dict[str, str]) -> None:
        left = int(query["times"])
        self.reply(302, b"", {"Location": f"/redirect?times={left - 1}" if left > 1 else "/landed"})

    def answer_elsewhere(self, query: dict[str, str]) -> None:
        self.reply(302, b"", {"Location": query["to"]})

    def answer_slow(self, query: dict[str, str]) -> None:
        time.sleep(float(query["seconds"]))
        self.reply(200, b"at last")

    def answer_big(self, query: dict[str, str]) -> None:
        size, piece = int(query["bytes"]), b"0123456789abcdef" * 4096
        self.reply(200, None, {"X-Kind": "Big", "Content-Length": str(size)})
        for _ in range(size // len(piece)):
            self.wfile.write(piece)

    def answer_cookie(self, query: dict[str, str]) -> None:
        self.reply(200, b"", {"Set-Cookie": "session=of-this-lease; Path=/"})

    def answer_broken(self, query: dict[str, str]) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
        self.close_connection = True

    def reply(self, code: int, body: bytes | None, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body or b"")
