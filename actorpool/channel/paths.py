"""The names of the channel's sockets in a system's directory; said once, for those who bind and those who connect."""

from __future__ import annotations

import hashlib
import os
import sys

LONGEST_PATH = 103 if sys.platform == "darwin" else 107
"""Bytes the path of a unix socket may have."""
LONGEST_NAME = 40
"""Letters of a pool's name that go into a file name as they are: `LONGEST_PATH` bytes are all there is."""
_KEPT = 24
_WORKER = ".w"


def manager(directory: str) -> str:
    """The manager's socket."""
    return f"{directory}/manager"


def pool(directory: str, name: str) -> str:
    """A pool's socket: its registered name, so that a restarted pool is found at once."""
    if len(name) > LONGEST_NAME:
        name = f"{name[:_KEPT]}-{hashlib.blake2b(name.encode(), digest_size=7).hexdigest()}"
    return f"{directory}/{name}.pool"


def worker(directory: str, pid: int) -> str:
    """A worker's socket: no two processes have one pid."""
    return f"{directory}/{pid}{_WORKER}"


def fits(path: str) -> bool:
    """Whether a unix socket can have that path."""
    return len(os.fsencode(path)) <= LONGEST_PATH


def is_worker(path: str) -> bool:
    """Whether it is a worker's: there are more and more of them as processes come and go."""
    return path.endswith(_WORKER)
