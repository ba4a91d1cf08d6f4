"""The process of a node, while it is still a bare interpreter. It loads what it needs while its owner does the same.

So this module imports little: all that a start imports before it delays the node.
"""

from __future__ import annotations

import importlib.util
import os
import site
import socket
import subprocess
import sys

_NEEDED = ("actorpool", "thespian", "cloudpickle", "psutil")
"""What a node imports before it is told the path of its owner."""


class NodeProcess(subprocess.Popen):  # type: ignore[type-arg]
    def __del__(self) -> None:
        """A node ends with its owner's process, not with a handle; so a handle's end is nothing to warn of."""


class Spawned:
    """A node's process that waits for its `Order` from `socket`, and ends if that is closed.

    A context manager: the process is ended if the block raises.
    """

    def __init__(self, process: NodeProcess, sock: socket.socket, environment: dict[str, str | None]) -> None:
        self.process, self.socket = process, sock
        self.environment = environment
        """What the node sets back in its own once it knows where to find modules."""

    def __enter__(self) -> Spawned:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.socket.close()
            self.process.kill()
            self.process.wait()


def spawn(*, daemon: bool) -> Spawned:
    """Start a fresh interpreter that will be a node.

    Args:
        daemon: nothing that it prints comes to the terminal of this process.
    """
    _open_standard_descriptors()
    environment, restore = _environment()
    ours, theirs = socket.socketpair()
    with theirs:
        process = NodeProcess(
            [sys.executable, "-m", "actorpool.node", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if daemon else None,
            stderr=subprocess.DEVNULL if daemon else None,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            cwd="/",  # a file in the owner's directory must not stand in for a module of the interpreter
            env=environment,
        )
    return Spawned(process, ours, restore)


def _open_standard_descriptors() -> None:
    """Open /dev/null at those of 0 to 2 that are closed, as daemons leave them.

    Otherwise the node and each worker would print to a pipe of ours, or to a socket of other code.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _environment() -> tuple[dict[str, str], dict[str, str | None]]:
    """The environment that finds what this process found, and what to set back once it is found."""
    known = {*site.getsitepackages(), site.getusersitepackages()}
    homes = [home for home in dict.fromkeys(map(_home, _NEEDED)) if home and home not in known]
    added = {}
    if homes:
        order = {_absolute(entry): place for place, entry in enumerate(sys.path)}
        homes.sort(key=lambda home: order.get(home, -1))
        added["PYTHONPATH"] = os.pathsep.join(filter(None, [*homes, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **added}, {variable: os.environ.get(variable) for variable in added}


def _home(package: str) -> str | None:
    """The directory of `sys.path` (or its replacement) in which a package was found."""
    module = sys.modules.get(package)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return os.path.dirname(_absolute(next(iter(spec.submodule_search_locations))))


def _absolute(path: str) -> str:
    """Where a path leads from here; the path itself if this directory was removed: nothing is found below that."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        return path
