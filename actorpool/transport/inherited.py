"""The connection of a worker with its pool from its first instant: a socket pair, whose other end its fork inherits.

So a worker need not be found, connected to and believed: nobody else can be at the other end.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

_pair: tuple[socket.socket, socket.socket] | None = None  # while a child is forked, and in it until it takes its end


@contextlib.contextmanager
def across_fork() -> Iterator[socket.socket | None]:
    """A child that is forked meanwhile can `take` the other end of the socket given here; None: no descriptor is left.

    Runs in: the pool. Who has forked no child must close the socket.
    """
    global _pair
    try:
        _pair = socket.socketpair()
    except OSError:  # that no process starts without descriptors tells the cause
        yield None
        return
    ours, theirs = _pair
    try:
        yield ours
    finally:
        _pair = None
        theirs.close()


def take() -> socket.socket | None:
    """The end of this process, once; None where it was not forked for it."""
    global _pair
    if _pair is None:
        return None
    ours, theirs = _pair
    _pair = None
    ours.close()
    return theirs
