"""How those with no supervisor above them tell events: to the manager of a node, by its channel."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from actorpool._protocol import manager
from actorpool.serialization import pickling
from actorpool.transport import frames, paths

NODE = "ACTORPOOL_NODE"
"""The environment variable in which every process of a node finds the node's directory."""


def tell_manager(event: manager.Happened, directory: str | None = None) -> None:
    """Send it, if the node's manager has room for it now. Never waits.

    Args:
        directory: of the node; None: of that which this process belongs to, if there is one.
    """
    directory = directory or os.environ.get(NODE)
    if directory is None:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX) as line:
        line.setblocking(False)
        line.connect(paths.manager(directory))
        line.send(frames.frame(frames.ASK, 0, pickling.dumps(event)))
