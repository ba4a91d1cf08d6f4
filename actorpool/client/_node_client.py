"""Where a system is, and the way to its manager: the channel of a node, or the messages of a node.

A node client finds the manager again when it was restarted, and says `SystemDown` once there is nothing to find.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from typing import Any, Protocol

from actorpool import transport
from actorpool._protocol.manager import Hello, Welcome
from actorpool.client import _sticky, client_errors
from actorpool.client._at_fork import renewed
from actorpool.client._blocking import THREADS, drive
from actorpool.client._channel import ManagerAsker
from actorpool.client._message_client import MessageClient
from actorpool.client._messages import MessageTransport
from actorpool.client._shared_calls import SharedMessages
from actorpool.client.pool import Pool
from actorpool.client.shared import SharedPool
from actorpool.errors import SystemDown
from actorpool.messages import WhereIs
from actorpool.node import runtime
from actorpool.node.launch import Node
from actorpool.transport import client
from actorpool.transport.paths import Endpoint

MANAGER_TIMEOUT = 10.0
"""Seconds for an answer of the manager, its own restart included; it never waits for anything itself."""
_PAUSE = 0.02
"""Seconds between two questions where a manager is that is being restarted."""
_END_EVERY = 0.1
"""Seconds between two looks whether a node that others started has ended."""


class NodeClient(Protocol):
    """What a `System` needs to know of where it is."""

    name: str
    directory: str | None

    def ask(self, request: Any, timeout: float = MANAGER_TIMEOUT) -> Any:
        """The manager's answer to a request."""

    def pool(self, name: str) -> Pool:
        """A handle of a pool; it is not asked whether that exists."""

    def shared_pool(self, name: str) -> SharedPool:
        """The same for a shared pool."""

    def manager(self) -> Any:
        """The manager's present address."""

    def actor_system(self) -> Any:
        """Thespian's `ActorSystem` of this process for it."""

    def wait(self) -> int:
        """Block until the system has ended, and return its exit status."""

    def close(self, timeout: float) -> None:
        """Let go of it; the node client that started the system ends it."""


class AttachedClient:
    """A node of this host; how it is asked is said by `ChannelClient` and `MessagesClient`.

    Args:
        name: the node's name.
        node: what started it; None for one that others started.
        spin: whether callers look for an answer before they block.
    """

    def __init__(self, name: str, node: Node | None = None, spin: bool = True) -> None:
        path, self.facts, self._cookie = runtime.find(name)
        self.directory: str | None = path
        self.name = name
        self.endpoint = Endpoint(path, spin)
        self._node = node
        self._closed = False
        self._systems: dict[int, Any] = {}  # by pid: what was attached before a fork is the parent's
        self._lock = renewed(self, "_lock", threading.Lock)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.name, None, self.endpoint.spin))

    def check(self) -> None:
        """Make sure that the node is there.

        Raises:
            SystemDown: it has ended, or this handle was shut down.
        """
        if self._closed:
            raise SystemDown(f"system {self.name!r} was shut down by this process: start a new one")
        if not self.facts.alive():
            if self._node is not None:
                self._node.reap()
            down = client_errors.system_down(self.endpoint)
            raise down or SystemDown(f"node {self.name!r} (pid {self.facts.pid}) was replaced: connect to it anew")

    def actor_system(self) -> Any:
        """Thespian's `ActorSystem`, attached when first asked for in each process."""
        from actorpool.thespian_adapter import base  # not at the top: Thespian is loaded only where it is used

        self.check()
        with self._lock:
            system = self._systems.get(os.getpid())
            if system is None or system._systemBase is None:  # the user may have shut it down
                system = base.attach(self.facts.base, self.facts.admin, self._cookie)
                self._systems[os.getpid()] = system
        return system

    def wait(self) -> int:
        """Block until the node has ended; the status of one that others started is not known, and told as 0."""
        if self._node is not None:
            return self._node.wait()
        while self.facts.alive():
            time.sleep(_END_EVERY)
        return 0

    def close(self, timeout: float) -> None:
        """Let go of the node; the process that started it ends it."""
        self._closed = True
        _sticky.forget(f"{self.directory}/")
        client.forget(f"{self.directory}/")
        with self._lock:
            system = self._systems.pop(os.getpid(), None)
        if system is not None:
            from actorpool.thespian_adapter import base

            base.detach(system)
        if self._node is not None:
            self._node.stop(timeout)


class ChannelClient(AttachedClient):
    """A node whose actors serve the channel."""

    def ask(self, request: Any, timeout: float = MANAGER_TIMEOUT) -> Any:
        """The manager's answer; over a restart of the manager, too."""
        self.check()
        return drive(ManagerAsker(self.endpoint).ask(THREADS, request, timeout))

    def pool(self, name: str) -> Pool:
        """A handle of a pool."""
        return Pool(self.endpoint, name)

    def shared_pool(self, name: str) -> SharedPool:
        """A handle of a shared pool."""
        return SharedPool(self.endpoint, name)

    def manager(self) -> Any:
        """The manager's address, asked for anew: a manager that was restarted has another one."""
        self.actor_system()  # so that a plain ActorSystem() can send to it
        welcome: Welcome = self.ask(Hello())
        return welcome.address


class MessagesClient(AttachedClient):
    """A node whose actors cannot watch descriptors (the UDP base), or a platform without the channel."""

    def __init__(self, name: str, node: Node | None = None, spin: bool = True) -> None:
        super().__init__(name, node, spin)
        self._messages = MessageClient(self)

    def ask(self, request: Any, timeout: float = MANAGER_TIMEOUT) -> Any:
        """The manager's answer; if the manager is restarted meanwhile, its successor is asked."""
        deadline = time.monotonic() + timeout
        while True:
            asked = self.manager()
            try:
                left = deadline - time.monotonic()
                answer = self._messages.ask(asked, request, left, functools.partial(self._moved, asked))
            except _Moved:
                continue
            if answer is None:
                what = type(request).__name__
                raise SystemDown(f"the manager of {self.name!r} has not answered {what} within {timeout} s")
            return answer.unwrap()

    def _moved(self, asked: Any) -> _Moved | None:
        return None if self.manager() == asked else _Moved()

    def pool(self, name: str) -> Pool:
        """A handle of a pool."""
        return Pool(MessageTransport(self, name), name)

    def shared_pool(self, name: str) -> SharedPool:
        """A handle of a shared pool."""
        return SharedPool(SharedMessages(self, name), name)

    def manager(self) -> Any:
        """The manager's present address; the root supervisor, which never moves, knows it."""
        from actorpool.thespian_adapter import base  # not at the top: Thespian is loaded only where it is used

        root = base.address_at(self.facts.root)
        deadline = time.monotonic() + MANAGER_TIMEOUT
        while time.monotonic() < deadline:
            self.check()
            answer = self._messages.ask(root, WhereIs(runtime.MANAGER), 1.0)
            if answer is not None and answer.unwrap() is not None:
                return answer.value
            time.sleep(_PAUSE)
        raise SystemDown(f"the root supervisor of {self.name!r} has named no manager for {MANAGER_TIMEOUT} s")


class _Moved(Exception):
    """The manager is another process now."""


def node_client(name: str, node: Node | None = None, spin: bool = True) -> ChannelClient | MessagesClient:
    """The client of a running node.

    Raises:
        SystemDown, AuthenticationFailed: see `runtime.find`.
    """
    by_channel = transport.available() and runtime.find(name)[1].base == "multiprocTCPBase"
    return (ChannelClient if by_channel else MessagesClient)(name, node, spin)
