"""The manager's way to its pools: each request goes to the pool that it names, or waits until that is back."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from actorpool._protocol import manager as governing
from actorpool.errors import ActorPoolError, PoolDown
from actorpool.pools.holders import Asker, MessageAsker
from actorpool.supervisors.forwarder import Forwarder
from actorpool.supervisors.kept import Kept

if TYPE_CHECKING:
    from actorpool.supervisors.governor import Governor

KEEP = 5.0
"""Seconds for which a request without a timeout of its own waits for its pool to be back."""


class Routing:
    """Passes requests on.

    Args:
        manager: its registry, children, questions and timers are used.
        forwarder: takes messages.
    """

    def __init__(self, manager: Governor, forwarder: Forwarder) -> None:
        self._manager = manager
        self._forwarder = forwarder
        self._kept = Kept()
        self._timer = math.inf  # when it runs out

    def route(self, name: str, request: Any, asker: Asker) -> None:
        """Pass a request on to the pool of that name; while it is being restarted, keep it within its timeout."""
        manager = self._manager
        try:
            child = manager.registry.serving(name, manager.machine.children)
        except ActorPoolError as error:
            if getattr(error, "temporary", False):
                timeout = getattr(request, "timeout", None)
                self._kept.keep(name, (request, asker), time.monotonic() + (KEEP if timeout is None else timeout))
                self._arm()
            else:
                asker.answer(error)
            return
        if isinstance(asker, MessageAsker):
            self._forwarder.take(name, child.address, governing.Routed(request, asker.address))
        else:
            manager.ask(child.address, request, asker.answer)

    def pass_on(self, name: str, message: Any, sender: Any) -> None:
        """A message without an answer: for a pool that is not there it means nothing any more."""
        address = self._manager.serving(name)
        if address is not None:
            self._forwarder.take(name, address, governing.Routed(message, sender))

    def deliver(self) -> None:
        """Pools may have come or gone: what was kept for them is due, all at once."""
        for name in self._kept.pools():
            if not self._manager.registry.restarting(name, self._manager.machine.children):
                for request, asker in self._kept.take(name):
                    self.route(name, request, asker)

    def _arm(self) -> None:
        """Set a timer for the earliest deadline, unless there is one: Thespian's cannot be cancelled."""
        deadline = self._kept.deadline()
        if deadline is not None and deadline < self._timer:
            self._timer = deadline
            self._manager.set_timer(deadline - time.monotonic(), self._expire)

    def _expire(self) -> None:
        self._timer = math.inf
        for name, (_, asker) in self._kept.expired(time.monotonic()):
            asker.answer(PoolDown(f"pool {name!r} is being restarted", pool=name, temporary=True))
        self._arm()
