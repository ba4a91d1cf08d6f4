"""What users ask about the connections of a shared pool: look at them, change them, take them out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from actorpool.core.effects import Answer
from actorpool.core.machine import Effects, step
from actorpool.core.shared.calls import Calls
from actorpool.core.shared.connections import check_changes
from actorpool.core.shared.loans import TELLING
from actorpool.core.shared.records import DRAINING, LIVE, Connection, Gather, Loan
from actorpool.errors import InvalidConfig


class Requests:
    """Steps of a `SharedPoolCore`, each answered by one `Answer(ref, value)`.

    Args:
        calls: what waits for connections.
        effects: where to put what is to be done.
    """

    def __init__(self, calls: Calls, effects: Effects) -> None:
        self.calls = calls
        self.connections, self.loans = calls.connections, calls.loans
        self.refusals, self.timers = calls.refusals, calls.timers
        self.effects = effects
        self._do = effects.do

    @step
    def info(self, now: float, ref: Any, id: int) -> None:
        """Answer a connection's `ConnInfo`, or `UnknownConnection`."""
        connection = self.connections.by_id.get(id)
        if connection is None:
            self._do(Answer(ref, self.refusals.unknown(id)))
        elif isinstance(connection.running, Loan):
            self.loans.ask(connection, connection.running, Gather(ref, [id], lambda infos: infos[id]))
            self.timers.at(now + TELLING, (self.loans.tell, connection, connection.running))
        else:
            self._do(Answer(ref, self.connections.info(connection, now)))

    @step
    def extra(self, now: float, ref: Any, id: int, value: Any) -> None:
        """Attach `value` to a connection; answered by what was attached before, or `UnknownConnection`."""
        connection = self.connections.by_id.get(id)
        if connection is None:
            self._do(Answer(ref, self.refusals.unknown(id)))
        else:
            self._do(Answer(ref, connection.extra))
            connection.extra = value

    @step
    def update(
        self, now: float, ref: Any, resource: Hashable, where: Any = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        """Change `extra`, `ttl` or `revive` of the matching connections; answered by how many there are.

        A new `ttl` counts from connecting, as ever. `revive=False` lets an attempt that is planned be the last one.
        """
        settings = settings or {}
        try:
            check_changes(settings)
        except InvalidConfig as error:
            self._do(Answer(ref, error))
            return
        chosen = self.connections.matching(resource, where, now)
        for connection in chosen:
            for name, value in settings.items():
                setattr(connection, name, value)
            if "ttl" in settings:
                self.calls.watch_ttl(connection)
                self.loans.recall(connection)  # a call is to meet its expiry
        self._do(Answer(ref, len(chosen)))

    @step
    def is_empty(self, now: float, ref: Any, resource: Hashable) -> None:
        """Answer whether no live connection to the resource exists."""
        self._do(Answer(ref, not self.connections.live_now(resource, now)))

    @step
    def resources(self, now: float, ref: Any) -> None:
        """Answer the resources that have a live connection, in the order in which they came."""
        known = self.connections
        self._do(Answer(ref, [resource for resource in known.by_resource if known.live_now(resource, now)]))

    @step
    def pop(self, now: float, ref: Any, id: int) -> None:
        """Take a connection out; answered by its `ConnInfo` once its queued calls are done, or `UnknownConnection`."""
        connection = self.connections.by_id.get(id)
        if connection is None or connection.popped is not None:
            self._do(Answer(ref, self.refusals.unknown(id)))
        else:
            self._pop([connection], Gather(ref, [id], lambda infos: infos[id]), now)

    @step
    def pop_all(self, now: float, ref: Any, resource: Hashable, where: Any = None) -> None:
        """Take all matching connections out; answered by their `ConnInfo`s once all of their queued calls are done."""
        chosen = [one for one in self.connections.matching(resource, where, now) if one.popped is None]
        if chosen:
            self._pop(chosen, Gather(ref, [one.id for one in chosen], lambda infos: list(infos.values())), now)
        else:
            self._do(Answer(ref, []))

    def _pop(self, chosen: list[Connection], gather: Gather, now: float) -> None:
        for connection in chosen:  # all of them first: what one sends elsewhere must not come to the next
            connection.popped = gather
            if connection.state is LIVE:
                connection.move(DRAINING)
        for connection in chosen:
            self.calls.wind_up(connection, now)
