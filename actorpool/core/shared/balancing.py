"""Where a call goes: among the connections that will do, to the one with the least expected wait."""

from __future__ import annotations

from actorpool.core.shared.connections import Connections
from actorpool.core.shared.records import Call, Connection
from actorpool.core.shared.refusals import Refusals
from actorpool.errors import ActorPoolError


class Balancing:
    """Knows which connection a call is best off with.

    Args:
        connections: all of them.
        refusals: says why a call can go nowhere.
    """

    def __init__(self, connections: Connections, refusals: Refusals) -> None:
        self.connections = connections
        self.refusals = refusals

    def choose(self, call: Call, live: list[Connection], now: float) -> Connection | ActorPoolError:
        """The one place that decides where a call goes, or why it can go nowhere.

        Args:
            call: it.
            live: the connections of its resource that take calls now.
            now: monotonic seconds.
        """
        if not live:
            return self.refusals.no_resource(call.resource, now)
        able = [connection for connection in live if call.method in connection.meters]
        if not able:
            return self.refusals.no_method(call.resource, call.method, live)
        if call.where is not None:
            fitting = [connection for connection in able if self.connections.fits(call.where, connection, now)]
            if not fitting:
                return self.refusals.no_match(call, len(able))
            able = fitting
        return able[0] if len(able) == 1 else least_wait(able, call.method, now)


def least_wait(able: list[Connection], method: str, now: float) -> Connection:
    """The least mean time × calls ahead + cooldown; then the fewest calls ahead; then the oldest connection.

    A connection that was never measured counts with the average of the others: as fast as can be expected, and not, at
    no time at all for each call, as the best place for all calls until its first one is over.
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
