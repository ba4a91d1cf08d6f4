"""One end of a connection that never blocks: frames out of a stream of bytes, and back into it.

Base of both sides that multiplex: `ServerConn` and `AioConn`. A subclass says how it learns that it is ready.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from actorpool.transport import frames

RECEIVE = 65536
"""Bytes asked for at once. The body of a longer frame is received into a buffer of its own, uncopied."""
BEGINNING = 2 * RECEIVE
"""Bytes of memory that a longer frame has from its first byte on."""
PIECE = 4 * RECEIVE
"""Bytes by which that grows, at most, each time as many have arrived."""
JOIN = 65536
"""Bodies up to this are joined with their header for one plain send; longer ones go by `sendmsg`, uncopied."""
HEAD = frames.HEADER.size

_pack = frames.HEADER.pack
_unpack = frames.HEADER.unpack_from
_CREDENTIALS = struct.Struct("3i")


class Body:
    """The body of a long frame while it arrives.

    Its memory grows with what has arrived, whatever length was announced: the announcement may be nonsense.

    Args:
        length: bytes, as announced.
        first: what has come with the header.
    """

    __slots__ = ("_buffer", "filled", "length")

    def __init__(self, length: int, first: bytes) -> None:
        self.length = length
        self.filled = len(first)
        self._buffer = bytearray(min(length, BEGINNING))
        self._buffer[: self.filled] = first

    def receive(self, sock: socket.socket) -> int:
        """Take more of it in; how many bytes, 0 at the end of the connection."""
        buffer, filled = self._buffer, self.filled
        if filled < len(buffer):
            with memoryview(buffer) as whole, whole[filled:] as room:
                count = sock.recv_into(room)
        else:
            data = sock.recv(min(PIECE, self.length - filled))
            buffer += data
            count = len(data)
        self.filled += count
        return count

    @property
    def whole(self) -> bool:
        """Whether all of it is there."""
        return self.filled == self.length

    def take(self) -> memoryview:
        """All of it, the taker's alone: once that is released, its memory is given back."""
        view = memoryview(self._buffer)
        self._buffer = bytearray()
        return view


class _Skipped:
    """The body of a frame that was refused: it is received into nothing."""

    __slots__ = ("filled", "length")

    def __init__(self, length: int, filled: int) -> None:
        self.length = length
        self.filled = filled

    def receive(self, sock: socket.socket) -> int:
        """Take more of it in."""
        count = len(sock.recv(min(RECEIVE, self.length - self.filled)))
        self.filled += count
        return count

    @property
    def whole(self) -> bool:
        """Whether all of it has gone by."""
        return self.filled == self.length


class _Long:
    """A frame that is longer than what is received at once, and of which some has arrived."""

    __slots__ = ("body", "kind", "ref")

    def __init__(self, kind: int, ref: int, body: Body | _Skipped) -> None:
        self.kind = kind
        self.ref = ref
        self.body = body


class _Queued:
    """A frame, or the rest of one, for which the socket has no room yet."""

    __slots__ = ("begun", "kind", "parts", "ref")

    def __init__(self, kind: int, ref: int, begun: bool, *parts: memoryview) -> None:
        self.kind = kind
        self.ref = ref
        self.begun = begun
        self.parts = [part for part in parts if len(part)]


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
        self._partial: bytes | _Long | None = None  # the beginning of a frame that has arrived in part
        self._out: deque[_Queued] = deque()

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
        except OSError:  # gone, or closed by us: the frame has no reader
            self.refused = True
            return
        if sent < size + HEAD:
            self._out.append(_Queued(kind, ref, sent > 0, memoryview(data)[sent:]))
            self._await_room(True)

    def _send_long(self, kind: int, ref: int, body: bytes | memoryview, lead: bytes) -> None:
        size = len(lead) + len(body)
        if size > self.max_message:
            kind, lead = frames.ERROR, b""
            body = frames.dump_error(frames.too_big(size, self.max_message, "the result would"))
            size = len(body)
        idle = not self._out
        self._out.append(_Queued(kind, ref, False, memoryview(_pack(size, kind, ref) + lead), memoryview(body)))
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
                self._flush(out[0])
            except BlockingIOError:
                return
            except OSError:
                self.refused = True
                out.clear()
                break
            out.popleft()
        self._await_room(False)

    def _flush(self, frame: _Queued) -> None:
        parts = frame.parts
        while parts:
            sent = self.sock.send(parts[0])
            frame.begun = True
            if sent < len(parts[0]):
                parts[0] = parts[0][sent:]
            else:
                del parts[0]

    def take_back(self, kind: int, ref: int) -> bool:
        """Do not send a frame after all; False: it has left already, or a part of it."""
        for frame in self._out:
            if frame.ref == ref and frame.kind == kind and not frame.begun:
                self._out.remove(frame)
                if not self._out:
                    self._await_room(False)
                return True
        return False

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
        """Receive a long body into memory of its own; refuse one that is beyond the limit, and skip it."""
        try:
            if length > self.max_message:
                raise MemoryError
            self._partial = _Long(kind, ref, Body(length, first))
        except MemoryError:
            self._skip(kind, ref, length, len(first))

    def _skip(self, kind: int, ref: int, length: int, filled: int) -> None:
        self._partial = _Long(kind, ref, _Skipped(length, filled))
        self._refuse(kind, ref, length)

    def _refuse(self, kind: int, ref: int, size: int) -> None:
        """A body is too long to be received: its request is answered by an error, and the connection goes on."""
        if kind in (frames.CALL, frames.ASK, frames.SHARED):
            self.send(frames.ERROR, ref, frames.dump_error(frames.too_big(size, self.max_message, "the arguments")))
        elif kind in (frames.RESULT, frames.REPLY, frames.ERROR, frames.PERFORMED):
            error = frames.too_big(size, self.max_message, "the result would")
            self._deliver(frames.ERROR, ref, frames.dump_error(error))

    def _receive_long(self, long: _Long) -> bool:
        body = long.body
        try:
            count = body.receive(self.sock)
        except BlockingIOError:
            return True
        except OSError:
            return False
        except MemoryError:
            self._skip(long.kind, long.ref, body.length, body.filled)
            return True
        if body.whole:
            self._partial = None
            if isinstance(body, Body):
                self._deliver(long.kind, long.ref, body.take())
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
