"""Questions that every worker of a pool answers between two calls: collected until all have, or time is up."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from actorpool._protocol import orders, reports
from actorpool.pools.holders import Asker
from actorpool.pools.worker_handles import WorkerHandles
from actorpool.serialization.pickling import Pickled


class _Query:
    def __init__(self, asker: Asker | None, deadline: float, missing: set[int]) -> None:
        self.asker = asker
        self.deadline = deadline
        self.missing = missing
        self.values: dict[int, Any] = {}


class WorkerQueries:
    """The questions that are open. Time is an argument, as in the core."""

    def __init__(self, worker_handles: WorkerHandles) -> None:
        self._crew = worker_handles
        self._open: dict[int, _Query] = {}
        self._numbers = itertools.count(1)
        self.sessions: int | None = None
        """The last answer about the server's own session count; None when it could not be asked."""

    def begin(self, method: str, timeout: float, asker: Asker | None, now: float) -> None:
        """Ask every worker; `asker` gets `{worker id: parcel}` of those that answered within `timeout` seconds."""
        number = next(self._numbers)
        gathering = self._open[number] = _Query(asker, now + timeout, {hand.id for hand in self._crew})
        for id in list(gathering.missing):
            self._crew.tell(id, orders.Gather(number, method))
        self._finish(number)

    def ask_sessions(self, idle: Iterable[int], now: float) -> None:
        """Ask one unused worker for the server's session count, for the next sample."""
        self.sessions = None
        for id in idle:
            number = next(self._numbers)
            self._open[number] = _Query(None, now + 5.0, {id})
            self._crew.tell(id, orders.Gather(number, "session_count"))
            return

    def arrived(self, message: reports.Gathered) -> None:
        """A worker has answered; an answer to a question that is over falls through."""
        gathering = self._open.get(message.ref)
        if gathering is None:
            return
        gathering.values[message.worker_id] = message.value  # not opened here: user code meets its caller only
        gathering.missing.discard(message.worker_id)
        if gathering.asker is None:
            self.sessions = _whole_number(message.value)
        self._finish(message.ref)

    def gone(self, id: int) -> None:
        """That worker will not answer any more."""
        for number, gathering in list(self._open.items()):
            gathering.missing.discard(id)
            self._finish(number)

    def expire(self, now: float) -> None:
        """Answer with what there is where time is up."""
        for number, gathering in list(self._open.items()):
            if gathering.deadline <= now:
                gathering.missing.clear()
                self._finish(number)

    def deadline(self) -> float | None:
        """When `expire` is to be called next."""
        return min((gathering.deadline for gathering in self._open.values()), default=None)

    def _finish(self, number: int) -> None:
        gathering = self._open[number]
        if not gathering.missing:
            del self._open[number]
            if gathering.asker is not None:
                gathering.asker.answer(gathering.values)


def _whole_number(value: Pickled) -> int | None:
    try:
        number = value.open()
    except Exception:  # a worker of the user's may tell anything
        return None
    return number if isinstance(number, int) else None
