"""A system inside this process, on Thespian's `simpleSystemBase`: for unit tests, no processes, no real timeouts."""

from __future__ import annotations

from typing import Any, NoReturn

from actorpool.client._message_client import MessageClient
from actorpool.client._messages import MessageTransport
from actorpool.client._node_client import MANAGER_TIMEOUT
from actorpool.client._shared_calls import SharedMessages
from actorpool.client.pool import Pool
from actorpool.client.shared import SharedPool
from actorpool.errors import SystemDown
from actorpool.node.tree import start_tree
from actorpool.thespian_adapter import base


class InProcessClient:
    """Everything here: the actors run in the thread that asks.

    Args:
        name: for show.
        options: of the manager.
    """

    directory: str | None = None

    def __init__(self, name: str | None, options: dict[str, Any]) -> None:
        self.name = name or "inside"
        self._messages = MessageClient(self)
        self._system = base.inside_system()
        self._root, welcome = start_tree(self._system, None, options)
        self._manager = welcome.address

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"system {self.name!r} is inside one process: its handles are of no use in another")

    def ask(self, request: Any, timeout: float = MANAGER_TIMEOUT) -> Any:
        """The manager's answer; its work is done by this very thread, however long that takes."""
        answer = self._messages.ask(self.manager(), request, timeout)
        if answer is None:
            raise SystemDown(f"the manager of {self.name!r} has not answered {type(request).__name__}")
        return answer.unwrap()

    def pool(self, name: str) -> Pool:
        """A handle of a pool."""
        return Pool(MessageTransport(self, name), name)

    def shared_pool(self, name: str) -> SharedPool:
        """A handle of a shared pool."""
        return SharedPool(SharedMessages(self, name), name)

    def manager(self) -> Any:
        """The manager's address."""
        self.actor_system()
        return self._manager

    def actor_system(self) -> Any:
        """Thespian's `ActorSystem`.

        Raises:
            SystemDown: it was shut down.
        """
        if self._system is None:
            raise SystemDown(f"system {self.name!r} was shut down: start a new one")
        return self._system

    def wait(self) -> NoReturn:
        """There is no process to wait for."""
        raise SystemDown(f"system {self.name!r} runs in this process: it ends with its shutdown(), not by itself")

    def close(self, _timeout: float) -> None:
        """End all actors."""
        system, self._system = self._system, None
        if system is not None:
            base.end_inside_system(system, self._root)
