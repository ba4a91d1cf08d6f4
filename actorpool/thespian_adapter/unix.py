"""Unix sockets in the node's directory, in the place of the TCP sockets that Thespian's transport was written for.

The directory is 0700 and the kernel names the user at the other end, so no other user of the machine can open a
connection, let alone have bytes kept. A message also costs a fifth less than by TCP on loopback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
from typing import Any

from thespian.actors import ActorAddress

from actorpool.transport import paths
from actorpool.transport.connection import credentials

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel makes it less if it likes."""
MODE = 0o600


class UnixAddress:
    """What an `ActorAddress` holds: the path of the socket. The names are those that Thespian's transport asks for."""

    __slots__ = ("path",)
    socketArgs = (socket.AF_UNIX, socket.SOCK_STREAM)  # noqa: N815

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def bindArgs(self) -> tuple[str]:  # noqa: N802
        """For `socket.bind`."""
        return (self.path,)

    connectArgs = bindArgs  # noqa: N815

    def isLocalAddr(self) -> bool:  # noqa: N802
        """It is on this host."""
        return True

    def isSameSystem(self, other: Any) -> bool:  # noqa: N802
        """Whether the other one is on this host, too."""
        return isinstance(getattr(other, "addressDetails", other), UnixAddress)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnixAddress) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[type[UnixAddress], tuple[str]]:
        return UnixAddress, (self.path,)

    def __str__(self) -> str:
        return f"({self.path})"

    __repr__ = __str__


def address_of(path: str) -> Any:
    """The `ActorAddress` of the actor with that socket."""
    return ActorAddress(UnixAddress(path))


class UnixSocket(socket.socket):
    """A unix socket with the manners of a TCP socket, as far as Thespian's transport depends on them."""

    _awaited: str | None = None
    """Where to connect to: the receiver's queue was full."""

    def setsockopt(self, level: int, *values: Any) -> None:
        """Set an option; those of TCP are no options of this one."""
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *values)

    def listen_at(self, path: str) -> None:
        """Bind a path, for this user alone whatever the umask says, and listen.

        Raises:
            OSError: the path is taken, or cannot be had.
        """
        self.bind(path)
        os.chmod(path, MODE)
        self.listen(BACKLOG)

    def accept(self) -> tuple[UnixSocket, Any]:
        """Accept a connection.

        Raises:
            PermissionError: it is another user's; it was closed.
        """
        plain, address = super().accept()
        accepted = UnixSocket(*UnixAddress.socketArgs, fileno=plain.detach())
        if hasattr(socket, "SO_PEERCRED") and (uid := credentials(accepted)[1]) not in (os.geteuid(), 0):
            accepted.close()
            raise PermissionError(f"a connection of uid {uid} was refused")
        return accepted, address

    def connect(self, path: Any) -> None:
        """Connect. What fails is "in progress", as with TCP: `send` tries again, and tells how it went.

        Thespian looks at a connection that was refused at once only when something else happens.
        """
        self._awaited = None
        try:
            super().connect(path)
        except OSError as error:
            self._awaited = path
            raise BlockingIOError(errno.EINPROGRESS, str(error)) from None

    def send(self, data: Any, flags: int = 0) -> int:
        """Send what there is room for.

        Raises:
            BlockingIOError: there is no room, or no place among the connections that wait to be accepted.
            ConnectionRefusedError: no process listens.
            ConnectionResetError: the other side has closed the connection, which may be made again.
        """
        try:
            if self._awaited is not None:
                super().connect(self._awaited)
                self._awaited = None
            return super().send(data, flags)
        except FileNotFoundError as error:
            raise ConnectionRefusedError(errno.ECONNREFUSED, str(error)) from None
        except BrokenPipeError as error:
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from None


def free_path(directory: str) -> str:
    """Where another socket may be."""
    while os.path.lexists(path := paths.actor(directory, secrets.token_hex(3))):
        pass
    return path


def listen(directory: str, path: str | None) -> tuple[UnixSocket, str]:
    """A listening socket at that path, or at a new one of the directory."""
    while True:
        place = path or free_path(directory)
        sock = UnixSocket(*UnixAddress.socketArgs)
        try:
            sock.listen_at(place)
        except OSError as error:
            sock.close()
            if path is None and error.errno == errno.EADDRINUSE:
                continue
            raise
        return sock, place


def remove(path: str) -> None:
    """Remove a socket's file, if it is there."""
    with contextlib.suppress(OSError):
        os.unlink(path)
