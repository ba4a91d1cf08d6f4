"""The channel: direct calls between a caller and the actors of its own host, over unix sockets.

`wire` says what a frame is, `lane` serves frames inside an actor, `line` (blocking) and `aioline` (asyncio) are the
caller's side, `spin` is the one policy for waiting without sleeping.
"""

from __future__ import annotations

import select
import socket


def available() -> bool:
    """Whether this system has what the channel needs: epoll and peer credentials. Messages are used elsewhere."""
    return hasattr(select, "epoll") and hasattr(socket, "SO_PEERCRED")


__all__ = ["available"]
