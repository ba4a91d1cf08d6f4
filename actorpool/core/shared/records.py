"""What a shared pool keeps records of: connections, the calls on them, answers that several of them make up.

```
CLOSED -> LIVE -> DRAINING        (popped: runs what is queued, takes nothing new)
  ^        |        |
  |        v        v
  +----- ENDING <---+             (over: the call that runs ends first; then it is revived, or dropped)

any -> DROPPED
```

While a connection is CLOSED, the state of its worker says more: it starts, it connects, it is down; or there is none.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from actorpool.core.effects import Answer
from actorpool.core.machine import Retry, Series
from actorpool.core.workers import DOWN, IllegalMove, Worker
from actorpool.status import ConnInfo, MethodStats

# A change of pace is believed after about as many calls; fewer would make single slow calls count.
MEMORY = 100
QUICK = 0.0002
"""Seconds. Calls that take no longer are sent ahead: their way to the worker would take longer than they do."""
SURE = 10
"""Calls after which a method may be taken to be quick."""


class State(Enum):
    """Where a connection is in its life."""

    CLOSED = "down"
    LIVE = "live"
    DRAINING = "draining"
    ENDING = "ending"
    DROPPED = "dropped"

    # members are singletons: identity hashing is right, and several times faster than Enum's own
    __hash__ = object.__hash__


CLOSED, LIVE, DRAINING = State.CLOSED, State.LIVE, State.DRAINING
ENDING, DROPPED = State.ENDING, State.DROPPED

MOVES: dict[State, frozenset[State]] = {
    CLOSED: frozenset({LIVE, DROPPED}),
    LIVE: frozenset({DRAINING, ENDING}),
    DRAINING: frozenset({ENDING, DROPPED}),
    ENDING: frozenset({CLOSED, DROPPED}),
    DROPPED: frozenset(),
}


class Gather:
    """An answer to which connections contribute one value each: of `map`, `pop`, `info` of one that is lent, and so on.

    Args:
        ref: the request that is answered.
        ids: the connections that contribute, in the order of the answer.
        shape: makes the answer of the dict of contributions.
    """

    __slots__ = ("_found", "_ids", "_shape", "ref")

    def __init__(self, ref: Any, ids: list[int], shape: Callable[[dict[int, Any]], Any] = dict) -> None:
        self.ref = ref
        self._ids = ids
        self._shape = shape
        self._found: dict[int, Any] = {}

    def put(self, id: int, value: Any, do: Callable[[Any], None]) -> None:
        """Take in the contribution of a connection; the last one has the request answered."""
        self._found[id] = value
        if len(self._found) == len(self._ids):
            do(Answer(self.ref, self._shape({id: self._found[id] for id in self._ids})))


@dataclass(slots=True, eq=False)
class Call:
    """One call, from its arrival until it is answered.

    Args:
        number: grows with every call of the pool; names the call towards the worker and keeps the order of arrival.
        ref: names the call towards the caller.
        caller: the asker; its waiting calls are dropped when it dies.
        payload: whatever the worker needs to run it; opaque here.
        where: which connections will do, see `Connections.fits`.
        arrived: monotonic seconds.
        deadline: when it is given up, monotonic seconds, or None.
        gather: the call belongs to a `map`: it keeps its connection, and its outcome goes to that.
        direct: the caller could as well send such a call to the worker itself, see `Loan`.
    """

    number: int
    ref: Hashable
    caller: Hashable
    resource: Hashable
    method: str
    payload: Any
    where: Any
    arrived: float
    deadline: float | None
    gather: Gather | None = None
    direct: bool = False
    connection: Connection | None = None
    started: float = 0.0
    answered: bool = False
    """The caller has its answer, or waits for none any more."""

    @property
    def waiting(self) -> bool:
        """Whether it is in a connection's queue."""
        return self.connection is not None and self.number in self.connection.queue

    @property
    def running(self) -> bool:
        """Whether its connection has begun it and not answered yet."""
        return self.connection is not None and self.connection.running is self


class Loan:
    """A connection lent to the one caller that uses it: its calls go straight to the worker until another caller comes.

    To other callers the connection is busy with it; it is recalled as soon as another call waits for the connection.

    Args:
        number: grows with the calls of the pool; a worker refuses one that is lower than what it has seen.
        caller: the one that has it.
    """

    __slots__ = ("asking", "caller", "number", "recalled")

    def __init__(self, number: int, caller: Hashable) -> None:
        self.number = number
        self.caller = caller
        self.recalled = False
        self.asking: list[Gather] = []
        """Answers that wait for what was done in it."""


class Deadlines:
    """Calls by deadline. Those that are over stay until they come up or outnumber the others: O(1) amortised."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Call]] = []
        self._limit = 64

    def add(self, call: Call) -> None:
        """Watch a call that has a deadline."""
        assert call.deadline is not None
        if len(self._heap) > self._limit:
            self._heap = [entry for entry in self._heap if entry[2].waiting or entry[2].running]
            heapq.heapify(self._heap)
            self._limit = 2 * len(self._heap) + 64
        heapq.heappush(self._heap, (call.deadline, call.number, call))

    def due(self, now: float) -> list[Call]:
        """The calls with a passed deadline, waiting or running, removed."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            call = heapq.heappop(self._heap)[2]
            if call.waiting or call.running:
                due.append(call)
        return due

    def next(self) -> float | None:
        """The earliest deadline of a call that is not over."""
        while self._heap and not (self._heap[0][2].waiting or self._heap[0][2].running):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._heap)


class Meter:
    """How long calls of one method take on one connection."""

    __slots__ = ("count", "errors", "mean")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.errors = 0

    def add(self, took: float, failed: bool) -> None:
        """Count a call of `took` seconds. The mean is exact up to `MEMORY` calls; after that old ones fade."""
        self.count += 1
        self.mean += (took - self.mean) / min(self.count, MEMORY)
        self.errors += failed

    def merge(self, count: int, mean: float, errors: int) -> None:
        """Count calls that were measured elsewhere."""
        known = min(self.count, MEMORY)
        self.count += count
        self.mean += (mean - self.mean) * count / (known + count)
        self.errors += errors


class Connection:
    """One connection: settings, state, queue and figures. Its worker's process may be replaced; it remains."""

    __slots__ = (
        "add_until", "adding", "cause", "connected_at", "extra", "free_at", "held", "id", "in_row", "kill_at",
        "last_call", "last_caller", "meters", "penalties", "pid", "popped", "prompt", "proven", "queue", "resource",
        "restarts", "retry", "retry_at", "revive", "running", "sent", "spec", "state", "ttl", "worker",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        spec: Any,
        resource: Hashable,
        extra: Any,
        ttl: float | None,
        revive: bool | str,
        retry: Retry | Series,
        penalties: Sequence[float] | None = None,
    ) -> None:
        self.id = id
        self.spec = spec
        self.resource = resource
        self.extra = extra
        self.ttl = ttl
        self.revive = revive
        self.retry = retry
        self.penalties = penalties
        self.state = CLOSED
        self.worker: Worker | None = None
        self.pid: int | None = None
        self.restarts = 0
        self.adding: Any = None
        """The request that added it, while that is not answered; `add_until` is its deadline."""
        self.add_until = float("inf")
        self.popped: Gather | None = None
        self.cause: BaseException | None = None
        """Why it is not open."""
        self.meters: dict[str, Meter] = {}
        self.queue: OrderedDict[int, Call] = OrderedDict()
        self.running: Call | Loan | None = None
        self.sent: deque[Call] = deque()
        """What its worker has got already, to be run after `running`."""
        self.held = False
        """Its worker sends all that back; nothing more is sent until it has."""
        self.prompt = True
        """Its worker's answers have left it before it begins its next call, see `SharedPoolCore.worker_started`."""
        self.last_caller: Hashable = None
        self.in_row = 0
        """How many of the last calls were of the last caller."""
        self.connected_at: float | None = None
        self.last_call: float | None = None
        self.proven = False
        """It has answered a call since it connected: what ended it is no failure to connect."""
        self.free_at = 0.0
        self.kill_at: float | None = None
        """When its process is killed, unless the call that outlived its deadline is answered before."""
        self.retry_at = 0.0

    def move(self, to: State) -> None:
        """Put it into another state.

        Raises:
            IllegalMove: the table has no such move.
        """
        if to not in MOVES[self.state]:
            raise IllegalMove(f"connection {self.id}: {self.state.value} -> {to.value}")
        self.state = to

    @property
    def shown(self) -> str:
        """Its state, in a word."""
        return self.worker.state.value if self.state is CLOSED and self.worker is not None else self.state.value

    @property
    def rests(self) -> bool:
        """Whether it is closed, and to be opened again later."""
        return self.state is CLOSED and (self.worker is None or self.worker.state is DOWN)

    @property
    def serving(self) -> bool:
        """Whether it begins calls."""
        return self.state is LIVE or self.state is DRAINING

    @property
    def ahead(self) -> int:
        """How many calls a new one would wait for."""
        return len(self.queue) + len(self.sent) + isinstance(self.running, Call)

    def expired(self, now: float) -> bool:
        """Whether its time to live is over."""
        return self.ttl is not None and self.connected_at is not None and now >= self.connected_at + self.ttl

    def pause(self, now: float) -> float:
        """Seconds until it may begin its next call for other reasons than the calls ahead.

        A connection that is being interrupted counts with the time until its process is killed at the latest.
        """
        until = self.free_at if self.kill_at is None else max(self.free_at, self.kill_at)
        return until - now if until > now else 0.0

    def mean(self, method: str) -> float | None:
        """Seconds a call takes: of that method, else of the other methods together; None: nothing was measured."""
        meter = self.meters[method]
        if meter.count:
            return meter.mean
        count = sum(meter.count for meter in self.meters.values())
        return sum(meter.mean * meter.count for meter in self.meters.values()) / count if count else None

    def enqueue(self, call: Call) -> None:
        """Let a call wait; those that came to the pool earlier stay before it, wherever they waited until now."""
        late = bool(self.queue) and next(reversed(self.queue)) > call.number
        self.queue[call.number] = call
        if late:
            self.queue = OrderedDict(sorted(self.queue.items()))

    def quick(self, call: Call | Loan | None) -> bool:
        """Whether it is safe to have its worker begin another call after this one without being told."""
        if not isinstance(call, Call) or call.deadline is not None or not self.prompt:
            return False
        meter = self.meters[call.method]
        return meter.count >= SURE and meter.mean <= QUICK

    def advance(self, now: float) -> None:
        """What it ran is over: the worker goes on with what it has got."""
        self.kill_at = None
        self.running = self.sent.popleft() if self.sent else None
        if self.running is None:
            self.held = False
        else:
            self.running.started = now

    def take_running(self) -> list[Call | Loan]:
        """Take out what its worker has got: first what that ran, then what was sent ahead."""
        taken = [self.running, *self.sent] if self.running is not None else []
        self.running = self.kill_at = None
        self.held = False
        self.sent.clear()
        return taken

    def take_queue(self) -> list[Call]:
        """Take out all waiting calls, in order of arrival."""
        calls = list(self.queue.values())
        self.queue.clear()
        return calls

    def info(self, now: float, epoch: float) -> ConnInfo:
        """All about it; `epoch` is the Unix time at the monotonic time 0."""
        return ConnInfo(
            id=self.id,
            resource=self.resource,
            extra=self.extra,
            methods=tuple(self.meters),
            ttl=self.ttl,
            revive=self.revive,
            closed=self.state is not LIVE or self.expired(now),
            stats={name: MethodStats(meter.count, meter.mean, meter.errors) for name, meter in self.meters.items()},
            waiting=len(self.queue) + len(self.sent),
            cooldown=max(0.0, self.free_at - now),
            connected_at=None if self.connected_at is None else epoch + self.connected_at,
            last_call=None if self.last_call is None else epoch + self.last_call,
            pid=self.pid,
        )

    def __repr__(self) -> str:
        load = f"{len(self.queue)} waiting{', 1 running' if self.running else ''}"
        return f"<connection {self.id} to {self.resource!r} {self.shown}, {load}>"
