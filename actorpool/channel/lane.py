"""The serving side of the channel inside an actor: one epoll for everything that can become readable.

Rule of this file: nothing blocks but `serve`, and `serve` blocks at most `idle` seconds. An actor watches ONE
descriptor (`Lane.descriptor`); when it is readable the actor calls `serve`, which stays for a burst, because going back
to Thespian and being called again costs more than a small call does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from actorpool.channel import wire

RECEIVE = 65536
"""Bytes asked for at once; frames of more are received into a buffer of their own size."""
JOIN = 16384
"""Bodies up to this are joined with their header for one plain send; longer ones go by `sendmsg`, uncopied."""
BACKLOG = 1024
_CREDENTIALS = struct.Struct("3i")

_lanes: weakref.WeakSet[Lane] = weakref.WeakSet()


class Handler(Protocol):
    """What an actor does with what arrives. Called inside `Lane.serve`; what it raises comes out of `serve`."""

    def on_frame(self, peer: Peer, kind: int, ref: int, body: bytes | memoryview) -> None:
        """A whole frame. A long body is a memoryview; release it to give its memory back before a long call."""

    def on_gone(self, peer: Peer) -> None:
        """The other side closed its end; called once, after its last frame, not after our own `peer.close()`."""


class Peer:
    """One connection of a lane.

    Attributes:
        pid: the process at the other end, as the kernel says.
        state: free for the handler's use.
        open: whether the connection is still known to the lane.
    """

    __slots__ = ("__weakref__", "_big", "_filled", "_head", "_lane", "_out", "_rest", "_skip", "fd", "open", "pid",
                 "sock", "state")

    def __init__(self, lane: Lane, sock: socket.socket, pid: int) -> None:
        self._lane = lane
        self.sock = sock
        self.fd = sock.fileno()
        self.pid = pid
        self.state: Any = None
        self.open = True
        self._rest = b""  # the beginning of a frame whose end has not come
        self._big: memoryview | None = None  # the body of a long frame, filled up to _filled
        self._filled = 0
        self._head = (0, 0)  # kind and ref of the long frame
        self._skip = 0  # bytes of a refused frame still to come
        self._out: deque[memoryview] = deque()

    def send(self, kind: int, ref: int, body: bytes | bytearray | memoryview = b"") -> None:
        """Send a frame without ever blocking: at once as far as the socket takes it, the rest when it is writable.

        A body beyond `max_message` is replaced by an `ERROR` frame of the same ref. A peer that is gone is no error
        here: the reading side reports it.
        """
        size = len(body)
        if size > self._lane.max_message:
            kind, body = wire.ERROR, wire.dump_error(wire.too_big(size, self._lane.max_message, "the result would"))
            size = len(body)
        head = wire.HEADER.pack(size, kind, ref)
        if self._out:
            self._out.extend((memoryview(head), memoryview(body)) if size else (memoryview(head),))
        elif size <= JOIN:
            data = head + body
            sent = self._try(self.sock.send, data)
            if sent < len(data):
                self._wait_for_room([memoryview(data)[sent:]])
        else:
            sent = self._try(self.sock.sendmsg, (head, body))
            if sent < len(head):  # the socket was full
                self._wait_for_room([memoryview(head)[sent:], memoryview(body)])
            elif sent < len(head) + size:
                self._wait_for_room([memoryview(body)[sent - len(head) :]])

    def _try(self, send: Callable[[Any], int], data: Any) -> int:
        try:
            return send(data)
        except BlockingIOError:
            return 0
        except OSError:  # gone (the reader will find out) or closed by us: nobody is there to want the rest
            self._out.clear()
            return 2**62

    def _wait_for_room(self, chunks: list[memoryview]) -> None:
        self._out.extend(chunks)
        self._lane._expect(self, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self) -> None:
        while self._out:
            chunk = self._out[0]
            sent = self._try(self.sock.send, chunk)
            if not self._out:
                break  # the peer is gone
            if sent < len(chunk):
                self._out[0] = chunk[sent:]
                return
            self._out.popleft()
        self._lane._expect(self, select.EPOLLIN)

    def close(self) -> None:
        """Close our end; what was not sent yet is dropped, and the handler hears nothing more of this peer."""
        self._lane._forget(self)

    def __repr__(self) -> str:
        return f"<peer pid {self.pid}{'' if self.open else ' closed'}>"


class Lane:
    """Serves a unix socket, the connections made to it, outgoing connections and watched descriptors.

    Args:
        path: where to listen; what lies there is replaced (the former process is gone). None: listen nowhere.
        handler: gets every frame and every end.
        spin: seconds to look again before blocking (see `spin`); 0.0 is off.
        max_message: bytes a frame's body may have, in both directions.

    Raises:
        OSError: the path cannot be bound (too long, no directory, no right).
    """

    def __init__(
        self, path: str | None, handler: Handler, *, spin: float = 50e-6, max_message: int = wire.MAX_MESSAGE
    ) -> None:
        self.path = path
        self.max_message = max_message
        self._handler = handler
        self._spin = spin
        self._epoll = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._others: dict[int, Callable[[int], None]] = {}
        self._gone_fds: set[int] = set()  # closed during this round: their events are stale, the number may be reused
        self._listener: socket.socket | None = None
        self._spare = -1
        self.descriptor = self._epoll.fileno()
        _lanes.add(self)
        if path is not None:
            self._listen(path)

    def _listen(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener = listener
        listener.bind(path)
        self._inode = os.stat(path).st_ino
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.watch(listener.fileno(), self._accept)

    # -- the loop -----------------------------------------------------------------------------------------

    def serve(self, budget: float = 0.005, idle: float = 0.001) -> None:
        """Serve until nothing arrived for `idle` seconds, or for about `budget` seconds.

        Runs in the actor's process. What a handler raises comes out of here; the frame it was raised for is done.
        """
        poll, peers, others, gone, clock = (
            self._epoll.poll, self._peers, self._others, self._gone_fds, time.perf_counter,
        )
        end = clock() + budget
        while True:
            ready = poll(0) or self._wait(idle)
            if not ready:
                return
            gone.clear()
            for fd, events in ready:
                if fd in gone:
                    continue
                peer = peers.get(fd)
                if peer is None:
                    callback = others.get(fd)
                    if callback is not None:
                        callback(fd)
                    continue
                if events & select.EPOLLOUT:
                    peer._flush()
                if events & ~select.EPOLLOUT and peer.open:
                    self._receive(peer)
            if clock() > end:
                return

    def _wait(self, idle: float) -> list[tuple[int, int]]:
        """Look for the spin's time, giving the processor away between two looks, then block."""
        poll = self._epoll.poll
        if self._spin:
            clock, give_way = time.perf_counter, os.sched_yield
            end = clock() + self._spin
            while True:
                give_way()
                ready = poll(0)
                if ready:
                    return ready
                if clock() > end:
                    break
        return poll(idle)

    def _receive(self, peer: Peer) -> None:
        if peer._big is not None:
            self._fill(peer, peer._big)
            return
        try:
            data = peer.sock.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(peer)
            return
        if peer._skip:
            skipped = min(peer._skip, len(data))
            peer._skip -= skipped
            data = data[skipped:]
        if peer._rest:
            data = peer._rest + data
            peer._rest = b""
        self._parse(peer, data)

    def _parse(self, peer: Peer, data: bytes) -> None:
        unpack, head, on_frame = wire.HEADER.unpack_from, wire.HEADER.size, self._handler.on_frame
        at, size = 0, len(data)
        try:
            while size - at >= head:
                length, kind, ref = unpack(data, at)
                start = at + head
                end = start + length
                if end > size:
                    if length > RECEIVE:
                        at = size
                        self._begin_long(peer, kind, ref, length, data[start:])
                    return
                at = end
                on_frame(peer, kind, ref, data[start:end])
                if not peer.open:
                    return
        finally:  # also when the handler raised: the frames behind this one are kept
            if at < size:
                peer._rest = data[at:]

    def _begin_long(self, peer: Peer, kind: int, ref: int, length: int, first: bytes) -> None:
        """Receive a long body into a buffer of its own; refuse one that is beyond the limit, and skip it."""
        try:
            if length > self.max_message:
                raise MemoryError
            buffer = bytearray(length)
        except MemoryError:
            peer._skip = length - len(first)
            if kind in (wire.CALL, wire.ASK):  # what is answered; the connection and everything else go on
                error = wire.too_big(length, self.max_message, "the arguments")
                peer.send(wire.ERROR, ref, wire.dump_error(error))
            return
        buffer[: len(first)] = first
        peer._big, peer._filled, peer._head = memoryview(buffer), len(first), (kind, ref)

    def _fill(self, peer: Peer, body: memoryview) -> None:
        try:
            count = peer.sock.recv_into(body[peer._filled :])
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._lost(peer)
            return
        peer._filled += count
        if peer._filled == len(body):
            peer._big = None
            self._handler.on_frame(peer, *peer._head, body)

    def _lost(self, peer: Peer) -> None:
        self._forget(peer)
        self._handler.on_gone(peer)

    # -- who is connected ---------------------------------------------------------------------------------

    def _accept(self, _: int) -> None:
        assert self._listener is not None
        for _ in range(BACKLOG):
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    return  # the other side has gone while it waited
                self._refuse_one()
                continue
            pid, uid, _gid = _credentials(sock)
            if uid == os.geteuid():
                self._add(sock, pid)
            else:
                sock.close()

    def _refuse_one(self) -> None:
        """Out of descriptors: without this the waiting connection would keep the epoll ready, and us busy, for ever."""
        os.close(self._spare)
        with contextlib.suppress(OSError):
            assert self._listener is not None
            self._listener.accept()[0].close()
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def connect(self, path: str) -> Peer:
        """An outgoing connection, served like the others.

        Raises:
            OSError: nobody listens there, it is another user's, or its queue is full (`BlockingIOError`: try later).
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
            pid, uid, _gid = _credentials(sock)
            if uid != os.geteuid():
                raise PermissionError(errno.EPERM, f"the socket belongs to user {uid}", path)
        except BaseException:
            sock.close()
            raise
        return self._add(sock, pid)

    def _add(self, sock: socket.socket, pid: int) -> Peer:
        sock.setblocking(False)
        peer = Peer(self, sock, pid)
        self._peers[peer.fd] = peer
        self._epoll.register(peer.fd, select.EPOLLIN)
        return peer

    def _expect(self, peer: Peer, events: int) -> None:
        if peer.open:
            self._epoll.modify(peer.fd, events)

    def _forget(self, peer: Peer) -> None:
        if not peer.open:
            return
        peer.open = False
        peer._out.clear()
        peer._rest, peer._big = b"", None
        del self._peers[peer.fd]
        self._unregister(peer.fd)
        peer.sock.close()

    def _unregister(self, fd: int) -> None:
        # Explicitly, not by closing: another process may hold a copy, and the epoll would go on reporting it.
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)
        self._gone_fds.add(fd)

    @property
    def peers(self) -> list[Peer]:
        """Everybody who is connected."""
        return list(self._peers.values())

    def watch(self, fd: int, callback: Callable[[int], None]) -> None:
        """Have `callback(fd)` called from `serve` whenever the descriptor (a pidfd, say) is readable."""
        self._others[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed. Unknown ones are ignored."""
        if self._others.pop(fd, None) is not None:
            self._unregister(fd)

    # -- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection and remove the socket's file, unless a successor has already bound the path."""
        for peer in self.peers:
            self._forget(peer)
        if self._listener is not None and self.path is not None:
            with contextlib.suppress(OSError):
                if os.stat(self.path).st_ino == self._inode:
                    os.unlink(self.path)
        self._release()

    def _release(self) -> None:
        """Close our descriptors and touch nothing else."""
        _lanes.discard(self)
        for peer in self._peers.values():
            peer.open = False
            peer.sock.close()
        self._peers.clear()
        self._others.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            os.close(self._spare)
        self._epoll.close()


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(data)


def _drop_inherited() -> None:
    # A forked child's copies would keep connections open behind their owners' backs, so that nobody would ever see
    # an end of file. Only close: unregistering or unlinking would reach into the parent's own epoll and files.
    for lane in list(_lanes):
        lane._release()


os.register_at_fork(after_in_child=_drop_inherited)
