"""What went wrong in a shared pool, in words: what happened, the numbers, and what to do."""

from __future__ import annotations

from collections.abc import Hashable

from actorpool.core.shared.connections import Connections
from actorpool.core.shared.records import Call, Connection
from actorpool.errors import (
    CallTimeout,
    MethodNotFound,
    NoMatch,
    NoResource,
    PoolStopped,
    UnknownConnection,
    WorkerDied,
    WorkerUnavailable,
)


class Refusals:
    """Makes the errors that callers and askers get.

    Args:
        name: the pool's name.
        connections: all of them.
    """

    def __init__(self, name: str, connections: Connections) -> None:
        self.name = name
        self.connections = connections

    # -- calls --------------------------------------------------------------------------------------------

    def no_resource(self, resource: Hashable, now: float) -> NoResource:
        """No connection to a resource is live."""
        known = self.connections.of(resource)
        resting = [connection for connection in known if connection.rests]
        text = f"shared pool {self.name!r} has no live connection to {self.connections.short(resource)}"
        if not known:
            text += "; add() one"
        else:
            text += f" ({len(known)} known: {', '.join(f'{one.id} {one.shown}' for one in known)})"
        cause = next((connection.cause for connection in reversed(known) if connection.cause is not None), None)
        if resting:
            first = min(connection.retry_at for connection in resting) - now
            text += f"; the next attempt to open one is in {max(first, 0.0):.1f} s"
        if cause is not None:
            text += f"; the last problem was {type(cause).__name__}: {cause}"
        return NoResource(text, pool=self.name, resource=resource, cause=cause)

    def none_left(self, call: Call) -> NoResource:
        """The connection where a call waited is over, and there is no other."""
        connection = call.connection
        assert connection is not None
        cause = connection.cause
        why = f" ({type(cause).__name__}: {cause})" if cause is not None else ""
        text = (
            f"shared pool {self.name!r}: connection {connection.id} to {self.connections.short(call.resource)} is "
            f"over{why}, and no other live one can take the call of {call.method!r} that waited there; it was not run"
        )
        return NoResource(text, pool=self.name, resource=call.resource, cause=cause)

    def no_method(self, resource: Hashable, method: str, live: list[Connection]) -> MethodNotFound:
        """None of the live connections has the method."""
        methods = dict.fromkeys(name for connection in live for name in connection.meters)
        text = (
            f"none of the {len(live)} live connection(s) to {self.connections.short(resource)} in shared pool "
            f"{self.name!r} has the method {method!r}; they have "
            f"{', '.join(methods) or 'none: mark methods with @method'}"
        )
        return MethodNotFound(text, pool=self.name, resource=resource)

    def no_match(self, call: Call, able: int) -> NoMatch:
        """`where` accepts none of the connections that are able."""
        text = (
            f"where={self.connections.short(call.where)} rejected all {able} live connection(s) to "
            f"{self.connections.short(call.resource)} in shared pool {self.name!r} that have the method "
            f"{call.method!r}; look at their extra with info()"
        )
        return NoMatch(text, pool=self.name, resource=call.resource)

    def timed_out(self, call: Call, now: float) -> CallTimeout:
        """The time of a call is over, while it waited or ran."""
        where = f"shared pool {self.name!r}, {self.connections.short(call.resource)}: {call.method!r}"
        if not call.running:
            ahead = call.connection.ahead if call.connection is not None else 0
            text = (
                f"{where} waited {now - call.arrived:.3f} s and was not run ({ahead} call(s) on its connection); "
                "raise timeout, or add connections to the resource"
            )
            return CallTimeout(text, pool=self.name, waited=now - call.arrived, started=False)
        waited, ran = call.started - call.arrived, now - call.started
        text = (
            f"{where} ran {ran:.3f} s after waiting {waited:.3f} s, is being interrupted, and may have taken effect; "
            "raise timeout, or find out why the connection is slow"
        )
        return CallTimeout(text, pool=self.name, waited=waited, started=True)

    def died(self, call: Call, reason: str) -> WorkerDied:
        """The process died that ran a call."""
        assert call.connection is not None
        return WorkerDied(
            f"shared pool {self.name!r}: the process of connection {call.connection.id} died ({reason}) while it ran "
            f"{call.method!r}; the call may have taken effect and was not repeated",
            pool=self.name,
        )

    # -- connections --------------------------------------------------------------------------------------

    def unavailable(self, connection: Connection) -> WorkerUnavailable:
        """A connection could not be opened in time."""
        cause = connection.cause
        why = f"{type(cause).__name__}: {cause}" if cause is not None else "it is still trying"
        return WorkerUnavailable(
            f"shared pool {self.name!r}: a connection could not be opened in time ({why}); make its resource "
            'reachable, or add it with revive="force" to have it join once it can be opened',
            pool=self.name,
            cause=cause,
        )

    def unknown(self, id: int) -> UnknownConnection:
        """There is no connection of that id."""
        return UnknownConnection(
            f"shared pool {self.name!r} has no connection {id!r}; it was popped, dropped, or never there",
            pool=self.name,
        )

    def stopped(self) -> PoolStopped:
        """The pool ends."""
        return PoolStopped(f"shared pool {self.name!r} was stopped", pool=self.name)
