"""Where the sockets of a system's channel are: their names, said once, and the endpoint that a handle keeps."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from dataclasses import field

from actorpool._dataclass import dataclass
from actorpool.transport import spinwait

LONGEST_PATH = 103 if sys.platform == "darwin" else 107
"""Bytes the path of a unix socket may have."""
LONGEST_NAME = 40
"""Letters of a pool's name that go into a file name as they are: `LONGEST_PATH` bytes are all there is."""
_KEPT = 24
_WORKER = ".w"
_ACTOR = "@"


def manager(directory: str) -> str:
    """The manager's socket."""
    return f"{directory}/manager"


def pool(directory: str, name: str) -> str:
    """A pool's socket: its registered name, so that a restarted pool is found at once."""
    if len(name) > LONGEST_NAME:
        name = f"{name[:_KEPT]}-{hashlib.blake2b(name.encode(), digest_size=7).hexdigest()}"
    return f"{directory}/{name}.pool"


def ids(directory: str, name: str) -> str:
    """The file with the ids of a pool's workers."""
    return f"{pool(directory, name)}.ids"


def worker(directory: str, pid: int) -> str:
    """A worker's socket: no two processes have one pid."""
    return f"{directory}/{pid}{_WORKER}"


def fits(path: str) -> bool:
    """Whether a unix socket can have that path."""
    return len(os.fsencode(path)) <= LONGEST_PATH


def is_worker(path: str) -> bool:
    """Whether it is a worker's: there are more and more of them as processes come and go."""
    return path.endswith(_WORKER)


def actor(directory: str, token: str) -> str:
    """The socket by which an actor, or a process outside, gets Thespian's messages: no token is used twice."""
    return f"{directory}/{_ACTOR}{token}"


def is_actor(name: str) -> bool:
    """Whether a file of that name is such a socket."""
    return name.startswith(_ACTOR)


def is_served(path: str) -> bool:
    """Whether a process listens at that socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # so many wait for it that there is no room for more
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class Endpoint:
    """The address of a system's channel.

    Args:
        directory: the runtime directory of its node.
        spin: whether callers look for an answer for some microseconds before they block.
    """

    directory: str
    spin: bool = True
    seconds: float = field(init=False, repr=False, compare=False, default=0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", spinwait.spin_seconds(self.spin))

    def __reduce__(self) -> tuple[type[Endpoint], tuple[str, bool]]:
        return (Endpoint, (self.directory, self.spin))  # what the environment says about the spin is each process's own

    @property
    def manager(self) -> str:
        """The manager's socket."""
        return manager(self.directory)

    def pool(self, name: str) -> str:
        """The socket of a pool: its registered name."""
        return pool(self.directory, name)

    def worker(self, pid: int) -> str:
        """The socket of a worker process."""
        return worker(self.directory, pid)
