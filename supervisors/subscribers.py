"""The subscribers, which get events as messages: kept while their process lives, and told to every pool."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Any

from actorpool._dataclass import dataclass
from actorpool.pools.holders import Holders
from actorpool.process import Caller

if TYPE_CHECKING:
    from actorpool.supervisors.governor import Governor
    from actorpool.transport.server import ChannelServer

LOOK = 0.5
"""Seconds between two looks at processes that the kernel tells nothing about."""


@dataclass(frozen=True)
class Subscriber:
    """One subscription; it ends when its process does."""

    pattern: str
    address: Any = field(hash=False)
    caller: Caller


class Subscribers:
    """All subscriptions of a system.

    Args:
        manager: told by `listeners_changed` when a subscriber is gone; its timers are used.
        server: watches for deaths of processes; None: they are looked at.
    """

    def __init__(self, manager: Governor, server: ChannelServer | None) -> None:
        self._manager = manager
        self._holders: Any = Holders(server, self._gone, manager.hear_of_hosts)
        self._all: list[Subscriber] = []
        self._looking = False

    def add(self, subscribers: Iterable[Subscriber]) -> None:
        """Remember them; not those with a process that is gone, nor the same one twice."""
        for one in subscribers:
            if one not in self._all and self._holders.add(one):
                self._all.append(one)
        self._look_later()

    def __iter__(self) -> Any:
        return iter(self._all)

    def pairs(self) -> tuple[tuple[str, Any], ...]:
        """(pattern, address) of each, as hubs want them."""
        return tuple((one.pattern, one.address) for one in self._all)

    def forget(self, address: Any) -> None:
        """Forget the subscriptions of an address that is not read any more."""
        gone = [one for one in self._all if one.address == address]
        for one in gone:
            self._holders.remove(one)
        self._drop(gone)

    def _gone(self, subscriber: Any) -> None:
        self._drop([subscriber])

    def _drop(self, gone: list[Subscriber]) -> None:
        left = [one for one in self._all if one not in gone]
        if len(left) < len(self._all):
            self._all = left
            self._manager.listeners_changed()

    def _look_later(self) -> None:
        if not self._looking and self._holders.deadline() is not None:
            self._looking = True
            self._manager.set_timer(LOOK, self._look)

    def _look(self) -> None:
        self._looking = False
        self._holders.poll(time.monotonic())
        self._look_later()

    def host_gone(self, ip: str | None) -> None:
        """Forget the subscriptions of a host that is gone."""
        self._holders.host_gone(ip)

    def close(self) -> None:
        """Let go of all descriptors."""
        self._holders.close()
