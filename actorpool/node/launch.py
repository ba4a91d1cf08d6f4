"""Starting and stopping nodes from other processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from actorpool import process
from actorpool._scrubbing import hidden
from actorpool.errors import ActorPoolError, SystemDown
from actorpool.node import runtime
from actorpool.node.order import Failed, Order, Ready, Stop
from actorpool.node.spawn import NodeProcess, Spawned, spawn
from actorpool.serialization.pickling import Pickled

START_TIMEOUT = 30.0
"""Seconds for a node to serve; docs/performance.md says how long it takes."""
STOP_MARGIN = 2.0
"""Seconds a node may need beyond the timeout of its orderly end before it is killed."""
_POLL = 0.02


class Node:
    """A node that this process started. It ends when this process ends, whether or not this object is kept.

    Attributes:
        name, directory: the node's name and runtime directory.
        pid: its process.
    """

    def __init__(self, process: NodeProcess, pipe: Connection, ready: Ready) -> None:
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
    """Start a node in a fresh interpreter and wait until it serves; arguments and errors as of `settle`."""
    with spawn(daemon=daemon) as spawned:
        return settle(spawned, name, base, daemon=daemon, options=options, **settings)


def settle(
    spawned: Spawned,
    name: str | None,
    base: str,
    *,
    daemon: bool = False,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Node:
    """Tell a fresh interpreter which node it is, and wait until it serves.

    Args:
        spawned: the interpreter; the caller ends it if this raises.
        name: the node's name; None: one is made up.
        base: "multiprocTCPBase" or "multiprocUDPBase".
        daemon: it does not end with this process (the command line's `up --daemon`).
        options: of the manager.
        **settings: further fields of `Order`.

    Raises:
        InvalidConfig: the name is bad or taken.
        SystemDown: it did not come up; the text says why.
    """
    if daemon:
        settings.setdefault("output", "log")
    owner = None if daemon else process.Caller.here()
    here = _directory()
    path = tuple(os.path.join(here or "/", entry) for entry in sys.path if here or os.path.isabs(entry))
    child = spawned.process
    pipe = Connection(spawned.socket.detach())
    try:
        packed = Pickled.of(dict(options or {}))
        order = Order(name, base, owner, path, here, spawned.environment, options=packed, secrets=hidden(), **settings)
        pipe.send(order)
        answer = pipe.recv() if pipe.poll(START_TIMEOUT) else None
    except (EOFError, OSError):
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_MARGIN)
        text = f"the node (pid {child.pid}) ended with status {child.returncode} before it served"
        answer = Failed(SystemDown(f"{text}; its standard error says why"))
    except BaseException:
        pipe.close()
        raise
    if isinstance(answer, Ready):
        return Node(child, pipe, answer)
    pipe.close()
    raise answer.error if answer else SystemDown(f"the node did not serve within {START_TIMEOUT} s: it was killed")


def _directory() -> str | None:
    """Where this process is; None if that was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


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
