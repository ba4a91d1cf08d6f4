"""The serving side of the channel inside an actor: one epoll for everything that can become readable.

Rule of this file: nothing blocks but `serve`. An actor watches ONE descriptor (`ChannelServer.descriptor`); when it is
readable the actor calls `serve`. That returns only when something outside is to be done, because going back to Thespian
and being called again costs several times what a small call does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from actorpool.transport import frames
from actorpool.transport.connection import Connection, credentials
from actorpool.transport.spinwait import look

BACKLOG = 1024
BUDGET = 0.005
BREATH = 0.001
"""Seconds to wait when a connection can be neither taken nor refused."""
IDLE = 1.0
"""Seconds; an actor that waits here wakes up as soon as one that waits in Thespian, and is quicker to answer."""

log = logging.getLogger("actorpool")

_READABLE = getattr(select, "EPOLLIN", 1)  # a name of the module: looked up for every event

_servers: weakref.WeakSet[ChannelServer] = weakref.WeakSet()


class Handler(Protocol):
    """What an actor does with what arrives. Called inside `ChannelServer.serve`.

    `BadFrame` is for what a peer must not send: that peer is closed. Whatever else is raised comes out of `serve`.
    """

    def on_frame(self, peer: ServerConn, kind: int, ref: int, body: bytes | memoryview) -> None:
        """A whole frame. A long body is a memoryview; release it to give its memory back before a long call."""

    def on_gone(self, peer: ServerConn) -> None:
        """The other side closed its end; called once, after its last frame, not after our own `peer.close()`."""


class Outside(Protocol):
    """What an actor must serve beside its `ChannelServer`: Thespian's messages and timers."""

    def pending(self) -> bool:
        """Whether something is to be done that needs no waiting for."""

    def patience(self) -> float:
        """Seconds until something is to be done by itself; infinity for never, zero or less for now."""

    def descriptors(self) -> list[int]:
        """What becomes readable when there is more to do."""


class ServerConn(Connection):
    """One connection of a `ChannelServer`.

    Attributes:
        pid: the process at the other end, as the kernel says.
        state: free for the handler's use.
        when_sent: called once when what has no room yet is sent, or cannot be.
        open: whether the connection is still known to the server of the channel.
        heeded: read also what it sends while it does not read: a peer of our own, which may have to be heard first.
            Others may ask for more than they fetch, and what they have not fetched is in our memory.
    """

    __slots__ = ("_server", "heeded", "pid", "state", "when_sent")

    def __init__(self, server: ChannelServer, sock: socket.socket, pid: int) -> None:
        super().__init__(sock, partial(server.handler.on_frame, self), server.max_message)
        self._server = server
        self.pid = pid
        self.state: Any = None
        self.heeded = False
        self.when_sent: Callable[[], None] | None = None

    def close(self) -> None:
        """Close our end; what was not sent yet is dropped, and the handler hears nothing more of this peer."""
        self._server._forget(self)

    def _await_room(self, wanted: bool) -> None:
        if self.open:
            heeded = select.EPOLLIN if self.heeded or not wanted else 0
            self._server._epoll.modify(self.fd, heeded | (select.EPOLLOUT if wanted else 0))
        then = self.when_sent
        if then is not None and not wanted:
            self.when_sent = None
            then()

    def __repr__(self) -> str:
        return f"<peer pid {self.pid}{'' if self.open else ' closed'}>"


class ChannelServer:
    """Serves a unix socket, the connections made to it, those of our own and watched descriptors.

    Args:
        path: where to listen; what lies there is replaced (the former process is gone). None: listen nowhere.
        handler: gets every frame and every end.
        outside: what else the actor has to do, which calls `serve` away. None: nothing.
        spin: seconds to look again before blocking (see `spin`); 0.0 is off.
        max_message: bytes a frame's body may have, in both directions.

    Attributes:
        descriptor: what the actor watches.
        first: the descriptor of a peer whose frames go before what others have sent later. (The kernel does not list
            what is readable in the order in which it came.)

    Raises:
        OSError: the path cannot be bound (too long, no directory, no right).
    """

    def __init__(
        self,
        path: str | None,
        handler: Handler,
        *,
        outside: Outside | None = None,
        spin: float = 50e-6,
        max_message: int = frames.MAX_MESSAGE,
    ) -> None:
        self.path = path
        self.handler = handler
        self._outside = outside
        self.max_message = max_message
        self._spin = spin
        self._epoll = select.epoll()
        self._look = partial(self._epoll.poll, 0)
        self._everything = self._epoll if outside is None else select.epoll()
        self._attended: list[int] = []  # the descriptors of `outside` that are in `_everything`
        self._peers: dict[int, ServerConn] = {}
        self._others: dict[int, Callable[[int], None]] = {}
        self._gone_fds: set[int] = set()  # closed in this round: their events are stale, their numbers may be reused
        self._listener: socket.socket | None = None
        self._spare_descriptor = -1
        self.first = -1
        self.descriptor = self._epoll.fileno()
        if outside is not None:
            self._everything.register(self.descriptor, select.EPOLLIN)
        _servers.add(self)
        if path is not None:
            self._listen(path)

    def _listen(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener = listener
        self._spare_descriptor = _spare_descriptor()
        listener.bind(path)
        os.chmod(path, 0o600)  # whatever the umask: the right to write is the right to connect
        self._inode = os.stat(path).st_ino
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self.watch(listener.fileno(), self._accept)

    # -- the loop -----------------------------------------------------------------------------------------

    def serve(self, budget: float = BUDGET, idle: float = IDLE) -> None:
        """Serve until nothing arrived for `idle` seconds, or something outside is to be done.

        Runs in the actor's process. What a handler raises comes out of here; the frame it was raised for is done.

        Args:
            budget: seconds after which even a busy server looks outside.
            idle: longest wait in seconds.
        """
        poll, clock, round_of = self._epoll.poll, time.perf_counter, self._round
        end = clock() + budget
        if self._outside is not None:
            self._attend(self._outside.descriptors())
        while True:
            ready = poll(0) or self._wait(idle)
            if not ready:
                return
            round_of(ready)
            if clock() > end:
                if self._is_called_away():
                    return
                end = clock() + budget

    def _wait(self, idle: float) -> list[tuple[int, int]]:
        """Look for the spin's time, then block."""
        outside = self._outside
        if outside is not None and outside.pending():
            return []
        poll = self._epoll.poll
        if self._spin:
            ready = look(self._look, self._spin)
            if ready:
                return ready  # type: ignore[no-any-return]
        if outside is None:
            return poll(idle)
        ready = self._everything.poll(max(min(idle, outside.patience()), 0.0))
        return poll(0) if len(ready) == 1 and ready[0][0] == self.descriptor else []

    def _is_called_away(self) -> bool:
        outside = self._outside
        if outside is None or outside.pending() or outside.patience() <= 0.0:
            return True
        return any(fd != self.descriptor for fd, _ in self._everything.poll(0))

    def _attend(self, descriptors: list[int]) -> None:
        """Have `_wait` end when one of these is readable. They change only between two calls of `serve`.

        A number may stand for another file than the last time, so each is registered again.
        """
        for fd in set(self._attended).difference(descriptors):
            with contextlib.suppress(OSError):  # closed, and so forgotten by the kernel
                self._everything.unregister(fd)
        for fd in descriptors:
            with contextlib.suppress(OSError):  # known already, or closed
                self._everything.register(fd, select.EPOLLIN)
        self._attended = descriptors

    def _round(self, ready: list[tuple[int, int]]) -> None:
        peers, gone = self._peers, self._gone_fds
        gone.clear()
        if len(ready) > 1 and self.first >= 0:
            ready.sort(key=self._is_later)
        for fd, events in ready:
            if fd in gone:
                continue
            peer = peers.get(fd)
            if peer is None:
                callback = self._others.get(fd)
                if callback is not None:
                    callback(fd)
            else:
                try:
                    if events == _READABLE:
                        if not peer.receive():
                            self._lost(peer)
                    else:
                        if events & select.EPOLLOUT:
                            peer.flush()
                        if events & ~select.EPOLLOUT and not peer.receive():
                            self._lost(peer)
                except frames.BadFrame as problem:
                    log.info("%r has sent a bad frame and is hung up on: %s", peer, problem)
                    self._lost(peer)

    def _is_later(self, event: tuple[int, int]) -> bool:
        return event[0] != self.first

    def _lost(self, peer: ServerConn) -> None:
        if peer.open:
            self._forget(peer)
            self.handler.on_gone(peer)

    # -- connections -------------------------------------------------------------------------------------

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
                return
            pid, uid = credentials(sock)
            if uid == os.geteuid():
                self._add(sock, pid)
            else:
                sock.close()

    def _refuse_one(self) -> None:
        """Out of descriptors: without this the waiting connection would keep the epoll ready, and us busy, for ever.

        Where the whole machine has none, other processes may take the spare one; then the connection has to wait.
        """
        if self._spare_descriptor < 0:
            time.sleep(BREATH)
        else:
            os.close(self._spare_descriptor)
            with contextlib.suppress(OSError):
                assert self._listener is not None
                self._listener.accept()[0].close()
        self._spare_descriptor = _spare_descriptor()

    def connect(self, path: str) -> ServerConn:
        """An outgoing connection, served like the others.

        Raises:
            OSError: no process listens there, another user's does, or its queue is full (`BlockingIOError`: try later).
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
            pid, uid = credentials(sock)
            if uid != os.geteuid():
                raise PermissionError(errno.EPERM, f"the socket belongs to user {uid}", path)
        except BaseException:
            sock.close()
            raise
        return self.adopt(sock, pid)

    def adopt(self, sock: socket.socket, pid: int) -> ServerConn:
        """Serve also this connection, the other end of which a process of our own has, of that pid."""
        peer = self._add(sock, pid)
        peer.heeded = True
        return peer

    def _add(self, sock: socket.socket, pid: int) -> ServerConn:
        sock.setblocking(False)
        peer = ServerConn(self, sock, pid)
        self._peers[peer.fd] = peer
        self._epoll.register(peer.fd, select.EPOLLIN)
        return peer

    def _forget(self, peer: ServerConn) -> None:
        if peer.open:
            del self._peers[peer.fd]
            self._unregister(peer.fd)
            peer.release()

    def _unregister(self, fd: int) -> None:
        # Explicitly, not by closing: another process may hold a copy, and the epoll would go on reporting it.
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)
        self._gone_fds.add(fd)

    @property
    def peers(self) -> list[ServerConn]:
        """All open connections."""
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
        if self._listener is not None and self.path is not None:
            with contextlib.suppress(OSError):
                if os.stat(self.path).st_ino == self._inode:
                    os.unlink(self.path)
        self._release()

    def _release(self) -> None:
        """Close our descriptors and touch nothing else."""
        _servers.discard(self)
        for peer in self._peers.values():
            peer.release()
        self._peers.clear()
        self._others.clear()
        self._epoll.close()
        self._everything.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._spare_descriptor >= 0:
                os.close(self._spare_descriptor)


def _spare_descriptor() -> int:
    """A descriptor to give away when there are no others; -1 if there is none at all."""
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _drop_inherited() -> None:
    # A forked child's copies would keep connections open after their owner closed them: no peer would ever see
    # an end of file. Only close: unregistering or unlinking would reach into the parent's own epoll and files.
    for server in list(_servers):
        server._release()


os.register_at_fork(after_in_child=_drop_inherited)
