"""Where events go: settings that travel (`Sink`), and what they become inside each actor process (`Outlet`).

A sink is a picklable value without a socket or a file; `open` is called in the process that emits.
An outlet must never block: what it cannot send at once it drops.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any, Protocol, runtime_checkable

from actorpool._dataclass import dataclass
from actorpool.errors import InvalidConfig
from actorpool.messages import Event
from actorpool.telemetry.events import FREQUENT, STATES, Counted, matcher
from actorpool.telemetry.function import FunctionSink, resolve

# Seconds.
SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.01, 86400


class Outlet(Protocol):
    """A live sink in one process. What it raises is logged, at most once in a while; it gets the later events."""

    def wants(self, name: str) -> bool:
        """Whether events of that name are of use; asked once for each name."""

    def emit(self, event: Event) -> None:
        """Take one event; must not block."""

    def flush(self) -> None:
        """Send what was gathered; cheap when there is nothing."""

    def close(self) -> None:
        """Send what was gathered and let go of everything; may take a second."""


class CountingOutlet(Outlet, Protocol):
    """The outlet of a sink that has an `interval`: of the frequent events a pool tells it how many there were.

    It still gets each of them by `emit` from pools that cannot count them.
    """

    def count(self, pool: str, counted: list[Counted]) -> None:
        """Take how often they happened in the last interval; must not block."""


@runtime_checkable
class Sink(Protocol):
    """Settings of a sink: picklable, and without a socket or a file of their own."""

    def open(self) -> Outlet:
        """Called in each process that emits events, before the first one."""


@dataclass(frozen=True)
class StatsdSink:
    """Sends counters, timings and gauges to a statsd server over UDP.

    Names are `<prefix>.<pool>.<event>`, with `_` for a dot in the pool's name and the event's `pool.` left out: each
    event counts (`actorpool.db.checkout`), its milliseconds are a timing (`actorpool.db.checkout_time`,
    `actorpool.db.hold_time`); what a sample or a resize measures are gauges (`actorpool.db.leases`). Nothing but names
    and numbers is ever sent.

    Checkouts, checkins and calls are counted where they happen and read once in an interval, so this sink costs a call
    nothing. Their counters are exact sums; of their timings the slowest of each interval is sent and some of the
    others, with the rate at which they were picked. (Calls of a shared pool are told one by one.)

    Args:
        host: resolved here and now, so that no actor ever waits for a name server.
        port: UDP port.
        prefix: first part of every name.
        interval: seconds between two looks at what was counted, at least 0.01; with several sinks, the shortest counts.

    Raises:
        InvalidConfig: a bad port, prefix or interval, or a host that cannot be resolved.
    """

    host: str = "127.0.0.1"
    port: int = 8125
    prefix: str = "actorpool"
    interval: float = 1.0
    address: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        problems = {}
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not 0 < self.port < 65536:
            problems["port"] = f"must be a whole number of 1 to 65535, not {self.port!r}"
        if not isinstance(self.prefix, str) or not self.prefix.isascii() or set(self.prefix) & set(":|@ \n"):
            problems["prefix"] = f"must be ASCII without blanks, ':', '|' and '@', not {self.prefix!r}"
        is_number = isinstance(self.interval, (int, float)) and not isinstance(self.interval, bool)
        if not is_number or not SHORTEST_INTERVAL <= self.interval <= LONGEST_INTERVAL:
            limits = f"{SHORTEST_INTERVAL} to {LONGEST_INTERVAL}"
            problems["interval"] = f"must be seconds from {limits}, not {self.interval!r}"
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_DGRAM)
            object.__setattr__(self, "address", str(sorted(found)[0][4][0]))  # IPv4 sorts before IPv6
        except (OSError, TypeError, UnicodeError) as error:
            problems["host"] = f"{self.host!r} cannot be resolved: {error}"
        if problems:
            raise InvalidConfig("StatsdSink", problems)

    def open(self) -> Outlet:
        return _Statsd(self)


class _Statsd:
    """Gathers the frequent events into full datagrams; sends everything else at once."""

    DATAGRAM = 1432  # fits an Ethernet frame with room for IPv6 and a tunnel
    BATCH = 30  # figures of about 45 bytes each: one datagram
    PATIENCE = 0.05  # seconds between two sendings while events keep coming

    def __init__(self, sink: StatsdSink, clock: Callable[[], float] = time.monotonic) -> None:
        import statsd  # here, because only processes that emit need it

        self.dropped = 0

        self._client = statsd.StatsClient(
            sink.address, sink.port, sink.prefix, maxudpsize=self.DATAGRAM, ipv6=":" in sink.address
        )
        self._client._sock.setblocking(False)  # a full buffer drops a figure instead of stopping the pool
        self._client._send = self._send_or_drop
        self._pipe = self._client.pipeline()
        self._gathered = 0
        self._clock = clock
        self._sent = float("-inf")

    def wants(self, name: str) -> bool:
        return True

    def emit(self, event: Event) -> None:
        scope = _scope(event.pool)
        name = event.name.removeprefix("pool.")
        if event.name != "pool.sample":
            self._pipe.incr(scope + name)
        for key, value in event.measurements.items():
            if value is None:
                continue  # it could not be measured
            if event.name in STATES:
                self._pipe.gauge(scope + key, value)
            elif key.endswith("ms"):
                self._pipe.timing(scope + _timing(event.name), value)
        self._gathered += 1 + len(event.measurements)
        if event.name not in FREQUENT or self._gathered >= self.BATCH or self._clock() > self._sent + self.PATIENCE:
            self._sent = self._clock()
            self.flush()

    def count(self, pool: str, counted: list[Counted]) -> None:
        for each in counted:
            name = _scope(pool) + each.name.removeprefix("pool.")
            self._pipe.incr(name, each.times)
            self._timing(pool, each, each.slowest_ms, 1.0)
            for value in each.some_ms:
                self._timing(pool, each, value, len(each.some_ms) / (each.times - 1))
        self._pipe.send()

    def _timing(self, pool: str, each: Counted, value: float, rate: float) -> None:
        """One timing of several; a rate tells the server for how many it stands."""
        kind = "ms" if rate >= 1 else f"ms|@{rate:.9f}"  # `timing(rate=...)` would draw lots once more
        self._pipe._send_stat(_scope(pool) + _timing(each.name), f"{value:.6f}|{kind}", 1)

    def _send_or_drop(self, lines: str) -> None:
        """Instead of the client's own, which drops without a word."""
        try:
            self._client._sock.sendto(lines.encode("ascii"), self._client._addr)
        except OSError:
            self.dropped += lines.count("\n") + 1

    def flush(self) -> None:
        if self._gathered:
            self._gathered = 0
            self._pipe.send()

    def close(self) -> None:
        self.flush()
        self._client.close()


def _scope(pool: str | None) -> str:
    return f"{pool.replace('.', '_')}." if pool else ""  # a dot would be another level of names


def _timing(event: str) -> str:
    return "hold_time" if event == "pool.checkin" else f"{event.removeprefix('pool.')}_time"


@dataclass(frozen=True)
class LoggingSink:
    """Writes one line for each event to a logger of the standard library.

    Args:
        level: a level's name or number.
        logger: the logger's name.
        pattern: a glob over event names; `"*"` also has the events of every single call.

    Raises:
        InvalidConfig: the level is unknown.
    """

    level: int | str = "INFO"
    logger: str = "actorpool.events"
    pattern: str = "*"

    def __post_init__(self) -> None:
        if not isinstance(self._number(), int):
            raise InvalidConfig("LoggingSink", {"level": f"must be a level of logging, not {self.level!r}"})

    def _number(self) -> Any:
        return logging.getLevelName(self.level.upper()) if isinstance(self.level, str) else self.level

    def open(self) -> Outlet:
        return _Logging(logging.getLogger(self.logger), self._number(), self.pattern)


class _Logging:
    def __init__(self, logger: logging.Logger, level: int, pattern: str) -> None:
        self._logger = logger
        self._level = level
        self._matches = matcher(pattern)

    def wants(self, name: str) -> bool:
        return bool(self._matches(name)) and self._logger.isEnabledFor(self._level)

    def emit(self, event: Event) -> None:
        facts = {**event.measurements, **event.metadata}.items()
        text = " ".join(f"{key}={value:.3f}" if isinstance(value, float) else f"{key}={value}" for key, value in facts)
        self._logger.log(self._level, "%s pool=%s %s", event.name, event.pool, text)

    def flush(self) -> None:
        """Nothing is gathered."""

    def close(self) -> None:
        """The logger is not ours."""


def sinks_of(telemetry: Any) -> tuple[Sink, ...]:
    """The sinks meant by `start(telemetry=...)`: None, a sink, `"module:function"`, or a list of them.

    Raises:
        InvalidConfig: names every entry that is none of these.
    """
    if telemetry is None:
        return ()
    given = list(telemetry) if isinstance(telemetry, Iterable) and not isinstance(telemetry, str) else [telemetry]
    sinks: list[Sink] = []
    problems = {}
    for number, item in enumerate(given):
        try:
            sinks.append(_sink(item))
        except (TypeError, ValueError, ImportError, AttributeError) as error:
            problems[f"telemetry[{number}]" if len(given) > 1 else "telemetry"] = str(error)
    if problems:
        raise InvalidConfig("telemetry", problems)
    return tuple(sinks)


def _sink(item: Any) -> Sink:
    if isinstance(item, str):
        sink = FunctionSink(item)
        resolve(item)  # here, where the caller that made a mistake can still be told
        return sink
    if isinstance(item, Sink) and not isinstance(item, type):
        return item
    raise TypeError(f'must be a StatsdSink, a LoggingSink or a function as "module:function", not {item!r}')
