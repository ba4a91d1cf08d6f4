"""What a manager's successor begins with, should its process be killed: told to the supervisor above in good time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorpool.core.supervisor.children import State

if TYPE_CHECKING:
    from actorpool.supervisors.governor import Governor


SOON = 0.05
"""Seconds until the supervisor above may have taken what it was told."""


class Heritage:
    """The children of a manager and its subscribers, as the supervisor above knows them.

    A child that was terminated, or has ended for good, remains so; a new one counts once it runs.

    Args:
        manager: the owner; it calls `tell` whenever something may have changed, before it answers any request.
    """

    def __init__(self, manager: Governor) -> None:
        self._manager = manager
        self._counted: set[Any] = set()
        self._told: list[tuple[Any, Any, bool]] = []
        self._whole = False
        self._late = False

    def adopt(self, id: Any) -> None:
        """A child of a predecessor counts from the beginning."""
        self._counted.add(id)

    def begin(self) -> None:
        """All children of a predecessor are there: tell from now on."""
        self._whole = True
        self.tell()

    def listeners_changed(self) -> None:
        """Tell of the subscribers; where many come at once, not of each by itself, for each time all are told."""
        if self._manager.parent is None or not self._manager.waits_for(self._manager.parent):
            self.tell(always=True)
        elif not self._late:
            self._late = True
            self._manager.set_timer(SOON, self._tell_late)

    def _tell_late(self) -> None:
        self._late = False
        self.listeners_changed()

    def tell(self, always: bool = False) -> None:
        """Tell what has changed, or all of it."""
        if not self._whole:
            return
        children, pools = self._manager.machine.children, self._manager.registry
        self._counted = {id for id, child in children.items() if id in self._counted or child.state is State.RUNNING}
        kept = [child for id, child in children.items() if id in self._counted and id not in pools.stopping]
        now = [(child.spec, child.memory, child.state is not State.STOPPED) for child in kept]
        if not always and _same(now, self._told):
            return
        self._told = now
        self._manager.remember(
            pools={child.key: child.spec.actor for child in kept if child.key in pools},  # type: ignore[attr-defined]
            memories={child.key: child.memory for child in kept if child.key in pools and child.memory is not None},
            others=tuple(child.spec for child in kept if child.key not in pools),
            stopped=tuple(child.key for child in kept if child.state is State.STOPPED),
            subscribers=tuple(self._manager.subscribers),
        )


def _same(one: list[Any], other: list[Any]) -> bool:
    """Whether two lists of tuples hold the same objects."""
    return len(one) == len(other) and all(
        mine is theirs for pair in zip(one, other, strict=True) for mine, theirs in zip(*pair, strict=True)
    )
