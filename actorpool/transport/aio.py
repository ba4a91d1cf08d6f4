"""The caller's asyncio side of the channel: one connection for each socket and event loop, shared by all its tasks.

Rule of this file: requests are told apart by their refs alone. A task that gives up forgets its ref, so a late answer
finds no waiter and is dropped; it is never read as the answer to a later request.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import time
import weakref
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from typing import Any

from actorpool.transport import frames, paths
from actorpool.transport.client import ABSENT, MAX_PATHS, Gone, NotDelivered, TimedOut
from actorpool.transport.connection import Connection, credentials

_conns: weakref.WeakSet[AioConn] = weakref.WeakSet()
_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopConns] = weakref.WeakKeyDictionary()


class AioConn(Connection):
    """A connection to a `ChannelServer`, multiplexed by ref. Belongs to one event loop."""

    __slots__ = ("_last", "_loop", "_refs", "loans", "path", "pid", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self.open = False
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
            self.pid, uid = credentials(sock)
            if uid != os.geteuid():
                raise PermissionError(errno.EPERM, f"the socket belongs to user {uid}", path)
        except BaseException:
            sock.close()
            raise
        super().__init__(sock, self._answered, frames.LONGEST)
        self.path = path
        self.loans: dict[bytes, Any] = {}  # as of a `ClientConn`
        self.waiting: dict[int, asyncio.Future[tuple[int, Any]]] = {}
        self._loop = weakref.ref(loop)  # a loop keeps its connections, not the other way round
        self._refs = itertools.count(1)
        self._last = 0
        _conns.add(self)
        loop.add_reader(self.fd, self._readable)

    def here(self) -> bool:
        """Whether it is open and belongs to the running loop."""
        return self.open and self._loop() is asyncio._get_running_loop()

    def request(self, kind: int, body: bytes, lead: bytes = b"") -> tuple[int, asyncio.Future[tuple[int, Any]]]:
        """Send a request; its ref and the future of its answer (kind, body).

        The future raises `NotDelivered` or `Gone` if the other side ends first.
        """
        loop = self._loop()
        assert loop is not None
        ref = self._last = next(self._refs)
        future = self.waiting[ref] = loop.create_future()
        self.send(kind, ref, body, lead)
        return ref, future

    def tell(self, kind: int, ref: int, body: bytes = b"") -> None:
        """Send a frame that is not answered."""
        self._last = 0
        self.send(kind, ref, body)

    def give_up(self, kind: int, ref: int) -> bool:
        """The answer is no longer wanted. Whether the request has left, at least in part; if not, it never does.

        So requests to a process that reads nothing leave nothing in the memory of this process.
        """
        self.waiting.pop(ref, None)
        return not self.take_back(kind, ref)

    def cancel(self, kind: int, ref: int) -> None:
        """As `give_up`, and the other side is told."""
        if self.give_up(kind, ref):
            self.tell(frames.CANCEL, ref)

    def _answered(self, kind: int, ref: int, body: Any) -> None:
        future = self.waiting.pop(ref, None)
        if future is not None and not future.done():
            future.set_result((kind, body))

    def _readable(self) -> None:
        if not self.receive():
            self.close()

    def _await_room(self, wanted: bool) -> None:
        loop = self._loop()
        if loop is not None and self.open:
            if wanted:
                loop.add_writer(self.fd, self.flush)
            else:
                loop.remove_writer(self.fd)

    def hang_up(self) -> None:
        """End it from any thread: its loop closes it."""
        with suppress(OSError):  # it has ended already
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close our end. Of the requests under way only the last can be known not to have been read."""
        loop = self._loop()
        waiting, self.waiting = self.waiting, {}
        refused = self.refused or self.unsent  # the other side has gone without the end of the last frame
        if loop is None or loop.is_closed():  # no task is left there to be told
            self.release()
            return
        if self.open:
            loop.remove_reader(self.fd)
            loop.remove_writer(self.fd)
            self.release()
        for ref, future in waiting.items():
            if not future.done():
                unread = refused and ref == self._last
                future.set_exception(NotDelivered(self.path) if unread else Gone(self.path))

    def __del__(self) -> None:
        if self.open:  # its loop was dropped without being closed
            self.sock.close()

    def __repr__(self) -> str:
        return f"<asyncio connection to {self.path} pid {self.pid}>"


class LoopConns:
    """The connections of one event loop, by path; of those to workers only the ones used last are kept."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, AioConn] = OrderedDict()
        self._own: weakref.WeakSet[AioConn] = weakref.WeakSet()

    async def connect(self, path: str, deadline: float | None = None) -> AioConn:
        """The connection to `path`, made if need be.

        Args:
            path: the socket.
            deadline: of the connecting, `time.perf_counter()` seconds; matters only when the server's queue is full.

        Raises:
            NotDelivered: no process listens there.
            TimedOut: the server did not take the connection within the time.
            OSError: it is not allowed, or this process is out of descriptors.
        """
        known = self._open.get(path)
        if known is not None and known.open:
            return known
        conn = await self._connected(path, deadline)
        known = self._open.get(path)
        if known is not None and known.open:  # another task was quicker, while the server's queue was full
            conn.close()
            return known
        self._open[path] = conn
        self._trim()
        return conn

    async def own(self, path: str, deadline: float | None = None) -> AioConn:
        """A connection for one lease, whose end closes it; takes and raises what `connect` does."""
        conn = await self._connected(path, deadline)
        self._own.add(conn)
        return conn

    async def _connected(self, path: str, deadline: float | None) -> AioConn:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return AioConn(loop, path)
            except BlockingIOError:
                if deadline is not None and time.perf_counter() >= deadline:
                    raise TimedOut from None
                await asyncio.sleep(0.001)
            except OSError as error:
                if error.errno in ABSENT:
                    raise NotDelivered(path) from error
                raise

    def known(self, path: str) -> AioConn | None:
        """The open connection to `path`, if there is one."""
        conn = self._open.get(path)
        return conn if conn is not None and conn.open else None

    def drop(self, conn: AioConn) -> None:
        """Close a connection; the next request makes a new one."""
        conn.close()
        if self._open.get(conn.path) is conn:
            del self._open[conn.path]

    def _trim(self) -> None:
        if len(self._open) <= MAX_PATHS:
            return
        for path, conn in list(self._open.items()):
            if not conn.open or (not conn.waiting and paths.is_worker(path)):  # one to a pool keeps its leases alive
                conn.close()
                del self._open[path]
                return

    def close(self) -> None:
        """Close them all: the loop has ended, and with it the leases that its tasks held."""
        for conn in [*self._open.values(), *self._own]:
            conn.close()
        self._open.clear()


def conns_of(loop: asyncio.AbstractEventLoop) -> LoopConns:
    """The connections of a running loop. Those of loops that were closed meanwhile are closed as well."""
    found = _loops.get(loop)
    if found is None:
        for other in [other for other in list(_loops) if other.is_closed()]:
            _loops.pop(other).close()
        found = _loops[loop] = LoopConns()
        weakref.finalize(loop, found.close).atexit = False
    return found


async def answered(future: asyncio.Future[tuple[int, Any]], timeout: float | None) -> tuple[int, Any]:
    """Wait for an answer at most `timeout` seconds.

    Raises:
        TimedOut: no answer; the request is still to be given up.
        NotDelivered, Gone: the other side has ended.
    """
    if timeout is None:
        return await future
    timer = asyncio.get_running_loop().call_later(timeout, partial(_expire, future))
    try:
        return await future
    finally:
        timer.cancel()


def _expire(future: asyncio.Future[tuple[int, Any]]) -> None:
    if not future.done():
        future.set_exception(TimedOut())


def _drop_inherited() -> None:
    # As for the blocking connections: a forked child must not keep its parent's leases alive.
    for conn in list(_conns):
        conn.release()
    _loops.clear()


os.register_at_fork(after_in_child=_drop_inherited)
