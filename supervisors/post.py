"""Events on their way from one actor to its subscribers: what is frequent is gathered, and sent together.

A Thespian message costs as much as several calls, and a busy pool has three events for each call. So these go to a
subscriber every `EVERY` seconds, in one message, which the transport of a node hands on as one `Event` after the other.
(Where there is no such transport, each event is a message, as late.) Rare events go soon, with all before them. Not
at once: they come in groups (a worker that is replaced has four), and what they tell of should not wait for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from actorpool._protocol.requests import Events
from actorpool.messages import Event
from actorpool.telemetry import FREQUENT, Hub
from actorpool.thespian_adapter.shell import Shell, log

EVERY = 0.05
"""Seconds between two messages to a subscriber, when there is much to tell."""
SOON = 0.01
"""Seconds until a rare event goes."""
TOGETHER = 500
"""Events in one message at most."""
KEPT = 10_000
"""Events kept for a subscriber that does not read; then they are dropped."""


class Post:
    """What one actor has to tell its subscribers.

    Args:
        actor: the sender; its timers call `deliver`.

    Attributes:
        dropped: events that a subscriber did not get, because it was too far behind.
    """

    def __init__(self, actor: Shell) -> None:
        self._actor = actor
        self.dropped = 0
        self._boxes: dict[int, tuple[Any, list[Event]]] = {}  # by identity: an actor's address has no hash
        self._wait: float | None = None  # what is gathered is sent after so long
        self._timer = 0  # the number of the timer that is to do so; those before it do nothing

    def add(self, mail: Iterable[tuple[Any, Event]]) -> None:
        """Take the events, with receivers, that a `Hub` wants to be sent."""
        rare = False
        for address, event in mail:
            box = self._boxes.get(id(address))
            if box is None:
                box = self._boxes[id(address)] = (address, [])
            if len(box[1]) < KEPT:
                box[1].append(event)
                if len(box[1]) == KEPT:
                    log.warning("a subscriber is %d events behind: dropping what follows", KEPT)
            else:
                self.dropped += 1
            rare = event.name not in FREQUENT
        if rare and not self._actor.is_process:  # timers of an actor without a process run when Thespian is called
            self.deliver()
        elif rare and self._wait != SOON:
            self._arm(SOON)
        elif self._boxes and self._wait is None:
            self._arm(EVERY)

    def _arm(self, seconds: float) -> None:
        self._wait = seconds
        self._timer += 1
        number = self._timer
        self._actor.set_timer(seconds, lambda: self.deliver() if number == self._timer else None)

    def deliver(self) -> None:
        """Send what was gathered, now."""
        self._wait = None
        self._timer += 1
        self._send()
        self.add(())

    def _send(self) -> None:
        """Send to the receivers that have taken what was sent before; the others get more later."""
        boxes, self._boxes = self._boxes, {}
        for key, (address, events) in boxes.items():
            if self._actor.waits_for(address):
                self._boxes[key] = (address, events)
            elif self._actor.sends_together and len(events) > 1:
                for start in range(0, len(events), TOGETHER):
                    self._actor.send(address, Events(tuple(events[start : start + TOGETHER])))
            else:
                for event in events:
                    self._actor.send(address, event)

    def with_dropped(self, hub: Hub) -> dict[str, int]:
        """What the sinks of the actor's hub have dropped, and with it what its subscribers, if any, did not get."""
        subscribers = {"subscribers": self.dropped} if hub.subscriptions or self.dropped else {}
        return hub.dropped() | subscribers

    def forget(self, wanted: Iterable[Any]) -> None:
        """Drop what was gathered for all but these."""
        known = {id(address) for address in wanted}
        self._boxes = {key: box for key, box in self._boxes.items() if key in known}
