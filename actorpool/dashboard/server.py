"""The server's process: a socket, the bounds of what a client may do with it, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from actorpool.client.system import connect
from actorpool.dashboard.collector import Collector
from actorpool.dashboard.guard import MOST_HEAD
from actorpool.dashboard.sockets import MOST_CONNECTIONS, warning_of

COMPLETE = 10.0
"""Seconds in which a request must be complete."""
KEPT = 5
"""Seconds for which a connection that has been answered is kept for another request."""
PROGRESS = 30.0
"""Seconds without progress after which a reader is cut off."""


class Connection(H11Protocol):
    """A client: one of a bounded number, with a bounded time to send a request and to read its answer."""

    _late: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; it is cut off where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._expect()

    def data_received(self, data: bytes) -> None:
        """A part of a request, or of several."""
        if self._late is None:
            self._expect()
        super().data_received(data)
        if self._late is not None and self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._late.cancel()
            self._late = None

    def _expect(self) -> None:
        self._late = self.loop.call_later(COMPLETE, self.transport.abort)

    def pause_writing(self) -> None:
        """It does not read."""
        super().pause_writing()
        self._stuck = self.loop.call_later(PROGRESS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        for timer in filter(None, (self._late, self._stuck)):
            timer.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """As uvicorn's, but streams, which have no end of their own, end with it."""

    def __init__(self, config: uvicorn.Config, collector: Collector) -> None:
        super().__init__(config)
        self._collector = collector

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End every stream and every connection, within about a second."""
        self._collector.close()
        await super().shutdown(sockets)


def serve(
    node: str, ours: socket.socket, hosts: Sequence[str] = (), on_ready: Callable[[], None] = lambda: None
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        node: the name of the node; it may be gone and come back meanwhile.
        ours: a socket that listens.
        hosts: names besides those of loopback under which a browser may ask.
        on_ready: called once before the first request.
    """
    asyncio.run(_serve(node, ours, hosts, on_ready))


async def _serve(node: str, ours: socket.socket, hosts: Sequence[str], on_ready: Callable[[], None]) -> None:
    server = server_of(Collector(lambda: connect(node)), ours, hosts)
    on_ready()
    await server.serve([ours])


def server_of(collector: Collector, ours: socket.socket, hosts: Sequence[str] = ()) -> Server:
    """A server of what a collector sees, with its bounds, for that socket. Runs in the collector's loop."""
    from actorpool.dashboard.routes import application  # not at the top: it loads starlette

    config = uvicorn.Config(
        application(collector, tuple(hosts), warning_of(ours)),
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MOST_HEAD,
        timeout_keep_alive=KEPT,
        timeout_graceful_shutdown=1,
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # what a bad client sends is not worth a line
    return Server(config, collector)
