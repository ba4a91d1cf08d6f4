"""The supervised child of the node that keeps the dashboard's server: it ends with it, and is started again then.

The server is a fresh interpreter, a client of the node like any other, so nothing that happens to it touches a pool.
The keeper holds the socket's address and nothing else; this module loads no web server.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from actorpool.dashboard.sockets import listen, url_of
from actorpool.node.runtime import DASHBOARD, private_file
from actorpool.supervisors.supervised import Supervised
from actorpool.thespian_adapter.shell import Shell, log

START = 20.0
"""Seconds for a server to serve."""
TAKEN = 1.0
"""Seconds to wait for an address that a predecessor may still hold."""
STOP = 2.0
"""Seconds for a server to end in."""
LOOK = 1.0
"""Seconds between two looks at it, where its end cannot be watched."""


class Keeper(Supervised, Shell):
    """Starts a server, and ends abnormally when it ends."""

    _server: subprocess.Popen[bytes] | None = None
    _line: socket.socket | None = None

    def init(self, node: str, directory: str, host: str, port: int, hosts: Sequence[str]) -> None:
        """Start the server and wait until it serves.

        Runs in: the keeper.

        Args:
            node, directory: the node's name and runtime directory.
            host, port: where it is to listen; port 0 takes any that is free, and keeps it.
            hosts: names besides those of loopback under which a browser may ask.

        Raises:
            OSError: the address is taken, or is none of this host.
            RuntimeError: the server ended before it served.
        """
        with _listen(host, port) as ours:
            address = ours.getsockname()
            self._start(node, ours, hosts)
            _write(os.path.join(directory, DASHBOARD), url_of(ours))
        if not port:
            self.remember(port=address[1])
        if not self.can_watch:
            self.set_timer(LOOK)

    def _start(self, node: str, ours: socket.socket, hosts: Sequence[str]) -> None:
        self._line, theirs = socket.socketpair()  # no pipe: the end of one does not make it readable for Thespian
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "actorpool.dashboard", node, str(ours.fileno()), str(theirs.fileno()), *hosts],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[ours.fileno(), theirs.fileno()],
                cwd="/",
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))},
            )
        self._line.settimeout(START)
        try:
            served = self._line.recv(1)
        except TimeoutError:
            served = b""
        if not served:
            self._end()
            raise RuntimeError(f"the dashboard's server does not serve within {START:g} s, or has ended: see the log")
        self._line.setblocking(False)

    def watched(self) -> list[int]:
        """The line to the server, which says nothing more until it ends."""
        return [self._line.fileno()] if self._line is not None else []

    def on_watch(self) -> None:
        """The server has ended."""
        if self._line is not None:
            self._line.close()
            self._line = None
            log.warning("the dashboard's server has ended: it is started again")
            self.stop("the dashboard's server has ended")

    def on_timer(self, payload: Any) -> None:
        """Look whether it has."""
        if self._server is not None and self._server.poll() is not None:
            self.on_watch()
        else:
            self.set_timer(LOOK)

    def on_exit(self) -> None:
        """End the server."""
        self._end()

    def _end(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(STOP)
            server.kill()


def _listen(host: str, port: int) -> socket.socket:
    deadline = time.monotonic() + TAKEN
    while True:
        try:
            return listen(host, port)
        except OSError as error:
            if time.monotonic() > deadline:
                raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
        time.sleep(0.1)


def _write(path: str, text: str) -> None:
    with open(path, "w", opener=private_file) as file:
        file.write(text)
