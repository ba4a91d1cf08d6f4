"""Where a system is, and the ways to it: the channel of a node, the messages of a node, or this very process.

A site finds the manager again when it was restarted, and says `SystemDown` once there is nothing to find.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Protocol

from actorpool import channel
from actorpool.channel import line
from actorpool.client import faults
from actorpool.client.channel_link import ManagerLink
from actorpool.client.endpoint import Endpoint
from actorpool.client.pool import Pool
from actorpool.errors import SystemDown
from actorpool.node import runtime
from actorpool.node.launch import Node
from actorpool.protocol import Hello, Welcome

MANAGER_TIMEOUT = 10.0
"""Seconds for an answer of the manager, its own restart included; it never waits for anything itself."""


class Site(Protocol):
    """What a `System` needs to know of where it is."""

    name: str
    directory: str | None

    def ask(self, request: Any, timeout: float = MANAGER_TIMEOUT) -> Any:
        """The manager's answer to a request."""

    def pool(self, name: str) -> Pool:
        """A handle of a pool."""

    def manager(self) -> Any:
        """The manager's present address."""

    def actor_system(self) -> Any:
        """Thespian's `ActorSystem` of this process for it."""

    def close(self, timeout: float) -> None:
        """Let go of it; the site that started the system ends it."""


class NodeSite:
    """A node of this host.

    Args:
        name: the node's name.
        node: what started it; None for one that others started.
        spin: whether callers look for an answer before they block.
    """

    def __init__(self, name: str, node: Node | None, spin: bool) -> None:
        self.directory: str | None
        self.directory, self.facts, self._cookie = runtime.find(name)
        self.name = name
        self.endpoint = Endpoint(self.directory, spin)
        self._node = node
        self._closed = False
        self._systems: dict[int, Any] = {}  # by pid: what was attached before a fork is the parent's
        self._lock = threading.Lock()

    @property
    def by_channel(self) -> bool:
        """Whether the node's actors serve the channel: its base can watch descriptors."""
        return self.facts.base == "multiprocTCPBase" and channel.available()

    def ask(self, request: Any, timeout: float = MANAGER_TIMEOUT) -> Any:
        """The manager's answer; over a restart of the manager, too.

        Raises:
            SystemDown: the node has ended, or this handle was shut down.
        """
        self._check()
        if self.by_channel:
            return ManagerLink(self.endpoint).ask(request, timeout)
        return self._message_link().ask(request, timeout)

    def _check(self) -> None:
        if self._closed:
            raise SystemDown(f"system {self.name!r} was shut down by this process: start a new one")
        if not self.facts.alive():
            if self._node is not None:
                self._node.reap()
            down = faults.system_down(self.endpoint)
            raise down or SystemDown(f"node {self.name!r} (pid {self.facts.pid}) was replaced: connect to it anew")

    def pool(self, name: str) -> Pool:
        """A handle of a pool; it is not asked whether that exists."""
        if self.by_channel:
            return Pool(self.endpoint, name)
        return Pool(self._message_link(name), name)

    def manager(self) -> Any:
        """The manager's address, asked for anew: a manager that was restarted has another one."""
        self.actor_system()  # so that a plain ActorSystem() can send to it
        welcome: Welcome = self.ask(Hello())
        return welcome.address

    def actor_system(self) -> Any:
        """Thespian's `ActorSystem`, attached when first asked for in each process."""
        self._check()
        with self._lock:
            system = self._systems.get(os.getpid())
            if system is None or system._systemBase is None:  # the user may have shut it down
                from actorpool.node import base  # not at the top: Thespian is loaded only where it is used

                system = base.attach(self.facts.base, self.facts.admin_port, self._cookie)
                self._systems[os.getpid()] = system
        return system

    def close(self, timeout: float) -> None:
        """Let go of the node; the process that started it ends it."""
        self._closed = True
        line.forget(f"{self.directory}/")
        with self._lock:
            system = self._systems.pop(os.getpid(), None)
        if system is not None:
            from actorpool.node import base

            base.detach(system)
        if self._node is not None:
            self._node.stop(timeout)
