"""The seam: what an engine between hosts has to give. Everything else in this package knows only this.

An engine says which hosts live, keeps one agent on each host that is to have one and one coordinator, carries calls to
them, and tells when a process that gave a token has ended. `ray_engine` is one; tests have another, in one process.
"""

from __future__ import annotations

from typing import Any, Protocol

from actorpool.core.cluster.members import Member


class Lost(Exception):
    """A far call was not answered, and never will be.

    Args:
        text: what the engine says.
        sent: whether the call may have run; False: it was certainly not begun.
    """

    def __init__(self, text: str, sent: bool = True) -> None:
        super().__init__(text)
        self.sent = sent


class Pending(Protocol):
    """A far call under way."""

    def result(self, timeout: float | None = None) -> Any:
        """Wait in this thread for the answer; raises `Lost`, or `TimeoutError` after `timeout` seconds."""

    async def wait(self) -> Any:
        """The answer, on the running event loop; raises `Lost`. Being cancelled does not cancel the call."""

    def cancel(self) -> None:
        """The answer is not wanted any more: cancel the task that the call runs as, without waiting."""


class Handle(Protocol):
    """An agent or a coordinator, wherever it runs; it stays the same handle when the engine restarts its process."""

    def ask(self, operation: str, *args: Any, token: Any = None) -> Pending:
        """Call a coroutine method of it.

        Args:
            args: values that pickle; the agent gets copies.
            token: of `hold`, which arrives as the last argument. An engine has to see it travel, so it is by itself.
        """

    def hold(self) -> Any:
        """A token. Given to that agent, it ends with this process; kept here, it ends with the agent's process."""


class Engine(Protocol):
    """One for each process that takes part.

    Attributes:
        here: the id of the host of this process.
    """

    here: str

    def members(self) -> list[Member]:
        """The hosts that live. May take a moment, so event loops ask in a thread."""

    def agent(self, host: str) -> Handle:
        """The agent of a host. Raises `Lost` (never sent) if there is none."""

    def start_agent(self, host: str) -> Handle:
        """The agent of a host, started if there is none."""

    def agents(self) -> list[Handle]:
        """All agents that there are."""

    def coordinator(self, start: bool) -> Handle:
        """The coordinator. Raises `Lost` (never sent) if there is none and it is not to be started."""

    def end(self, handle: Handle) -> None:
        """End an agent or a coordinator for good: the engine does not restart it."""

    async def ended(self, token: Any) -> None:
        """Return once the other end of a token (see `Handle.hold`) is gone."""

    def close(self) -> None:
        """This process takes part no more."""
