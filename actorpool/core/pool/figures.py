"""What a pool tells of itself. All figures are derived from the state of its parts; none are stored separately."""

from __future__ import annotations

from collections.abc import Hashable

from actorpool.core.pool.connector import Connector
from actorpool.core.pool.leases import Lease, Leases
from actorpool.core.pool.pool_state import PoolState
from actorpool.core.pool.queue import WaitingQueue
from actorpool.core.pool.sandbox import Sandboxes
from actorpool.core.pool.sessions import Sessions
from actorpool.core.pool.stats import Stats
from actorpool.core.pool.sticky import StickyLeases
from actorpool.core.workers import DOWN, IDLE, LEASED, OPENING, STARTING, Workers
from actorpool.status import LeaseInfo, PoolStatus, WorkerInfo


class Figures:
    """Reads the parts of a pool, and changes nothing but the settled counts of sticky leases."""

    def __init__(
        self,
        name: str,
        life: PoolState,
        workers: Workers,
        connector: Connector,
        queue: WaitingQueue,
        leases: Leases,
        sticky: StickyLeases,
        sessions: Sessions,
        sandboxes: Sandboxes,
        stats: Stats,
    ) -> None:
        self.name = name
        self._life = life
        self._workers = workers
        self._connector = connector
        self._queue = queue
        self._leases = leases
        self._sticky = sticky
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._stats = stats

    @property
    def overflow(self) -> int:
        """How many more than `size` are alive."""
        return max(0, self._workers.staying - self._life.size)

    @property
    def incoming(self) -> int:
        """How many workers will be idle soon, those included that come back from callers that do not use them."""
        return self._workers.incoming + len(self._sticky.returning)

    def state(self, now: float) -> str:
        """The pool's state in one word."""
        life, workers, unused = self._life, self._workers, self._sticky.unused
        out = len(self._leases) - unused
        if life.kept.draining or life.ending:
            return "draining"
        if life.kept.suspended:
            return "suspended"
        if self._connector.circuit.state(now) == "open":
            return "circuit_open"
        if workers.idle or unused or self._sessions.parked:
            return "ready"
        if self._connector.last_error is not None and (
            self._connector.permanently_failed or workers.count(DOWN, OPENING)
        ):
            return "degraded"
        if not life.started:
            return "starting"
        if life.size and not out and not len(self._queue):  # without base workers the next one is an overflow worker
            return "starting" if workers.count(STARTING, OPENING) else "ready"
        return "overflow" if self.overflow < life.max_overflow else "full"

    def settle(self) -> None:
        """Count the uses of sticky leases."""
        for lease in self._sticky.by_id.values():
            self._stats.settle(lease)

    def status(self, now: float) -> PoolStatus:
        """The pool at this moment."""
        self.settle()
        stats, unused = self._stats, self._sticky.unused
        return PoolStatus(
            name=self.name,
            state=self.state(now),
            size=self._life.size,
            overflow=self.overflow,
            workers=self._workers.count(IDLE) + unused + len(self._sessions.parked),
            waiting=len(self._queue),
            monitors=len(self._leases) - unused,
            total=len(self._workers),
            checkouts=stats.checkouts,
            checkins=stats.checkins,
            timeouts=stats.timeouts,
            shed=stats.shed,
            restarts=stats.restarts,
            reclaimed=stats.reclaimed,
            connect_errors=stats.connect_errors,
            wait_ms_p50=stats.waits.quantile(0.5) * 1e3,
            wait_ms_p99=stats.waits.quantile(0.99) * 1e3,
            hold_ms_p50=stats.holds.quantile(0.5) * 1e3,
            since=now - stats.began,
            max_overflow=self._life.max_overflow,
            oldest_wait=self._queue.oldest(now),
            oldest_lease=max((now - lease.used_since for lease in self._leases if not lease.unused), default=0.0),
            hold_ms_p99=stats.holds.quantile(0.99) * 1e3,
            parked=len(self._sessions.parked),
        )

    def worker_infos(self, pids: dict[int, int | None], now: float, wall: float) -> list[WorkerInfo]:
        """All workers; `pids` is the shell's knowledge, `wall` the Unix time at `now`."""
        self.settle()
        unused = self._sticky.unused_workers()
        return [
            WorkerInfo(
                id=worker.id,
                pid=pids.get(worker.id),
                state=(IDLE if worker.id in unused else worker.state).value,
                calls=worker.calls,
                restarts=worker.restarts,
                connected_at=None if worker.connected_at is None else wall - (now - worker.connected_at),
                overflow=worker.overflow,
            )
            for worker in self._workers
        ]

    def lease_infos(self, now: float) -> list[LeaseInfo]:
        """All leases that are out, oldest first, those within a sandbox last; holders tell `pid` and `host`."""
        return [
            LeaseInfo(
                id=lease.id,
                worker_id=lease.worker.id,
                caller_pid=getattr(lease.holder, "pid", 0),
                caller_host=getattr(lease.holder, "host", ""),
                age=now - lease.used_since,
            )
            for lease in (*self._leases, *self._sandboxes.turns.values())
            if not lease.unused
        ]

    def situation(self, now: float) -> str:
        """The numbers that explain a refusal, as one clause for its text."""
        life, busy, coming = self._life, self._workers.count(LEASED) - self._sticky.unused, self.incoming
        text = (
            f"size {life.size}, overflow {self.overflow} of {life.max_overflow}, {busy} busy, "
            + (f"{coming} not ready yet, " if coming else "")
            + f"{len(self._queue)} waiting"
        )
        oldest = self._leases.oldest_used()
        if oldest is not None:
            holder = oldest.holder
            text += (
                f"; the oldest lease is {oldest.id}, held for {now - oldest.used_since:.1f} s"
                f" by pid {getattr(holder, 'pid', '?')} on {getattr(holder, 'host', '?')}"
            )
        return text

    @property
    def wanted(self) -> int:
        """How many callers wait for any worker that may be given to them; not those for a key that is in use."""
        return self._queue.wanting(self._sessions.is_busy) if self._life.serving else 0

    @property
    def prompt(self) -> int:
        """How many workers are idle in truth, and come as soon as they were recalled or evicted."""
        return len(self._sticky.returning) + len(self._sessions.parked) + len(self._sessions.evicting)

    def parked(self, key: Hashable) -> int | None:
        """The worker that is parked under a key."""
        session = self._sessions.by_key.get(key)
        return None if session is None or session.parked_at is None else session.worker.id

    def leases_of(self, worker: int) -> list[Lease]:
        """What is out of a worker: its lease, and the turn in it if that is a sandbox."""
        return [lease for lease in (*self._leases, *self._sandboxes.turns.values()) if lease.worker.id == worker]

    @property
    def unused(self) -> list[int]:
        """The workers that are not in use now."""
        return [*self._workers.idle, *self._sticky.unused_workers()]
