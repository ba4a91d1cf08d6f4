"""A real HTTP/2 server for the tests (without TLS, so for clients that know beforehand), which counts connections."""

from __future__ import annotations

import socketserver
import threading
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived


class Http2Server:
    """Answers on loopback at `url` with the path that was asked for; `connections` counts the TCP connections."""

    def __init__(self) -> None:
        self.connections = 0
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.owner = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.server.owner.connections += 1  # type: ignore[attr-defined]
        conn = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        conn.initiate_connection()
        self.request.sendall(conn.data_to_send())
        while data := self.request.recv(65536):
            for event in conn.receive_data(data):
                if isinstance(event, RequestReceived):
                    self._answer(conn, event)
            self.request.sendall(conn.data_to_send())

    def _answer(self, conn: H2Connection, asked: Any) -> None:
        path = dict(asked.headers)[":path"].encode()
        conn.send_headers(asked.stream_id, [(":status", "200"), ("content-length", str(len(path)))])
        conn.send_data(asked.stream_id, path, end_stream=True)
