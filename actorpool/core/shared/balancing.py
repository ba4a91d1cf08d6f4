"""Where a call goes: among the connections that will do, to the one with the least expected wait."""

from __future__ import annotations

from collections.abc import Hashable

from actorpool.core.shared.lifecycle import Lifecycle
from actorpool.core.shared.records import LIVE, Call, Connection
from actorpool.errors import ActorPoolError


class Balancing(Lifecycle):
    """The layer that knows which connection a call is best off with."""

    def _live(self, resource: Hashable, now: float) -> list[Connection]:
        """The connections that take calls now; those that are found expired are ended."""
        live = [connection for connection in self._of(resource) if connection.state is LIVE]
        expired = [connection for connection in live if connection.ttl is not None and connection.expired(now)]
        if not expired:
            return live
        for connection in expired:
            if connection.state is LIVE:  # not ended by a call that one before it sent elsewhere
                self._end(connection, now)
        return [connection for connection in live if connection not in expired]

    def _choose(self, call: Call, now: float) -> Connection | ActorPoolError:
        """The one place that decides where a call goes, or why it can go nowhere."""
        live = self._live(call.resource, now)
        if not live:
            return self._no_resource(call.resource, now)
        able = [connection for connection in live if call.method in connection.meters]
        if not able:
            return self._no_method(call.resource, call.method, live)
        if call.where is not None:
            fitting = [connection for connection in able if self._fits(call.where, connection, now)]
            if not fitting:
                return self._no_match(call, len(able))
            able = fitting
        return able[0] if len(able) == 1 else self._least_wait(able, call.method, now)

    def _least_wait(self, able: list[Connection], method: str, now: float) -> Connection:
        """The least mean time × calls ahead + cooldown; then the fewest calls ahead; then the oldest connection.

        A connection that was never measured counts with the average of the others: as fast as can be expected, and
        not, at no time at all for each call, as the best place for all calls until its first one is over.
        """
        for connection in able:
            if connection.running is None and not connection.queue and connection.free_at <= now:
                return connection  # no wait at all: nothing can be better, and the oldest such comes first
        means = [connection.mean(method) for connection in able]
        known = [mean for mean in means if mean is not None]
        guess = sum(known) / len(known) if known else 0.0
        best, least, fewest = able[0], float("inf"), 0
        for connection, mean in zip(able, means, strict=True):
            ahead = connection.ahead
            wait = (guess if mean is None else mean) * ahead + connection.pause(now)
            if wait < least or (wait == least and ahead < fewest):
                best, least, fewest = connection, wait, ahead
        return best
