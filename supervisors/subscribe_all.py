"""Subscribing: all pools are told, and the subscriber hears when all of them know, or after a moment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from actorpool._protocol import requests

if TYPE_CHECKING:
    from actorpool.pools.holders import Asker
    from actorpool.supervisors.governor import Governor

PATIENCE = 1.0
"""Seconds for every pool to answer; one that has died meanwhile is told when it is started again."""


class SubscribeAll:
    """A new list of subscriptions on its way to all pools.

    Args:
        manager: tells them; its questions and timers are used.
        asker: is answered, by None: from then on it gets every event. None: there is no asker.
    """

    def __init__(self, manager: Governor, asker: Asker | None = None) -> None:
        self._manager = manager
        self._asker = asker
        self._open = 1

    def begin(self, subscriptions: tuple[tuple[str, Any], ...], pools: Iterable[Any]) -> None:
        """Tell the pools at these addresses the receivers of events; these and no others get them."""
        for pool in pools:
            self._open += 1
            self._manager.ask(pool, requests.Listen(subscriptions), self._told)
        if self._asker is not None:
            self._manager.set_timer(PATIENCE, self.finish)
        self._told()

    def _told(self, _answer: Any = None) -> None:
        self._open -= 1
        if self._open == 0:
            self.finish()

    def finish(self) -> None:
        """Answer; once."""
        asker, self._asker = self._asker, None
        if asker is not None:
            asker.answer(None)
