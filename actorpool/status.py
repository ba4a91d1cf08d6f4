"""What a pool tells about itself: plain frozen values that travel in messages and to the screen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, field
from typing import Any

from actorpool._dataclass import dataclass


@dataclass(frozen=True)
class PoolStatus:
    """A pool at one moment; every figure is derived from what is really there.

    Attributes:
        name: the pool's name.
        state: `ready`, `overflow`, `full`, `starting`, `degraded`, `suspended`, `draining`, `circuit_open`.
        size: workers kept, as configured.
        overflow: how many more than `size` are alive.
        workers: idle and ready now.
        waiting: callers queued.
        monitors: leases out.
        total: worker processes alive.
        wait_ms_p50, wait_ms_p99, hold_ms_p50: milliseconds over the last 1000 leases.
        since: seconds since the pool started.
        max_overflow: overflow workers allowed, as configured.
        oldest_wait: how long the caller that waits longest has waited, seconds; 0.0 when none waits.
        oldest_lease: how long the oldest lease is in use, seconds; 0.0 when none is.
        hold_ms_p99: as `hold_ms_p50`.
        parked: idle workers that hold the state of a key.
    """

    name: str
    state: str
    size: int
    overflow: int
    workers: int
    waiting: int
    monitors: int
    total: int = 0
    checkouts: int = 0
    checkins: int = 0
    timeouts: int = 0
    shed: int = 0
    restarts: int = 0
    reclaimed: int = 0
    connect_errors: int = 0
    wait_ms_p50: float = 0.0
    wait_ms_p99: float = 0.0
    hold_ms_p50: float = 0.0
    since: float = 0.0
    max_overflow: int = 0
    oldest_wait: float = 0.0
    oldest_lease: float = 0.0
    hold_ms_p99: float = 0.0
    parked: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The figures as a plain dict, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class WorkerInfo:
    """One worker process.

    `connected_at` is a Unix time or None; `overflow`: started above `size`; `host`: the name of its host in a cluster.
    """

    id: int
    pid: int | None
    state: str
    calls: int
    restarts: int
    connected_at: float | None
    overflow: bool
    host: str = ""


@dataclass(frozen=True)
class LeaseInfo:
    """One lease that is out.

    Attributes:
        id, worker_id: its number, and that of its worker.
        caller_pid, caller_host: the holder's process.
        age: seconds.
        program: what the holder runs: a script, a module or an executable; "" if that is not known.
        function: the name of the function or method that runs now; None between calls, or if that is not known.
    """

    id: int
    worker_id: int
    caller_pid: int
    caller_host: str
    age: float
    program: str = ""
    function: str | None = None


@dataclass(frozen=True)
class SessionInfo:
    """The state of one key, in one worker.

    Attributes:
        key: what its leases are asked for by.
        worker_id, pid: the worker that holds it.
        busy: a caller has it now.
        calls: how many leases it had.
        age: seconds since it began.
        idle: seconds since it was given back; 0.0 while it is in use.
    """

    key: Hashable
    worker_id: int
    pid: int | None
    busy: bool
    calls: int
    age: float
    idle: float


@dataclass(frozen=True)
class MethodStats:
    """What one connection of a shared pool knows of one method.

    Attributes:
        count: calls that were answered.
        mean: seconds a call takes, weighing the last hundred or so.
        errors: how many of `count` were answered by an exception.
    """

    count: int = 0
    mean: float = 0.0
    errors: int = 0


@dataclass(frozen=True)
class ConnInfo:
    """One connection of a shared pool at one moment.

    Attributes:
        id: names the connection for `info`, `extra` and `pop`; kept when it is revived.
        resource: what it is connected to.
        extra: whatever its owner attached to it, for `where`.
        methods: what can be called, in order of definition.
        ttl: seconds from connecting until it expires; None: never.
        revive: False, True or `"force"`.
        closed: it takes no calls now: it is opening, waits to be opened again, or is on its way out.
        stats: `MethodStats` of every method.
        waiting: calls in its queue, without the one that runs.
        cooldown: seconds until it takes the next call.
        connected_at, last_call: Unix times of its last connecting and of the end of its last call, or None.
        pid: its worker's process, or None.
    """

    id: int
    resource: Hashable
    extra: Any
    methods: tuple[str, ...]
    ttl: float | None
    revive: bool | str
    closed: bool
    stats: Mapping[str, MethodStats]
    waiting: int
    cooldown: float
    connected_at: float | None
    last_call: float | None
    pid: int | None


@dataclass(frozen=True)
class Sample:
    """One sample of a pool. `time` is a Unix time, `wait_ms_*` and `hold_ms_p99` milliseconds, `oldest_*` seconds."""

    time: float
    leases: int
    waiting: int
    total: int
    wait_ms_p50: float
    wait_ms_p99: float
    sessions: int | None = None
    oldest_wait: float = 0.0
    oldest_lease: float = 0.0
    hold_ms_p99: float = 0.0
    parked: int = 0


@dataclass(frozen=True)
class PoolMetrics:
    """The last 100 samples of a pool; minimum, maximum and average are over leases out."""

    samples: tuple[Sample, ...]
    minimum: int
    maximum: int
    average: float


@dataclass(frozen=True)
class ChildInfo:
    """One child of a supervisor.

    Attributes:
        id: as in its spec; None for a child of `simple_one_for_one`.
        address, pid: None while it does not run (pid: also where actors have no process of their own).
        type: `"worker"` or `"supervisor"`.
        state: `"running"`, `"restarting"`, `"stopped"`; in the pool manager also `"failed"`.
        restarts: how often it was started again.
    """

    id: Any
    address: Any
    pid: int | None
    type: str
    state: str
    restarts: int


@dataclass(frozen=True)
class Counts:
    """Children of a supervisor: registered, running, and how many of the registered are of each type."""

    specs: int
    active: int
    supervisors: int
    workers: int


@dataclass(frozen=True)
class TreeNode:
    """A node of the supervision tree; `str(tree)` draws it.

    Attributes:
        id: as in its spec, or a worker's number.
        kind: `"supervisor"`, `"pool"`, `"worker"` or `"actor"`.
        pid: None while it does not run, or where actors have no process of their own.
        state: what it is doing.
        restarts: how often it was started again.
        children: what is below it, in the order of start.
        since: Unix time since when it runs; None while it does not.
        strategy: of a supervisor.
        restarts_used, restarts_limit, restarts_period: of a supervisor or a pool: so many restarts of what is below it
            count at the moment, out of so many within so many seconds; the supervisor of pools counts for each pool.
        last_end: how what was there before has ended, with the time: an exit status, a signal, or a reason. Of a pool,
            it is the last end of a worker unless the pool itself has ended. None: nothing has.
        output: the last 20 lines that it wrote to its standard error; of a native crash the first 20 of the stack.
    """

    id: str
    kind: str
    pid: int | None
    state: str
    restarts: int = 0
    children: tuple[TreeNode, ...] = field(default=())
    since: float | None = None
    strategy: str | None = None
    restarts_used: int | None = None
    restarts_limit: int | None = None
    restarts_period: float | None = None
    last_end: str | None = None
    output: str = ""

    def __str__(self) -> str:
        return "\n".join(self._lines("", ""))

    def _lines(self, first: str, rest: str) -> list[str]:
        process = f" pid {self.pid}" if self.pid else ""
        restarts = f", {self.restarts} restart(s)" if self.restarts else ""
        lines = [f"{first}{self.kind} {self.id}{process} [{self.state}{restarts}]"]
        for child in self.children:
            last = child is self.children[-1]
            lines += child._lines(rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
        return lines


_SUMMED = ("queries_executed", "cache_hits", "cache_misses", "connections_created", "errors", "cache_size")


def sum_stats(told: Mapping[int, Any], status: PoolStatus) -> dict[str, Any]:
    """The figures of `Pool.database_stats`.

    Args:
        told: each worker's `stats()`, by worker id; None of a worker that has no such method.
        status: of the pool.
    """
    known = [stats for stats in told.values() if stats is not None]
    return {
        **{name: sum(stats.get(name, 0) for stats in known) for name in _SUMMED},
        "available": status.workers,
        "size": status.size,
        "uptime": status.since,
        "missing": max(status.total - len(told), 0),
    }
