"""The shared pool: every decision about it, without clock, process or Thespian. Start reading here.

Many callers share each connection through its queue; there is no lease. The shell calls one method for each thing
that happens and carries the returned effects out, in order; it asks `deadline()` when to call `tick()`. Whatever
names callers and requests is opaque; worker ids and call numbers only grow, so late news of an old one falls through.

Layers: `roster` (records, figures) <- `loans` (lending) <- `upkeep` (processes, connections) <- `choosing` <-
`routing` (calls) <- this (requests, time).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from actorpool.core.effects import Answer
from actorpool.core.machine import step
from actorpool.core.shared.calls import Calls
from actorpool.core.shared.connections import TELLING, check_settings
from actorpool.core.shared.records import DRAINING, ENDING, LIVE, Connection, Gather, Loan
from actorpool.errors import InvalidConfig

SETTINGS = ("extra", "ttl", "revive")


class SharedPoolCore(Calls):
    """A shared pool. All times are monotonic seconds; every public method but the figures returns effects.

    Every request carries a `ref` and ends in exactly one `Answer(ref, value)`, an exception to be raised at the
    asker's; a call may end in `Deliver(call, reply)` instead.
    """

    # -- requests -------------------------------------------------------------------------------------------

    @step
    def info(self, now: float, ref: Any, id: int) -> None:
        """Answer a connection's `ConnInfo`, or `UnknownConnection`."""
        connection = self.connections.get(id)
        if connection is None:
            self._do(Answer(ref, self._unknown(id)))
        elif isinstance(connection.running, Loan):
            self._recall(connection)
            connection.running.asking.append(Gather(ref, [id], lambda infos: infos[id]))
            self.timers.at(now + TELLING, (self._tell, connection, connection.running))
        else:
            self._do(Answer(ref, connection.info(now, self.epoch)))

    @step
    def extra(self, now: float, ref: Any, id: int, value: Any) -> None:
        """Attach `value` to a connection; answered by what was attached before, or `UnknownConnection`."""
        connection = self.connections.get(id)
        if connection is None:
            self._do(Answer(ref, self._unknown(id)))
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
        problems = {name: f"is unknown; known are {', '.join(SETTINGS)}" for name in settings if name not in SETTINGS}
        try:
            if problems:
                raise InvalidConfig("connection", problems)
            check_settings(ttl=settings.get("ttl"), revive=settings.get("revive", False))
        except InvalidConfig as error:
            self._do(Answer(ref, error))
            return
        chosen = self._matching(resource, where, now)
        for connection in chosen:
            for name, value in settings.items():
                setattr(connection, name, value)
            if "ttl" in settings:
                self._watch_ttl(connection)
                self._recall(connection)  # a call is to meet its expiry
        self._do(Answer(ref, len(chosen)))

    @step
    def is_empty(self, now: float, ref: Any, resource: Hashable) -> None:
        """Answer whether no live connection to the resource exists."""
        self._do(Answer(ref, not self._live_now(resource, now)))

    @step
    def resources(self, now: float, ref: Any) -> None:
        """Answer the resources that have a live connection, in the order in which they came."""
        self._do(Answer(ref, [resource for resource in self.by_resource if self._live_now(resource, now)]))

    # -- leaving --------------------------------------------------------------------------------------------

    @step
    def pop(self, now: float, ref: Any, id: int) -> None:
        """Take a connection out; answered by its `ConnInfo` once its queued calls are done, or `UnknownConnection`."""
        connection = self.connections.get(id)
        if connection is None or connection.popped is not None:
            self._do(Answer(ref, self._unknown(id)))
        else:
            self._pop([connection], Gather(ref, [id], lambda infos: infos[id]), now)

    @step
    def pop_all(self, now: float, ref: Any, resource: Hashable, where: Any = None) -> None:
        """Take all matching connections out; answered by their `ConnInfo`s once all of their queued calls are done."""
        chosen = [one for one in self._matching(resource, where, now) if one.popped is None]
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
            self._wind_up(connection, now)

    def _wind_up(self, connection: Connection, now: float) -> None:
        """Let a connection finish what it has, and drop it then."""
        if connection.state is LIVE:
            connection.move(DRAINING)
        if connection.state is DRAINING:
            self._next(connection, now)
        elif connection.state is not ENDING:
            self._drop(connection, now)

    def _matching(self, resource: Hashable, where: Any, now: float) -> list[Connection]:
        return [connection for connection in self._of(resource) if self._fits(where, connection, now)]

    # -- callers and time -----------------------------------------------------------------------------------

    @step
    def cancel(self, now: float, ref: Hashable) -> None:
        """The caller does not want the call of that `ref` any more. Not answered."""
        call = self.calls.get(ref)
        if call is not None:
            self._forget([call], now)

    @step
    def caller_down(self, now: float, caller: Hashable) -> None:
        """The caller is dead: its waiting calls are removed, what runs for it ends by itself.

        The running call is not interrupted: the connection belongs to others too, and may not survive it.
        """
        self._forget([call for call in self.calls.values() if call.caller == caller], now)
        for connection in self.connections.values():
            if isinstance(connection.running, Loan) and connection.running.caller == caller:
                self._recall(connection)

    @step
    def observe(self, now: float, observed: bool, ref: Any = None) -> None:
        """Tell every call from now on, or no longer; then none may go past the pool.

        Args:
            ref: answered (by None) once what was lent is back, so that whatever is called from then on is told. None:
                there is no asker.
        """
        self.observed = observed
        lent = {one: one.running for one in self.connections.values() if isinstance(one.running, Loan)}
        gather = Gather(ref, [connection.id for connection in lent], lambda _infos: None)
        for connection, loan in lent.items():
            self._recall(connection)
            if ref is not None:
                loan.asking.append(gather)
        if ref is not None and not lent:
            self._do(Answer(ref))

    @step
    def stop(self, now: float, ref: Any, timeout: float) -> None:
        """End the pool: waiting calls fail at once, running ones may finish within `timeout`. `Stopped` at the end."""
        self.stopping = True
        self.stoppers.append(ref)
        self.timers.at(now + timeout, (self._stop_over, None, None))
        for connection in list(self.connections.values()):
            for call in connection.take_queue():
                self._fail(call, self._stopped())
            if connection.adding is not None:
                self._do(Answer(connection.adding, self._stopped()))
                connection.adding = None
            self._wind_up(connection, now)
        self._check_stopped()

    def _stop_over(self, _key: None, _since: None, now: float) -> None:
        """Those that still run a call: fail it, interrupt it, and have the process end."""
        for connection in list(self.connections.values()):
            for call in connection.take_running():
                if isinstance(call, Loan):
                    self._tell(connection, call, now)
                elif not call.answered:
                    self._fail(call, self._stopped())
            self._drop(connection, now, interrupt=True)

    @step
    def tick(self, now: float) -> None:
        """Do what is due; call it at `deadline()`, or whenever it is convenient."""
        for call in self.deadlines.due(now):
            if call.waiting or call.running:  # not if one before it has taken it along
                self._overdue(call, now)
        for remind, key, since in self.timers.due(now):
            remind(key, since, now)

    def deadline(self) -> float | None:
        """When `tick` has to be called next; None: not before something else happens."""
        moments = [moment for moment in (self.deadlines.next(), self.timers.next()) if moment is not None]
        return min(moments, default=None)
