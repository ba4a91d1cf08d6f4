"""The worker processes of a pool of either kind: each is in exactly one state, and moves only along the table below.

```
            +--------------------------- DOWN <--+        (cannot connect, waits for its turn to try again)
            v                                    |
STARTING -> OPENING -> IDLE -> LEASED -> REVOKING+-> IDLE
                       |  ^    |
                       v  |    +-> IDLE / OPENING (came back; came back without a connection)
                     CHECKING
OPENING -> REVOKING (connected after all, with an interrupt on its way)
LEASED -> PARKED -> LEASED (its key was given back, and asked for again)     PARKED -> REVOKING (evicted)
any -> STOPPING (asked to end)        any -> gone (its process died)
```

A worker of a shared pool is not lent: while its connection is open it is IDLE, whatever it runs. When that is over, it
may be DOWN for a while, until it is told to open another one.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from enum import Enum
from typing import Any


class State(Enum):
    """What a worker does."""

    STARTING = "starting"
    OPENING = "connecting"
    DOWN = "down"
    IDLE = "idle"
    CHECKING = "checking"
    LEASED = "busy"
    PARKED = "parked"
    REVOKING = "resetting"
    STOPPING = "stopping"

    # members are singletons: identity hashing is right, and several times faster than Enum's own
    __hash__ = object.__hash__


STARTING, OPENING, DOWN, IDLE = State.STARTING, State.OPENING, State.DOWN, State.IDLE
CHECKING, LEASED, PARKED = State.CHECKING, State.LEASED, State.PARKED
REVOKING, STOPPING = State.REVOKING, State.STOPPING

MOVES: dict[State, frozenset[State]] = {
    STARTING: frozenset({OPENING, STOPPING}),
    OPENING: frozenset({IDLE, DOWN, REVOKING, STOPPING}),
    DOWN: frozenset({OPENING, STOPPING}),
    IDLE: frozenset({LEASED, CHECKING, OPENING, DOWN, STOPPING}),
    CHECKING: frozenset({IDLE, OPENING, STOPPING}),
    LEASED: frozenset({IDLE, OPENING, PARKED, REVOKING, STOPPING}),
    PARKED: frozenset({LEASED, OPENING, REVOKING, STOPPING}),
    REVOKING: frozenset({IDLE, OPENING, PARKED, REVOKING, STOPPING}),
    STOPPING: frozenset(),
}

NO_WORKER = 0
"""The id that no worker has."""

NO_LEASE = 0
"""The id that no lease has: of what is interrupted under no lease."""

INCOMING = (STARTING, OPENING, CHECKING, REVOKING)
"""States from which a worker becomes idle soon and by itself."""


class IllegalMove(Exception):
    """A move that the table does not have; nothing was changed."""


class Worker:
    """What the pool knows of one worker process."""

    __slots__ = (
        "broken", "calls", "connected_at", "connection", "expires", "id", "idle_since", "key", "last_heard", "lease",
        "overflow", "restarts", "revoked_lease", "state", "suspect", "timer",
    )  # fmt: skip

    def __init__(self, id: int, overflow: bool, restarts: int, now: float, connection: int | None = None) -> None:
        self.id = id
        self.connection = connection  # what it serves, in a shared pool
        self.state = STARTING
        self.overflow = overflow
        self.restarts = restarts
        self.lease: int | None = None
        self.key: Hashable = None  # of the session that it holds
        self.revoked_lease: int | None = None  # what it was interrupted under, until it says that it is reset
        self.calls = 0
        self.connected_at: float | None = None
        self.expires: float | None = None
        self.idle_since = self.last_heard = now
        self.timer: float | None = None  # when it is looked at next: while idle, or to reconnect
        self.broken = False  # its connection is known to be lost
        self.suspect = False  # its connection is checked before the next use

    def disconnected(self, now: float) -> None:
        """Forget its connection: another one is about to be opened."""
        self.broken = self.suspect = False
        self.connected_at = self.expires = self.timer = self.revoked_lease = None
        self.last_heard = now

    def named(self, **more: Any) -> dict[str, Any]:
        """What events tell of it."""
        named = {"worker": self.id} if self.connection is None else {"worker": self.id, "connection": self.connection}
        return {**named, **more}

    def __repr__(self) -> str:
        return f"<worker {self.id} {self.state.value}{f' lease {self.lease}' if self.lease else ''}>"


class Workers:
    """All workers of a pool, by id and by state. Every operation is O(1).

    Args:
        first_id: the first worker id; ids grow from there and are never used twice.
    """

    def __init__(self, first_id: int = 1) -> None:
        self.by_id: dict[int, Worker] = {}
        self.by_state: dict[State, OrderedDict[int, Worker]] = {state: OrderedDict() for state in State}
        self.idle = self.by_state[IDLE]
        self._ids = itertools.count(first_id)

    def hire(self, now: float, overflow: bool, restarts: int, connection: int | None = None) -> Worker:
        """Add a worker; its process is still to be started."""
        worker = Worker(next(self._ids), overflow, restarts, now, connection)
        self.by_id[worker.id] = worker
        self.by_state[worker.state][worker.id] = worker
        return worker

    def move(self, worker: Worker, to: State) -> None:
        """Put a worker into another state (last in its order).

        Raises:
            IllegalMove: the table has no such move.
        """
        if to not in MOVES[worker.state]:
            raise IllegalMove(f"worker {worker.id}: {worker.state.value} -> {to.value}")
        del self.by_state[worker.state][worker.id]
        worker.state = to
        self.by_state[to][worker.id] = worker

    def remove(self, worker: Worker) -> None:
        """Remove a worker; its process is gone."""
        del self.by_id[worker.id]
        del self.by_state[worker.state][worker.id]

    def get(self, id: int, *states: State) -> Worker | None:
        """The worker of that id, if it is in one of these states (none given: in any)."""
        worker = self.by_id.get(id)
        return worker if worker is not None and (not states or worker.state in states) else None

    def count(self, *states: State) -> int:
        """How many workers are in these states."""
        return sum(len(self.by_state[state]) for state in states)

    @property
    def staying(self) -> int:
        """How many workers are not on their way out."""
        return len(self.by_id) - len(self.by_state[STOPPING])

    @property
    def incoming(self) -> int:
        """How many workers will be idle soon."""
        return self.count(*INCOMING)

    @property
    def down(self) -> OrderedDict[int, Worker]:
        """The workers that cannot connect."""
        return self.by_state[DOWN]

    @property
    def all_disconnected(self) -> bool:
        """Whether there are workers, and none of them has a connection that serves or may serve soon."""
        return 0 < self.staying == self.count(DOWN) + self.incoming

    @property
    def all_down(self) -> bool:
        """Whether every worker that is not stopping is down."""
        return self.staying == len(self.down)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests: it looks at everything."""
        placed = [worker for place in self.by_state.values() for worker in place.values()]
        assert len(placed) == len(self.by_id) == len({worker.id for worker in placed}), "a worker is in two states"
        for state, place in self.by_state.items():
            assert all(worker.state is state for worker in place.values()), f"{state} holds a stranger"
        leased = {worker.id for worker in placed if worker.lease is not None}
        assert leased == set(self.by_state[LEASED]), "leased workers and LEASED differ"

    def __contains__(self, id: int) -> bool:
        return id in self.by_id

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self.by_id.values()))

    def __len__(self) -> int:
        return len(self.by_id)
