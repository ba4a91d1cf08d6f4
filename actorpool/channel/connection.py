"""One end of a connection that never blocks: frames out of a stream of bytes, and back into it.

Base of both sides that multiplex: a lane's peers and asyncio's lines. A subclass says how it hears of readiness.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from actorpool.channel import wire

RECEIVE = 65536
"""Bytes asked for at once. The body of a longer frame is received into a buffer of its own, uncopied."""
JOIN = 16384
"""Bodies up to this are joined with their header for one plain send; longer ones go by `sendmsg`, uncopied."""
_CREDENTIALS = struct.Struct("3i")


class Connection:
    """A connected, non-blocking socket.

    Args:
        sock: the socket, owned from now on.
        deliver: called with (kind, ref, body) of each whole frame; a body beyond `RECEIVE` is a memoryview.
        max_message: bytes a body may have, in both directions.
    """

    __slots__ = ("__weakref__", "_big", "_deliver", "_filled", "_head", "_out", "_rest", "_skip", "fd", "max_message",
                 "open", "sock")

    def __init__(self, sock: socket.socket, deliver: Callable[[int, int, Any], None], max_message: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.max_message = max_message
        self.open = True
        self._deliver = deliver
        self._rest = b""  # the beginning of a frame whose end has not come
        self._big: memoryview | None = None  # the body of a long frame, filled up to _filled
        self._filled = 0
        self._head = (0, 0)  # kind and ref of the long frame
        self._skip = 0  # bytes of a refused frame still to come
        self._out: deque[memoryview] = deque()

    # -- out ----------------------------------------------------------------------------------------------

    def send(self, kind: int, ref: int, body: bytes | memoryview = b"", lead: bytes = b"") -> None:
        """Send a frame without ever blocking: at once as far as the socket takes it, the rest when it is writable.

        A body beyond `max_message` is replaced by an `ERROR` frame of the same ref. A peer that is gone is no error
        here: the reading side finds out.

        Args:
            kind: the frame's kind.
            ref: the frame's ref.
            body: the body, or its long part.
            lead: a short first part of the body.
        """
        size = len(lead) + len(body)
        if size > self.max_message:
            kind, lead = wire.ERROR, b""
            body = wire.dump_error(wire.too_big(size, self.max_message, "the result would"))
            size = len(body)
        head = wire.HEADER.pack(size, kind, ref) + lead
        if self._out:
            self._out.extend((memoryview(head), memoryview(body)))
            return
        if size <= JOIN:
            head += body
            body = b""
        try:
            sent = self.sock.sendmsg((head, body)) if body else self.sock.send(head)
        except BlockingIOError:
            sent = 0
        except OSError:  # gone, or closed by us: nobody is there to want it
            return
        if sent < len(head):
            self._out.append(memoryview(head)[sent:])
            sent = len(head)
        if sent < len(head) + len(body):
            self._out.append(memoryview(body)[sent - len(head) :])
        if self._out:
            self._await_room(True)

    def flush(self) -> None:
        """The socket is writable: send on."""
        while self._out:
            chunk = self._out[0]
            try:
                sent = self.sock.send(chunk)
            except BlockingIOError:
                return
            except OSError:
                self._out.clear()
                break
            if sent < len(chunk):
                self._out[0] = chunk[sent:]
                return
            self._out.popleft()
        self._await_room(False)

    def _await_room(self, wanted: bool) -> None:
        """Have `flush` called when the socket is writable, or no longer."""
        raise NotImplementedError

    # -- in -----------------------------------------------------------------------------------------------

    def receive(self) -> bool:
        """The socket is readable: deliver what is whole. False: the other side has closed its end."""
        if self._big is not None:
            return self._fill(self._big)
        try:
            data = self.sock.recv(RECEIVE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._rest:
            data = self._rest + data
            self._rest = b""
        self._parse(data)
        return True

    def _parse(self, data: bytes) -> None:
        unpack, head = wire.HEADER.unpack_from, wire.HEADER.size
        at, size = 0, len(data)
        try:
            while size - at >= head:
                length, kind, ref = unpack(data, at)
                start = at + head
                end = start + length
                if end > size:
                    if length > RECEIVE:
                        at = size
                        self._begin_long(kind, ref, length, data[start:])
                    return
                at = end
                self._deliver(kind, ref, data[start:end])
                if not self.open:
                    return
        finally:  # also when the handler raised: the frames behind this one are kept
            if at < size:
                self._rest = data[at:]

    def _begin_long(self, kind: int, ref: int, length: int, first: bytes) -> None:
        """Receive a long body into a buffer of its own; refuse one that is beyond the limit, and skip it."""
        try:
            if length > self.max_message:
                raise MemoryError
            buffer = bytearray(length)
        except MemoryError:
            self._skip = length - len(first)
            self._refuse(kind, ref, length)
            return
        buffer[: len(first)] = first
        self._big, self._filled, self._head = memoryview(buffer), len(first), (kind, ref)

    def _refuse(self, kind: int, ref: int, size: int) -> None:
        """A body is too long to be received: whoever waits for an answer gets an error, and the connection goes on."""
        if kind in (wire.CALL, wire.ASK):
            self.send(wire.ERROR, ref, wire.dump_error(wire.too_big(size, self.max_message, "the arguments")))
        elif kind in (wire.RESULT, wire.REPLY, wire.ERROR):
            error = wire.too_big(size, self.max_message, "the result would")
            self._deliver(wire.ERROR, ref, wire.dump_error(error))

    def _fill(self, body: memoryview) -> bool:
        try:
            count = self.sock.recv_into(body[self._filled :])
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._filled += count
        if self._filled == len(body):
            self._big = None
            self._deliver(*self._head, body)
        return count > 0

    # -- the end ------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Close the descriptor and drop what was not sent yet; touch nothing else."""
        self.open = False
        self._out.clear()
        self._rest, self._big = b"", None
        self.sock.close()


def credentials(sock: socket.socket) -> tuple[int, int]:
    """The pid and the uid of the process at the other end, as the kernel says."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(data)
    return pid, uid
