"""The manager's part that keeps the history of its node: what its pools and all supervisors tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorpool._arriving import problems_of
from actorpool._protocol.manager import GetEvents
from actorpool._protocol.requests import Events
from actorpool.messages import Event
from actorpool.telemetry.history import History, inherited

if TYPE_CHECKING:
    from actorpool.pools.holders import Asker
    from actorpool.supervisors.governor import Governor


class HistoryKeeper:
    """Keeps events in memory that a predecessor may have begun.

    Args:
        manager: whose pools are heard.
    """

    def __init__(self, manager: Governor) -> None:
        self._manager = manager
        self._history = History(inherited() if manager.is_process else None)

    def add(self, event: Event) -> Event:
        """Keep an event of the manager's own, and hand it on."""
        self._history.add(event)
        return event

    def hear(self, message: Event | Events, sender: Any) -> bool:
        """Keep what a pool tells; no other sender's word counts. Whether `sender` is one that may tell."""
        if not self._manager.is_parent_of(sender):
            return False
        if not problems_of(message):
            for event in message.events if isinstance(message, Events) else (message,):
                self._history.add(event)
        return True

    def answer(self, request: GetEvents, asker: Asker) -> None:
        """Tell what is kept."""
        asker.answer(self._history.find(request.pattern, request.after, request.limit))
