"""What an actor holds to emit events: its sinks, opened here, and the subscribers."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from actorpool import _scrubbing
from actorpool.messages import Event
from actorpool.telemetry.complaints import QUIET, Complaints
from actorpool.telemetry.events import FREQUENT, NOT_KEPT, Counted, matcher
from actorpool.telemetry.sinks import Outlet, Sink

log = logging.getLogger("actorpool")

Clock = Callable[[], float]


class _Guarded:
    """One sink, opened when it is first needed. It is foreign code: whatever it raises ends here, and is logged now and
    then. It gets the later events all the same; one that cannot be opened is opened again after a while.

    One with an `interval` (seconds) counts the frequent events instead of hearing each, if its owner can count.
    """

    def __init__(self, sink: Sink, owner: str, here: bool, clock: Clock, counts: bool) -> None:
        self._sink = sink
        self.interval: float | None = getattr(sink, "interval", None) if counts else None
        self._owner = owner
        self._open: Callable[[], Outlet] = getattr(sink, "open_here", sink.open) if here else sink.open
        self._clock = clock
        self._outlet: Outlet | None = None
        self._missed = 0
        self._opens = float("-inf")
        self._complaints = Complaints(clock)

    @property
    def name(self) -> str:
        """What it is called in figures: the function, or the kind of the sink."""
        return getattr(self._sink, "target", None) or type(self._sink).__name__.removesuffix("Sink").lower()

    @property
    def dropped(self) -> int:
        """Events it has not taken: it was not open, failed, or was behind."""
        return self._missed + int(getattr(self._outlet, "dropped", 0))

    def wants(self, name: str) -> bool:
        if self.interval is not None and name in FREQUENT:
            return False
        try:
            outlet = self._opened()
            return outlet is None or bool(outlet.wants(name))
        except Exception as error:
            self._failed(error)
            return True  # unknown until it works

    def emit(self, event: Event) -> None:
        try:
            outlet = self._opened()
            if outlet is not None:
                outlet.emit(event)
                return
        except Exception as error:
            self._failed(error)
        self._miss(1)

    def count(self, pool: str, counted: list[Counted]) -> None:
        try:
            outlet = self._opened()
            if outlet is not None:
                outlet.count(pool, counted)  # type: ignore[attr-defined]  # a `CountingOutlet`
                return
        except Exception as error:
            self._failed(error)
        self._miss(sum(each.times for each in counted))

    def _miss(self, events: int) -> None:
        if not hasattr(self._outlet, "dropped"):  # one that counts what it drops has done so already
            self._missed += events

    def flush(self) -> None:
        try:
            if self._outlet is not None:
                self._outlet.flush()
        except Exception as error:
            self._failed(error)

    def close(self) -> None:
        self._missed = self.dropped
        outlet, self._outlet = self._outlet, None
        try:
            if outlet is not None:
                outlet.close()
        except Exception as error:
            log.debug("%s: closing %r: %r", self._owner, self._sink, error)

    def _opened(self) -> Outlet | None:
        """The live sink; None for a while after it could not be opened."""
        if self._outlet is None and self._clock() >= self._opens:
            self._opens = self._clock() + QUIET
            self._outlet = self._open()
        return self._outlet

    def _failed(self, error: Exception) -> None:
        if self._complaints.due(error):
            log.error("%s: telemetry sink %r failed: %r", self._owner, self._sink, error)


class Hub:
    """Distributes the events of one actor to its sinks and names the subscribers each is to be sent to.

    Args:
        sinks: settings, as of `sinks_of`; each is opened in this process when it is first needed.
        pool: the pool's name, for the log.
        here: the actor shares its process with the user (simpleSystemBase): functions are called directly.
        keeper: the address that keeps a history, and gets each event that is kept; None: there is none.
        clock: monotonic seconds.
        counts: the actor calls `count` every `interval` seconds, so that sinks which count need not hear each event.

    Attributes:
        gathered: sinks got events since the last `flush`.
        interval: how often to call `count`, in seconds: as often as the most frequent sink wants it; None: never.
    """

    gathered = False

    def __init__(
        self,
        sinks: Iterable[Sink] = (),
        pool: str | None = None,
        *,
        here: bool = False,
        keeper: Any = None,
        clock: Clock = time.monotonic,
        counts: bool = False,
    ) -> None:
        self._keeper = keeper
        owner = f"pool {pool}" if pool else "actorpool"
        self._sinks = [_Guarded(sink, owner, here, clock, counts) for sink in sinks]
        self._counting = [sink for sink in self._sinks if sink.interval is not None]
        self.interval = min((sink.interval for sink in self._counting if sink.interval is not None), default=None)
        self._subscriptions: list[tuple[str, Any, Callable[[str], object]]] = []
        self._wanted: dict[str, tuple[list[_Guarded], list[Any]]] = {}

    def wants(self, name: str) -> bool:
        """Whether events of that name have a listener: one look into a dict, so unheard events cost nothing."""
        sinks, addresses = self._wanted.get(name) or self._listeners(name)
        return bool(sinks or addresses)

    def emit(self, event: Event) -> list[tuple[Any, Event]]:
        """Give `event` to the sinks; returns the (address, event) pairs that the actor is to send. Never raises.

        No secret is in it any more.
        """
        sinks, addresses = self._wanted.get(event.name) or self._listeners(event.name)
        if event.name not in FREQUENT:
            event = dataclasses.replace(event, metadata=_scrubbing.scrub_value(event.metadata))
        for sink in sinks:
            sink.emit(event)
            self.gathered = True
        return [(address, event) for address in addresses]

    def count(self, pool: str, counted: list[Counted]) -> None:
        """Tell sinks that count how often the frequent events of a pool happened since the last time. Never raises."""
        for sink in self._counting:
            sink.count(pool, counted)

    def flush(self) -> None:
        """Send what sinks have gathered. Call it once a second or so, and before the actor sleeps for long."""
        self.gathered = False
        for sink in self._sinks:
            sink.flush()

    def dropped(self) -> dict[str, int]:
        """How many events each sink has not taken, by its name."""
        found: dict[str, int] = {}
        for sink in self._sinks:
            found[sink.name] = found.get(sink.name, 0) + sink.dropped
        return found

    def close(self) -> None:
        """Send what was gathered and close all sinks; takes two seconds at most for each function."""
        for sink in self._sinks:
            sink.close()

    @property
    def subscriptions(self) -> list[tuple[str, Any]]:
        """All (pattern, address) pairs, in order: what a new pool's hub is to be told."""
        return [(pattern, address) for pattern, address, _ in self._subscriptions]

    @property
    def receivers(self) -> list[Any]:
        """The addresses that are sent events."""
        kept = [] if self._keeper is None else [self._keeper]
        return [address for _, address, _ in self._subscriptions] + kept

    def subscribe(self, pattern: str, address: Any) -> None:
        """Send events that match the glob `pattern` to `address` from now on; asking twice changes nothing."""
        if (pattern, address) not in self.subscriptions:
            self._subscriptions.append((pattern, address, matcher(pattern)))
            self._wanted.clear()

    def listen(self, subscriptions: Iterable[tuple[str, Any]]) -> None:
        """From now on these are all subscriptions, each pair once."""
        self._subscriptions = [(pattern, address, matcher(pattern)) for pattern, address in subscriptions]
        self._wanted.clear()

    def unsubscribe(self, address: Any) -> None:
        """Forget every subscription of `address` (it is gone)."""
        self.listen([item for item in self.subscriptions if item[1] != address])

    def _listeners(self, name: str) -> tuple[list[_Guarded], list[Any]]:
        addresses: list[Any] = []
        for _, address, matches in self._subscriptions:
            if matches(name) and address not in addresses:  # addresses of actors have no hash
                addresses.append(address)
        if self._keeper is not None and name not in NOT_KEPT:
            addresses.append(self._keeper)
        found = self._wanted[name] = ([sink for sink in self._sinks if sink.wants(name)], addresses)
        return found
