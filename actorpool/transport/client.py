"""The caller's blocking side of the channel: a connection carries one request at a time, free ones are kept for reuse.

Rule of this file: a connection is used by at most one thread at a time. Taking and giving back are single operations of
a list, so threads share the free connections without a lock. A signal handler or a finalizer that breaks into a call
gets another connection. One with a request that was given up is not given back: a part of a frame may be on it. Its
socket lives on as long as a lease that was granted on it, because the end of the socket is the end of the lease.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import select
import socket
import time
import weakref
from contextlib import suppress
from typing import Any

from actorpool.transport import frames, paths
from actorpool.transport.connection import HEAD, JOIN, RECEIVE, Body, credentials
from actorpool.transport.spinwait import SPIN, look

MAX_PATHS = 128
"""Free connections are kept to so many sockets: each costs a descriptor here and one in the server."""
MAX_FREE = 64
"""Free connections kept to one socket; more only when so many threads call at once."""

_pack = frames.HEADER.pack
_unpack = frames.HEADER.unpack_from
_DONT_WAIT = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)
_LONGEST_POLL = 2**31 - 1  # milliseconds, 24 days: what the kernel takes
ABSENT = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)

_conns: weakref.WeakSet[ClientConn] = weakref.WeakSet()
_free: dict[str, list[ClientConn]] = {}
_waiting: list[ClientConn] = []
"""As many as there are threads of this process that wait for an answer."""
generation = 0
"""Grows with each fork: what was made in another generation belongs to an ancestor of this process."""


class NotDelivered(Exception):
    """No process has read the frame: nothing was run, and another worker may be asked."""


class Gone(Exception):
    """The other side ended after it may have read the frame."""


class TimedOut(Exception):
    """No answer within the time."""


class ClientConn:
    """A blocking connection to a `ChannelServer`, used by one thread at a time.

    Args:
        path: the server's socket.
        spin: seconds to look for the answer before blocking; 0.0 is off.
        deadline: of the connecting, `time.perf_counter()` seconds; matters only when the server's queue is full.

    Raises:
        NotDelivered: no process listens there.
        TimedOut: the server did not take the connection within the time.
        OSError: it is not allowed, or this process is out of descriptors.
    """

    __slots__ = (
        "__weakref__", "_look", "_poll", "_refs", "_rest", "_unfinished", "loans", "path", "pid", "sock", "spin",
    )  # fmt: skip

    def __init__(self, path: str, *, spin: float = SPIN, deadline: float | None = None) -> None:
        self.path = path
        self.spin = spin
        self.loans: dict[bytes, Any] = {}  # what the other side has lent to this very connection
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        _conns.add(self)
        try:
            _connect(self.sock, path, deadline)
            self.pid, uid = credentials(self.sock)
            if uid != os.geteuid():
                raise PermissionError(errno.EPERM, f"the socket belongs to user {uid}", path)
        except BaseException:
            self.sock.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.sock.fileno(), select.POLLIN)
        self._look = functools.partial(self._poll.poll, 0)
        self._refs = itertools.count(1)
        self._rest = b""  # what was received and not yet looked at
        self._unfinished = False  # a frame has left in part only

    def new_ref(self) -> int:
        """A number that no other request of this connection carries."""
        return next(self._refs)

    # -- both ---------------------------------------------------------------------------------------------

    def exchange(
        self, kind: int, lead: bytes, body: bytes, deadline: float | None, ref: int = 0
    ) -> tuple[int, bytes | memoryview]:
        """Send a request and wait for its answer: a ref, `send` and `receive` in as few steps as can be.

        It raises what these raise. What is not as it nearly always is (a long frame, a full socket, an answer in
        parts or to another request) is left to them.
        """
        ref, size = ref or next(self._refs), len(lead) + len(body)
        if size > JOIN or self._rest:
            self.send(kind, ref, body, lead, deadline)
            return self.receive(ref, deadline)
        data = _pack(size, kind, ref) + lead + body
        try:
            sent = self.sock.send(data, _DONT_WAIT)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise NotDelivered(self.path) from error
        if sent != HEAD + size:
            self._send_rest(deadline, memoryview(data)[sent:])
        answer: bytes | None = None
        _waiting.append(self)  # an operation that no other thread breaks into; so is the pop
        try:
            if self.spin and len(_waiting) == 1 and look(self._look, self.spin):
                answer = self.sock.recv(RECEIVE, _DONT_WAIT)
            elif deadline is None:
                answer = self.sock.recv(RECEIVE)
            else:
                _await(self._poll, deadline)
                answer = self.sock.recv(RECEIVE, _DONT_WAIT)
        except BlockingIOError:
            pass
        except ConnectionError as error:
            raise NotDelivered(self.path) from error
        finally:
            if _waiting:  # not in a child that was forked meanwhile, by a signal handler
                _waiting.pop()
        if answer is not None:
            if not answer:
                raise Gone(self.path)
            if len(answer) >= HEAD:
                length, told, got = _unpack(answer)
                if got == ref and len(answer) == HEAD + length:
                    return told, answer[HEAD:]
            self._rest = answer
        return self.receive(ref, deadline)

    # -- out ----------------------------------------------------------------------------------------------

    def send(self, kind: int, ref: int, body: bytes = b"", lead: bytes = b"", deadline: float | None = None) -> None:
        """Send a frame whose body is `lead` and `body`.

        Raises:
            NotDelivered: the other side is gone, and has not read the whole frame.
            TimedOut: it does not read; the connection must not be used again.
            MessageTooBig: nothing was sent.
        """
        size = len(lead) + len(body)
        if size > JOIN:
            self._send_long(kind, ref, body, lead, deadline)
            return
        data = _pack(size, kind, ref) + lead + body
        sent = self._try_send(data)
        if sent != HEAD + size:
            self._send_rest(deadline, memoryview(data)[sent:])

    def tell(self, kind: int, ref: int, body: bytes = b"") -> bool:
        """Send a short frame, and never wait for it.

        Returns:
            Whether it has left; if not, the connection must not be used again.

        Raises:
            NotDelivered: the other side is gone.
        """
        return self._try_send(_pack(len(body), kind, ref) + body) == HEAD + len(body)

    def _try_send(self, data: bytes) -> int:
        """Send what there is room for; how many bytes."""
        try:
            return self.sock.send(data, _DONT_WAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise NotDelivered(self.path) from error

    def cancel(self, ref: int) -> None:
        """The answer to `ref` is no longer wanted: tell the other side without waiting, or close the connection.

        The connection must not be used again. A request that has left in part only is never run.
        """
        with suppress(NotDelivered):
            if not self._unfinished and not self.tell(frames.CANCEL, ref):
                self.hang_up()

    def _send_long(self, kind: int, ref: int, body: bytes, lead: bytes, deadline: float | None) -> None:
        size = len(lead) + len(body)
        if size > frames.LONGEST:
            raise frames.too_big(size, frames.LONGEST, "the arguments")
        self._send_rest(deadline, memoryview(_pack(size, kind, ref) + lead), memoryview(body))

    def _send_rest(self, deadline: float | None, *parts: memoryview) -> None:
        room = select.poll()
        room.register(self.sock.fileno(), select.POLLOUT)
        self._unfinished = True
        for data in parts:
            while data:
                _await(room, deadline)
                try:
                    data = data[self.sock.send(data, _DONT_WAIT) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise NotDelivered(self.path) from error
        self._unfinished = False

    # -- in -----------------------------------------------------------------------------------------------

    def receive(self, ref: int, deadline: float | None = None) -> tuple[int, bytes | memoryview]:
        """Wait for the answer to `ref`; what is no answer to it is dropped.

        Args:
            ref: of the request.
            deadline: `time.perf_counter()` seconds; None waits for ever.

        Returns:
            The kind and the body of the frame.

        Raises:
            NotDelivered: the other side closed with our frame unread (the kernel says so).
            Gone: it closed; the frame may have been read.
            TimedOut: no answer, or a part of one; the connection must not be used again.
        """
        while True:
            kind, got, body = self._frame(self._rest or self._take(deadline), deadline)
            if got == ref:
                return kind, body

    def _frame(self, data: bytes, deadline: float | None) -> tuple[int, int, bytes | memoryview]:
        """The next frame, of which `data` has arrived."""
        while len(data) < HEAD:
            data += self._take(deadline)
        length, kind, ref = _unpack(data)
        end = HEAD + length
        if length > RECEIVE and len(data) < end:
            return kind, ref, self._long(data[HEAD:], length, deadline)
        while len(data) < end:
            data += self._take(deadline)
        self._rest = data[end:]
        return kind, ref, data[HEAD:end]

    def _long(self, first: bytes, length: int, deadline: float | None) -> memoryview:
        body = Body(length, first)
        self._rest = b""
        while not body.whole:
            _await(self._poll, deadline)
            try:
                count = body.receive(self.sock)
            except ConnectionError as error:
                raise Gone(self.path) from error
            if not count:
                raise Gone(self.path)
        return body.take()

    def _take(self, deadline: float | None) -> bytes:
        """Whatever has arrived; looks for the spin's time first, then blocks."""
        data: bytes | None = None
        _waiting.append(self)  # an operation that no other thread breaks into; so is the pop
        try:
            if self.spin and len(_waiting) == 1:  # threads that look take the interpreter from each other
                data = self._try() if look(self._look, self.spin) else None
            while data is None:
                if deadline is None:
                    data = self._try(0)  # one system call instead of two
                else:
                    _await(self._poll, deadline)
                    data = self._try()
        finally:
            if _waiting:  # not in a child that was forked meanwhile, by a signal handler
                _waiting.pop()
        return data

    def _try(self, flags: int = _DONT_WAIT) -> bytes | None:
        try:
            data = self.sock.recv(RECEIVE, flags)
        except BlockingIOError:
            return None
        except ConnectionError as error:
            raise NotDelivered(self.path) from error
        if not data:
            raise Gone(self.path)
        return data

    def close(self) -> None:
        """Close our end: leases that were granted on this connection end."""
        self.sock.close()

    def hang_up(self) -> None:
        """End it from any thread, also while another one uses it: leases that were granted on it end."""
        with suppress(OSError):  # it has ended already
            self.sock.shutdown(socket.SHUT_RDWR)

    def __del__(self) -> None:
        with suppress(AttributeError):  # there never was a socket: out of descriptors
            self.sock.close()

    def __repr__(self) -> str:
        return f"<connection to {self.path} pid {self.pid}>"


def _await(poll: select.poll, deadline: float | None) -> None:
    """Block until the descriptor is ready."""
    if deadline is None:
        poll.poll()
        return
    left = deadline - time.perf_counter()
    if not poll.poll(min(max(left, 0.0) * 1e3, _LONGEST_POLL)):
        raise TimedOut


def _connect(sock: socket.socket, path: str, deadline: float | None) -> None:
    sock.setblocking(False)  # a full queue of the server would block us without a limit
    while True:
        try:
            sock.connect(path)
            break
        except BlockingIOError:
            if deadline is not None and time.perf_counter() >= deadline:
                raise TimedOut from None
            time.sleep(0.001)
        except OSError as error:
            if error.errno in ABSENT:
                raise NotDelivered(path) from error
            raise
    sock.setblocking(True)


# -- free connections ------------------------------------------------------------------------------------------


def take(path: str, spin: float = SPIN, deadline: float | None = None) -> ClientConn:
    """A connection to `path` for the calling thread alone: a free one, or a new one (raises as `ClientConn`)."""
    try:
        return _free[path].pop()
    except (KeyError, IndexError):
        return ClientConn(path, spin=spin, deadline=deadline)


def take_free(path: str) -> ClientConn | None:
    """A free connection to `path` for the calling thread alone; None if there is none."""
    try:
        return _free[path].pop()
    except (KeyError, IndexError):
        return None


def give(conn: ClientConn) -> None:
    """Give back a connection without a request under way."""
    free = _free.get(conn.path)
    if free is None:
        free = _free.setdefault(conn.path, [])
        if len(_free) > MAX_PATHS:
            _drop_one()
    if len(free) < MAX_FREE:
        free.append(conn)


def _drop_one() -> None:
    """Make room: drop the worker's socket that is known longest; its process is probably gone.

    A pool's socket is dropped only if there is no other: leases granted on its connections would end.
    """
    known = list(_free)
    oldest = next(filter(paths.is_worker, known), known[0]) if known else None  # a thread may have forgotten them all
    _free.pop(oldest, None)  # type: ignore[arg-type]


def forget(prefix: str) -> None:
    """Drop the free connections with that prefix of the path: one socket, or the directory of a system that ended."""
    for path in [path for path in list(_free) if path.startswith(prefix)]:
        _free.pop(path, None)


def _drop_inherited() -> None:
    # The copies of a forked child would keep its parent's leases alive, and two processes would read one stream.
    global generation
    generation += 1
    for conn in list(_conns):
        conn.sock.close()
    _free.clear()
    _waiting.clear()


os.register_at_fork(after_in_child=_drop_inherited)
