"""Rolling replacement: every connection, or every process, one at a time, those in use when they come back.

A connection is opened anew in its place. For processes there is one worker more than `size` meanwhile (the *surge*),
and an old one goes only while more than `size` are connected: no capacity is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from actorpool.core.workers import DOWN, NO_WORKER, OPENING, PARKED, STOPPING, Worker, Workers


class Recycling:
    """Which workers are still to be replaced, and the askers that wait for that."""

    def __init__(self) -> None:
        self.to_recycle: set[int] = set()
        self.by_restart = False  # their processes, not only their connections
        self.surge = 0  # how many workers are kept beyond `size` meanwhile
        self.waiting: list[Any] = []
        self.reopening_id = NO_WORKER  # the worker of which the connection was opened anew last

    def begin(self, ids: Iterable[int], restart: bool, ref: Any) -> None:
        """Take up workers. Once processes are meant, they are until all is done."""
        self.by_restart = restart or (self.by_restart and bool(self.to_recycle))
        self.to_recycle.update(ids)
        self.waiting.append(ref)

    def connected_anew(self, id: int) -> None:
        """A worker has another connection."""
        if not self.by_restart:
            self.to_recycle.discard(id)

    def gone(self, id: int) -> None:
        """A worker has died or is to end."""
        self.to_recycle.discard(id)
        if not self.to_recycle:
            self.surge = 0

    def next(self, workers: Workers) -> Worker | None:
        """An old worker that is not in use; those that are down first."""
        for place in (workers.down, workers.idle, workers.by_state[PARKED]):
            for worker in place.values():
                if worker.id in self.to_recycle:
                    return worker
        return None

    def is_reopening(self, workers: Workers) -> bool:
        """Whether a new connection is on its way."""
        current = workers.get(self.reopening_id)
        return current is not None and current.state in (OPENING, DOWN)

    def clear(self) -> int:
        """End it; returns the surge there was."""
        surge, self.surge = self.surge, 0
        self.to_recycle.clear()
        return surge

    def check(self, workers: Workers) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        assert self.to_recycle or not self.surge, "a surge for nothing"
        assert self.to_recycle or workers.by_state[STOPPING] or not self.waiting, "recycled, and the asker is not told"
        assert all(workers.by_id[id].state is not STOPPING for id in self.to_recycle), "recycled, and still to be"
