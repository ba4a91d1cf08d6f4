"""What the manager's parts need of it. Each is given the manager, and none of them knows its class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from actorpool.core.supervisor.core import SupervisorCore
from actorpool.messages import Request
from actorpool.supervisors.registry import Registry


class Governor(Protocol):
    """The manager, as its parts see it.

    Attributes:
        machine: decides about its children.
        registry: knows its pools by name.
        parent: the supervisor's address.
    """

    machine: SupervisorCore
    registry: Registry
    parent: Any

    @property
    def is_process(self) -> bool:
        """Whether it has a process of its own."""

    @property
    def subscribers(self) -> Iterable[Any]:
        """The subscribers, which get events as messages."""

    def is_parent_of(self, address: Any) -> bool:
        """Whether that is the address of a child's process."""

    def serving(self, name: str | None) -> Any:
        """The address of the pool of that name; None while it does not run."""

    def ask(self, address: Any, request: Request, then: Callable[[Any], None]) -> None:
        """Ask another actor; `then` gets its answer (an error as a value), or is never called."""

    def set_timer(self, seconds: float, payload: Any = None) -> None:
        """Have `payload` called after `seconds`."""

    def waits_for(self, address: Any) -> bool:
        """Whether messages wait here until that receiver has taken what was sent before."""

    def remember(self, **args: Any) -> None:
        """Have a successor begin with these."""

    def hear_of_hosts(self) -> None:
        """Have Thespian tell which hosts its convention has lost."""

    def listeners_changed(self) -> None:
        """Tell all pools the present listeners."""
