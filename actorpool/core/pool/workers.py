"""The workers of a pool: each in exactly one place, moved only by `Workers.move` along the table below.

```
            +--------------------------- DOWN <--+        (cannot connect, waits for its turn to try again)
            v                                    |
STARTING -> OPENING -> IDLE -> LEASED -> REVOKING+-> IDLE
                       |  ^    |
                       v  |    +-> IDLE / OPENING (came back; came back without a connection)
                     CHECKING
OPENING -> REVOKING (connected after all, with an interrupt on its way)
any -> STOPPING (asked to end)        any -> gone (its process died)
```
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum


class State(Enum):
    """Where a worker is."""

    STARTING = "starting"
    OPENING = "connecting"
    DOWN = "down"
    IDLE = "idle"
    CHECKING = "checking"
    LEASED = "busy"
    REVOKING = "resetting"
    STOPPING = "stopping"

    # members are singletons: identity hashing is right, and several times faster than Enum's own
    __hash__ = object.__hash__


STARTING, OPENING, DOWN, IDLE = State.STARTING, State.OPENING, State.DOWN, State.IDLE
CHECKING, LEASED, REVOKING, STOPPING = State.CHECKING, State.LEASED, State.REVOKING, State.STOPPING

MOVES: dict[State, frozenset[State]] = {
    STARTING: frozenset({OPENING, STOPPING}),
    OPENING: frozenset({IDLE, DOWN, REVOKING, STOPPING}),
    DOWN: frozenset({OPENING, STOPPING}),
    IDLE: frozenset({LEASED, CHECKING, OPENING, STOPPING}),
    CHECKING: frozenset({IDLE, OPENING, STOPPING}),
    LEASED: frozenset({IDLE, OPENING, REVOKING, STOPPING}),
    REVOKING: frozenset({IDLE, OPENING, STOPPING}),
    STOPPING: frozenset(),
}

NOBODY = 0
"""The id that no worker has."""

NO_LEASE = 0
"""The id that no lease has: of what is interrupted under no lease."""

INCOMING = (STARTING, OPENING, CHECKING, REVOKING)
"""Places from which a worker becomes idle soon and by itself."""


class IllegalMove(Exception):
    """A move that the table does not have; nothing was changed."""


class Worker:
    """What the pool knows of one worker process."""

    __slots__ = (
        "awaits", "broken", "calls", "connected_at", "expires", "id", "idle_since", "lease",
        "overflow", "restarts", "seen", "state", "suspect", "timer",
    )  # fmt: skip

    def __init__(self, id: int, overflow: bool, restarts: int) -> None:
        self.id = id
        self.state = STARTING
        self.overflow = overflow
        self.restarts = restarts
        self.lease: int | None = None
        self.awaits: int | None = None  # the lease it was taken back from, until it says that it is reset
        self.calls = 0
        self.connected_at: float | None = None
        self.expires: float | None = None
        self.idle_since = 0.0
        self.seen = 0.0
        self.timer: float | None = None  # when it is looked at next: while idle, or to reconnect
        self.broken = False
        self.suspect = False

    def __repr__(self) -> str:
        return f"<worker {self.id} {self.state.value}{f' lease {self.lease}' if self.lease else ''}>"


class Workers:
    """All workers of a pool, by id and by place. Every operation is O(1)."""

    def __init__(self) -> None:
        self.workers: dict[int, Worker] = {}
        self.places: dict[State, OrderedDict[int, Worker]] = {state: OrderedDict() for state in State}
        self.idle = self.places[IDLE]

    def add(self, worker: Worker) -> None:
        """Take in a worker that is starting."""
        self.workers[worker.id] = worker
        self.places[worker.state][worker.id] = worker

    def move(self, worker: Worker, to: State) -> None:
        """Put a worker into another place (last in its order).

        Raises:
            IllegalMove: the table has no such move.
        """
        if to not in MOVES[worker.state]:
            raise IllegalMove(f"worker {worker.id}: {worker.state.value} -> {to.value}")
        del self.places[worker.state][worker.id]
        worker.state = to
        self.places[to][worker.id] = worker

    def remove(self, worker: Worker) -> None:
        """Forget a worker whose process is gone."""
        del self.workers[worker.id]
        del self.places[worker.state][worker.id]

    def count(self, *states: State) -> int:
        """How many workers are in these places."""
        return sum(len(self.places[state]) for state in states)

    @property
    def staying(self) -> int:
        """Workers that are not on their way out."""
        return len(self.workers) - len(self.places[STOPPING])

    @property
    def incoming(self) -> int:
        """Workers that will be idle soon."""
        return self.count(*INCOMING)

    def __contains__(self, id: int) -> bool:
        return id in self.workers

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self.workers.values()))

    def __len__(self) -> int:
        return len(self.workers)
