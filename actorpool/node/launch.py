"""Starting and stopping nodes from other processes."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection, Pipe
from typing import Any

from actorpool import process
from actorpool._scrubbing import hidden
from actorpool.errors import ActorPoolError, SystemDown
from actorpool.node import runtime
from actorpool.node.order import Failed, Order, Ready, Stop
from actorpool.serialization.pickling import Pickled

START_TIMEOUT = 30.0
"""Seconds for a node to serve; docs/performance.md says how long it takes."""
STOP_MARGIN = 2.0
"""Seconds a node may need beyond the timeout of its orderly end before it is killed."""
_POLL = 0.02
_NEEDED = ("actorpool", "thespian", "cloudpickle", "psutil")
"""What a node imports before it is told the path of its owner."""


class _Process(subprocess.Popen):  # type: ignore[type-arg]
    def __del__(self) -> None:
        """A node ends with its owner's process, not with a handle; so a handle's end is nothing to warn of."""


class Node:
    """A node that this process started. It ends when this process ends, whether or not this object is kept.

    Attributes:
        name, directory: the node's name and runtime directory.
        pid: its process.
    """

    def __init__(self, process: _Process, pipe: Connection, ready: Ready) -> None:
        self.name, self.directory = ready.name, ready.directory
        self.pid = process.pid
        self._owner = os.getpid()
        self._process = process
        self._pipe = pipe
        _started[self.pid] = self

    def stop(self, timeout: float) -> None:
        """End the node in an orderly way within `timeout` seconds, else by SIGKILL.

        In a forked copy of the process that started it, this does nothing: the node is the parent's.
        """
        if os.getpid() != self._owner or _started.pop(self.pid, None) is None:
            return
        with contextlib.suppress(OSError):  # it has ended already
            self._pipe.send(Stop(timeout))
        try:
            self._process.wait(timeout + STOP_MARGIN)
        except subprocess.TimeoutExpired:
            self._process.kill()  # and the kernel ends everything below it
            self._process.wait()
            runtime.sweep()
        self._pipe.close()

    def wait(self) -> int:
        """Block until the node has ended; its exit status, or minus the number of the signal that ended it."""
        return self._process.wait()

    def reap(self) -> None:
        """Leave no zombie of a node that ended by itself."""
        if os.getpid() == self._owner:
            self._process.poll()


_started: dict[int, Node] = {}


def _forked() -> None:
    """The child of an owner is not the owner: without its copies, the pipes' ends say when the owner is gone."""
    for node in _started.values():
        node._pipe.close()
    _started.clear()


os.register_at_fork(after_in_child=_forked)


def launch(
    name: str | None, base: str, *, daemon: bool = False, options: Mapping[str, Any] | None = None, **settings: Any
) -> Node:
    """Start a node in a fresh interpreter and wait until it serves.

    Args:
        name: its name; None: one is made up.
        base: "multiprocTCPBase" or "multiprocUDPBase".
        daemon: it does not end with this process (the command line's `up --daemon`).
        options: of the manager.
        **settings: further fields of `Order`.

    Raises:
        InvalidConfig: the name is bad or taken.
        SystemDown: it did not come up; the text says why.
    """
    _open_standard_descriptors()
    if daemon:
        settings.setdefault("output", "log")
    ours, theirs = Pipe()
    environment, restore = _environment()
    with theirs:
        child = _Process(
            [sys.executable, "-m", "actorpool.node", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if daemon else None,
            stderr=subprocess.DEVNULL if daemon else None,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            cwd="/",  # a file in the owner's directory must not stand in for a module of the interpreter
            env=environment,
        )
    owner = None if daemon else process.Caller.here()
    here = _directory()
    path = tuple(os.path.join(here or "/", entry) for entry in sys.path if here or os.path.isabs(entry))
    try:
        packed = Pickled.of(dict(options or {}))
        ours.send(Order(name, base, owner, path, here, restore, options=packed, secrets=hidden(), **settings))
        answer = ours.recv() if ours.poll(START_TIMEOUT) else None
    except (EOFError, OSError):
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_MARGIN)
        text = f"the node (pid {child.pid}) ended with status {child.returncode} before it served"
        answer = Failed(SystemDown(f"{text}; its standard error says why"))
    except BaseException:
        _abandon(child, ours)
        raise
    if isinstance(answer, Ready):
        return Node(child, ours, answer)
    _abandon(child, ours)
    raise answer.error if answer else SystemDown(f"the node did not serve within {START_TIMEOUT} s: it was killed")


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


def _directory() -> str | None:
    """Where this process is; None if that was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _abandon(process: _Process, pipe: Connection) -> None:
    pipe.close()
    process.kill()
    process.wait()


def stop(name: str, timeout: float = 10.0) -> None:
    """End any node of this user, started by any process (`actorpool down`).

    Args:
        name: the node's name.
        timeout: seconds for an orderly end; then it is killed.

    Raises:
        SystemDown: no node of that name runs.
    """
    _, facts, _ = runtime.find(name)
    process.send_signal(facts.pid, signal.SIGTERM)
    if not _gone(facts, timeout):
        process.kill(facts.pid)
        if not _gone(facts, STOP_MARGIN):
            raise ActorPoolError(f"node {name!r} (pid {facts.pid}) does not end, not even by SIGKILL")


def _gone(facts: runtime.NodeFacts, timeout: float) -> bool:
    """Wait for a node's end."""
    deadline = time.monotonic() + timeout
    while facts.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
