"""The channel: direct calls between a caller and the actors of its own host, over unix sockets.

`frames` says what a frame is, `server` serves frames inside an actor, `client` (blocking) and `aio` (asyncio) are the
caller's side, `spinwait` is the one policy for waiting without sleeping.
"""

from __future__ import annotations

import select
import socket


def available() -> bool:
    """Whether this system has what the channel needs: epoll and peer credentials. Messages are used elsewhere."""
    return hasattr(select, "epoll") and hasattr(socket, "SO_PEERCRED")


__all__ = ["available"]
