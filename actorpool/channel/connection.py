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
JOIN = 65536
"""Bodies up to this are joined with their header for one plain send; longer ones go by `sendmsg`, uncopied."""
HEAD = wire.HEADER.size

_pack = wire.HEADER.pack
_unpack = wire.HEADER.unpack_from
_CREDENTIALS = struct.Struct("3i")


class _Long:
    """The body of a frame that is longer than what is received at once; one that is refused has no buffer."""

    __slots__ = ("buffer", "filled", "kind", "length", "ref")

    def __init__(self, kind: int, ref: int, length: int, filled: int) -> None:
        self.kind = kind
        self.ref = ref
        self.length = length
        self.filled = filled
        self.buffer: memoryview | None = None


class Connection:
    """A connected, non-blocking socket.

    Args:
        sock: the socket, owned from now on.
        deliver: called with (kind, ref, body) of each whole frame; a body beyond `RECEIVE` is a memoryview.
        max_message: bytes a body may have, in both directions.

    Attributes:
        open: until `release`.
        refused: the kernel has said that the other side ended without reading our last frame.
    """

    __slots__ = ("__weakref__", "_deliver", "_out", "_partial", "fd", "max_message", "open", "refused", "sock")

    def __init__(self, sock: socket.socket, deliver: Callable[[int, int, Any], None], max_message: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.max_message = max_message
        self.open = True
        self.refused = False
        self._deliver = deliver
        self._partial: bytes | _Long | None = None  # the beginning of a frame whose end has not come
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
        if size > JOIN or self._out:
            self._send_long(kind, ref, body, lead)
            return
        data = _pack(size, kind, ref) + lead + body
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # gone, or closed by us: nobody is there to want it
            self.refused = True
            return
        if sent < size + HEAD:
            self._out.append(memoryview(data)[sent:])
            self._await_room(True)

    def _send_long(self, kind: int, ref: int, body: bytes | memoryview, lead: bytes) -> None:
        size = len(lead) + len(body)
        if size > self.max_message:
            kind, lead = wire.ERROR, b""
            body = wire.dump_error(wire.too_big(size, self.max_message, "the result would"))
            size = len(body)
        idle = not self._out
        self._out.extend((memoryview(_pack(size, kind, ref) + lead), memoryview(body)))
        if idle:
            self.flush()
            if self._out:
                self._await_room(True)

    @property
    def unsent(self) -> bool:
        """Whether some of what was sent waits for room; it is lost if this process ends now."""
        return bool(self._out)

    def flush(self) -> None:
        """Send on what had no room."""
        out = self._out
        while out:
            try:
                sent = self.sock.send(out[0])
            except BlockingIOError:
                return
            except OSError:
                self.refused = True
                out.clear()
                break
            if sent < len(out[0]):
                out[0] = out[0][sent:]
            else:
                out.popleft()
        self._await_room(False)

    def _await_room(self, wanted: bool) -> None:
        """Have `flush` called when the socket is writable, or no longer."""
        raise NotImplementedError

    # -- in -----------------------------------------------------------------------------------------------

    def receive(self) -> bool:
        """The socket is readable: deliver what is whole. False: the other side has closed its end."""
        partial = self._partial
        if isinstance(partial, _Long):
            return self._receive_long(partial)
        try:
            data = self.sock.recv(RECEIVE)
        except BlockingIOError:
            return True
        except OSError:  # a reset: the other side has left something unread
            self.refused = True
            return False
        if partial is not None:
            data = partial + data if data else b""
            self._partial = None
        size = len(data)
        if size >= HEAD:
            length, kind, ref = _unpack(data)
            if size == HEAD + length:  # exactly one frame, as nearly always
                self._deliver(kind, ref, data[HEAD:])
                return True
        self._parse(data)
        return size > 0

    def _parse(self, data: bytes) -> None:
        at, size = 0, len(data)
        try:
            while size - at >= HEAD:
                length, kind, ref = _unpack(data, at)
                start = at + HEAD
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
                self._partial = data[at:]

    def _begin_long(self, kind: int, ref: int, length: int, first: bytes) -> None:
        """Receive a long body into a buffer of its own; refuse one that is beyond the limit, and skip it."""
        self._partial = long = _Long(kind, ref, length, len(first))
        try:
            if length > self.max_message:
                raise MemoryError
            long.buffer = memoryview(bytearray(length))
            long.buffer[: len(first)] = first
        except MemoryError:
            self._refuse(kind, ref, length)

    def _refuse(self, kind: int, ref: int, size: int) -> None:
        """A body is too long to be received: whoever waits for an answer gets an error, and the connection goes on."""
        if kind in (wire.CALL, wire.ASK, wire.SHARED):
            self.send(wire.ERROR, ref, wire.dump_error(wire.too_big(size, self.max_message, "the arguments")))
        elif kind in (wire.RESULT, wire.REPLY, wire.ERROR, wire.PERFORMED):
            error = wire.too_big(size, self.max_message, "the result would")
            self._deliver(wire.ERROR, ref, wire.dump_error(error))

    def _receive_long(self, long: _Long) -> bool:
        body = long.buffer
        try:
            if body is not None:
                count = self.sock.recv_into(body[long.filled :])
            else:
                count = len(self.sock.recv(min(RECEIVE, long.length - long.filled)))
        except BlockingIOError:
            return True
        except OSError:
            return False
        long.filled += count
        if long.filled == long.length:
            self._partial = None
            if body is not None:
                long.buffer = None  # the body is the handler's alone, who may give its memory back
                self._deliver(long.kind, long.ref, body)
        return count > 0

    # -- the end ------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Close the descriptor and drop what was not sent yet; touch nothing else."""
        self.open = False
        self._out.clear()
        self._partial = None
        self.sock.close()


def credentials(sock: socket.socket) -> tuple[int, int]:
    """The pid and the uid of the process at the other end, as the kernel says."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(data)
    return pid, uid
