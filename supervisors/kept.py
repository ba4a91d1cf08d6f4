"""Requests for pools that are being restarted. Knows no clock, sends nothing."""

from __future__ import annotations

import itertools
from typing import Any

from actorpool.core.machine import TimerQueue


class Kept:
    """What waits, by pool, each request until its own deadline."""

    def __init__(self) -> None:
        self._pools: dict[str, dict[int, Any]] = {}
        self._deadlines = TimerQueue()
        self._numbers = itertools.count(1)

    def keep(self, pool: str, what: Any, deadline: float) -> None:
        """Have a request wait until that monotonic time, behind those that wait already."""
        number = next(self._numbers)
        self._pools.setdefault(pool, {})[number] = what
        self._deadlines.at(deadline, (pool, number))
        self._deadlines.tidy(lambda entry: entry[1] in self._pools.get(entry[0], ()))

    def pools(self) -> list[str]:
        """For which pools something waits."""
        return list(self._pools)

    def take(self, pool: str) -> list[Any]:
        """All that waits for a pool, in order; from now on nothing does."""
        return list(self._pools.pop(pool, {}).values())

    def expired(self, now: float) -> list[tuple[str, Any]]:
        """What has waited for long enough, with its pool; it waits no more."""
        found = []
        for pool, number in self._deadlines.due(now):
            waiting = self._pools.get(pool, {})
            if number in waiting:
                found.append((pool, waiting.pop(number)))
                if not waiting:
                    del self._pools[pool]
        return found

    def deadline(self) -> float | None:
        """When `expired` is to be asked next."""
        return self._deadlines.next()
