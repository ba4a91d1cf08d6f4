"""A TCP proxy whose network can be broken on purpose: it stops, goes deaf, or cuts what it carries."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Any


class Proxy:
    """Forwards loopback connections to `target`: `(host, port)`, or the path of a unix socket."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.port = 0
        self.accepted = 0  # connections so far
        self.carried = 0  # bytes so far, both ways together
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._hears = threading.Event()
        self._hears.set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.start()

    # -- what a test does with it --------------------------------------------------------------------------

    def start(self) -> None:
        """Listen (again, on the same port)."""
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """Refuse new connections and cut those that are there."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection at once, without a word from the server."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def deafen(self) -> None:
        """Keep connections open, accept new ones, and pass nothing on."""
        self._hears.clear()

    def hear(self) -> None:
        """Pass everything on again, what came meanwhile as well."""
        self._hears.set()

    @property
    def connections(self) -> int:
        """How many connections it carries now."""
        with self._lock:
            return len(self._open) // 2

    def close(self) -> None:
        self.stop()
        self.hear()
        for thread in self._threads:
            thread.join(5)

    # -- how it does it ------------------------------------------------------------------------------------

    def _spawn(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:  # stopped
                return
            self.accepted += 1
            try:
                far = self._connect()
            except OSError:  # the server behind is away: the client sees its connection end
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            ends = [2]
            self._spawn(self._pump, near, far, ends)
            self._spawn(self._pump, far, near, ends)

    def _connect(self) -> socket.socket:
        if isinstance(self.target, (str, os.PathLike)):
            far = socket.socket(socket.AF_UNIX)
            far.connect(os.fspath(self.target))
            return far
        return socket.create_connection(self.target)

    def _pump(self, source: socket.socket, sink: socket.socket, ends: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._hears.wait()
                self.carried += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        with self._lock:
            ends[0] -= 1
            if ends[0] == 0:
                self._open -= {source, sink}
                source.close()
                sink.close()
