"""Questions that one actor asks others, and what is to be done with each answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from actorpool.messages import Err, Ok, Request
from actorpool.thespian_adapter.shell import Shell

LIFETIME = 60.0
"""Seconds after which the answer to a question is waited for no more."""


class Questions:
    """Those of one actor that are open, oldest first.

    Args:
        actor: the asker.
    """

    def __init__(self, actor: Shell) -> None:
        self._actor = actor
        self._open: dict[Any, tuple[Any, Callable[[Any], None], float]] = {}

    def ask(self, address: Any, request: Request, then: Callable[[Any], None]) -> None:
        """Send a request; `then` gets the answer of that very actor (an error as a value), or is never called."""
        now = time.monotonic()
        while self._open and next(iter(self._open.values()))[2] <= now:
            del self._open[next(iter(self._open))]
        self._open[request.ref] = (address, then, now + LIFETIME)
        self._actor.send(address, request)

    def answered(self, answer: Ok | Err, ref: Any, sender: Any) -> None:
        """Take in an answer. One without a waiter, or from another actor than the asked one, is ignored."""
        address, then, _ = self._open.get(ref, (None, None, 0.0))
        if then is not None and address == sender:
            del self._open[ref]
            then(answer.value if isinstance(answer, Ok) else answer.error)
