"""The state of a pool and its figures: what there is, and how it is told. Decides nothing.

`PoolCore` is built in layers, each on the one before: `Ledger` (state, figures) <- `Workforce` (worker processes) <-
`Connector` (their connections) <- `Sandboxes` (leases that several use) <- `StickyLeases` (leases that stay with their
callers) <- `LeaseLimits` (how long things may take) <- `Leases` (callers) <- `PoolCore` (operations and time).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from actorpool.config import PoolConfig
from actorpool.core.effects import Keep
from actorpool.core.machine import Backoff, Intensity, Quantiles, Retry, StateMachine, TimerQueue
from actorpool.core.pool.breaker import Circuit
from actorpool.core.pool.queue import WaitingQueue
from actorpool.core.pool.usage import StickyUsage, UsageReader
from actorpool.core.pool.workers import DOWN, IDLE, LEASED, NOBODY, OPENING, STARTING, STOPPING, Worker, Workers
from actorpool.status import LeaseInfo, PoolStatus, WorkerInfo

if TYPE_CHECKING:
    from actorpool.core.pool.sandbox import Sandbox

KEPT = 1000
"""How many waits and holds the quantiles are made of."""


class Lease:
    """A worker in somebody's hands.

    Attributes:
        standing: set where the lease stays with its holder between two uses (see `standing`).
    """

    __slots__ = ("holder", "id", "leaked", "ref", "sandbox", "since", "stack", "standing", "trial", "worker")

    def __init__(self, id: int, worker: Worker, holder: Hashable, ref: Any, since: float, stack: str | None) -> None:
        self.id = id
        self.worker = worker
        self.holder = holder
        self.ref = ref
        self.since = since
        self.stack = stack
        self.leaked = False
        self.trial = False
        self.sandbox: Sandbox | None = None
        self.standing: StickyUsage | None = None

    @property
    def rests(self) -> bool:
        """Whether it stays with its holder, who does not use it now."""
        return self.standing is not None and self.standing.rests

    @property
    def used_since(self) -> float:
        """Since when it is in use."""
        return self.since if self.standing is None else self.standing.since(self.since)


class Ledger(StateMachine):
    """Everything a pool knows; every figure is counted from it, never kept beside it.

    Args:
        name: the pool's name, for texts.
        config: the settings; `size` here, since "auto" is resolved by the shell.
        now: monotonic seconds.
        random: a source of numbers in [0, 1), for jitter.
        first_id: the first worker id; ids grow from there and are never used twice.
        kept: the last `Keep` of a predecessor that crashed; it counts instead of `size` and of the settings.
        tally: where a worker counts its uses, by its id; None where no lease of it can stand.
    """

    def __init__(
        self,
        name: str,
        config: PoolConfig,
        size: int,
        now: float,
        random: Callable[[], float],
        first_id: int = 1,
        kept: Keep | None = None,
        counters: Callable[[int], UsageReader | None] = lambda _worker: None,
    ) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.kept = kept or Keep(size, config.max_overflow, suspended=False, draining=False)
        self.size, self.max_overflow, self.suspended, self.draining = self.kept
        self.random = random
        self.counters = counters
        self.began = now
        self.fleet = Workers()
        self.queue = WaitingQueue(config.queue_target, config.queue_interval)
        self.leases: dict[int, Lease] = {}
        self.standing: dict[int, Lease] = {}  # those of the leases that stay with their holders
        self.returning: set[int] = set()  # those of them that were recalled while nobody used them
        self.held: dict[Hashable, set[int]] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        self.turns: dict[int, Lease] = {}
        self.guests: dict[Hashable, Sandbox] = {}
        self.closers: list[tuple[int, Any]] = []
        self.timers = TimerQueue()
        self.lease_timers = TimerQueue()
        self.retry = Retry(Backoff(config.backoff_min, config.backoff_max))
        self.intensity = Intensity(config.max_restarts, config.restart_period)
        self.circuit = Circuit(config.breaker)
        self.started = False
        self.failed: Exception | None = None
        self.drainers: list[Any] = []
        self.stopping = False
        self.stoppers: list[Any] = []
        self.ending = False  # stopping, or failed: nobody is hired or served any more
        self.down_cause: Exception | None = None  # why the last attempt to connect failed
        self.loss: Exception | None = None  # why the last connection was lost, until one works again
        self.tripped_by: Exception | None = None  # the failure that opened the circuit last
        self.permanently_failed = False
        self.recyclers: list[Any] = []
        self.observed = False
        self.checkouts = self.checkins = self.timeouts = self.shed = 0
        self.restarts = self.reclaimed = self.connect_errors = 0
        self.waits = Quantiles(KEPT)
        self.holds = Quantiles(KEPT)
        self._probe_id = NOBODY  # tries to reconnect on behalf of all that are down
        self._to_recycle: set[int] = set()  # to be replaced by `recycle`
        self._by_restart = False  # their processes, not only their connections
        self._recycle_surge = 0  # how many are kept beyond `size` meanwhile
        self._reopening = NOBODY  # whose connection was opened anew last
        self._worker_ids = itertools.count(first_id)
        self._lease_ids = itertools.count(1)

    # -- figures ------------------------------------------------------------------------------------------

    @property
    def overflow(self) -> int:
        """How many more than `size` are alive."""
        return max(0, self.fleet.staying - self.size)

    @property
    def serving(self) -> bool:
        """Whether newcomers and waiters may be given workers now."""
        return not (self.suspended or self.draining or self.ending)

    @property
    def incoming(self) -> int:
        """Workers that will be idle soon, those included that come back from callers who do not use them."""
        return self.fleet.incoming + len(self.returning)

    @property
    def last_error(self) -> Exception | None:
        """What keeps workers from having connections; None while nothing is known to."""
        return self.down_cause or self.loss

    def state(self, now: float) -> str:
        """The pool's state in one word."""
        if self.draining or self.ending:
            return "draining"
        if self.suspended:
            return "suspended"
        if self.circuit.state(now) == "open":
            return "circuit_open"
        fleet = self.fleet
        out = len(self.leases) - self._resting
        if fleet.idle or out < len(self.leases):
            return "ready"
        if self.last_error is not None and (self.permanently_failed or fleet.count(DOWN, OPENING)):
            return "degraded"
        if not self.started:
            return "starting"
        if self.size and not out and not len(self.queue):  # without base workers the next one is an overflow worker
            return "starting" if fleet.count(STARTING, OPENING) else "ready"
        return "overflow" if self.overflow < self.max_overflow else "full"

    def status(self, now: float) -> PoolStatus:
        """The pool at this moment."""
        self._settle_all()
        resting = self._resting
        return PoolStatus(
            name=self.name,
            state=self.state(now),
            size=self.size,
            overflow=self.overflow,
            workers=self.fleet.count(IDLE) + resting,
            waiting=len(self.queue),
            monitors=len(self.leases) - resting,
            total=len(self.fleet),
            checkouts=self.checkouts,
            checkins=self.checkins,
            timeouts=self.timeouts,
            shed=self.shed,
            restarts=self.restarts,
            reclaimed=self.reclaimed,
            connect_errors=self.connect_errors,
            wait_ms_p50=self.waits.quantile(0.5) * 1e3,
            wait_ms_p99=self.waits.quantile(0.99) * 1e3,
            hold_ms_p50=self.holds.quantile(0.5) * 1e3,
            since=now - self.began,
            max_overflow=self.max_overflow,
        )

    def worker_infos(self, pids: dict[int, int | None], now: float, wall: float) -> list[WorkerInfo]:
        """All workers; `pids` is the shell's knowledge, `wall` the Unix time at `now`."""
        self._settle_all()
        resting = {lease.worker.id for lease in self.standing.values() if lease.rests}
        return [
            WorkerInfo(
                id=worker.id,
                pid=pids.get(worker.id),
                state=(IDLE if worker.id in resting else worker.state).value,
                calls=worker.calls,
                restarts=worker.restarts,
                connected_at=None if worker.connected_at is None else wall - (now - worker.connected_at),
                overflow=worker.overflow,
            )
            for worker in self.fleet
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
            for lease in (*self.leases.values(), *self.turns.values())
            if not lease.rests
        ]

    # -- sticky leases ------------------------------------------------------------------------------------

    @property
    def unused(self) -> list[int]:
        """The workers that nobody uses now."""
        return [*self.fleet.idle, *(lease.worker.id for lease in self.standing.values() if lease.rests)]

    @property
    def _resting(self) -> int:
        """How many leases stay with a caller who does not use them now."""
        return sum(lease.rests for lease in self.standing.values())

    def _settle_all(self) -> None:
        for lease in self.standing.values():
            self._settle(lease)

    def _settle(self, lease: Lease) -> None:
        """Count the uses of a sticky lease since the last time."""
        standing = lease.standing
        assert standing is not None
        begun, ended = standing.news()
        self.checkouts += begun
        self.checkins += ended
        lease.worker.calls += begun
        for _ in range(min(begun, KEPT)):
            self.waits.add(0.0)
        for hold in standing.counters.holds(ended):
            self.holds.add(hold)

    def lease(self, id: int) -> Lease | None:
        """The lease of that id, or the turn in a sandbox, if it is out."""
        return self.leases.get(id) or self.turns.get(id)

    def leases_of(self, worker: int) -> list[Lease]:
        """What is out of a worker: its lease, and the turn in it if that is a sandbox."""
        return [lease for lease in (*self.leases.values(), *self.turns.values()) if lease.worker.id == worker]

    def situation(self, now: float) -> str:
        """The numbers that explain a refusal, as one clause for its text."""
        busy, coming = self.fleet.count(LEASED) - self._resting, self.incoming
        text = (
            f"size {self.size}, overflow {self.overflow} of {self.max_overflow}, {busy} busy, "
            + (f"{coming} not ready yet, " if coming else "")
            + f"{len(self.queue)} waiting"
        )
        oldest = next((lease for lease in self.leases.values() if not lease.rests), None)
        if oldest is not None:
            holder = oldest.holder
            text += (
                f"; the oldest lease is {oldest.id}, held for {now - oldest.used_since:.1f} s"
                f" by pid {getattr(holder, 'pid', '?')} on {getattr(holder, 'host', '?')}"
            )
        return text

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests: it looks at everything."""
        placed = [worker for place in self.fleet.places.values() for worker in place.values()]
        assert len(placed) == len(self.fleet) == len({worker.id for worker in placed}), "a worker is in two places"
        for state, place in self.fleet.places.items():
            assert all(worker.state is state for worker in place.values()), f"{state} holds a stranger"
        leased = {worker.id for worker in placed if worker.lease is not None}
        assert leased == set(self.fleet.places[LEASED]), "leased workers and LEASED differ"
        assert len(self.leases) == len(leased), "leases and leased workers differ"
        for lease in self.leases.values():
            assert lease.worker.lease == lease.id, "a worker has two leases"
            assert lease.id in self.held[lease.holder], "a lease is not on its holder's list"
        assert sum(map(len, self.held.values())) == len(self.leases), "a holder's list has a lease that ended"
        assert set(self.standing) == {lease.id for lease in self.leases.values() if lease.standing is not None}
        recalled = {lease.id for lease in self.standing.values() if lease.standing and lease.standing.recalled}
        assert self.returning <= recalled, "it comes back, and nobody has called it"
        assert not len(self.queue) or len(recalled) == len(self.standing), "somebody waits, and a lease stays out"
        assert all(box.lease.sandbox is box and box.lease.id in self.leases for box in self.sandboxes.values())
        assert sorted(self.turns) == sorted(box.turn.id for box in self.sandboxes.values() if box.turn is not None)
        assert all(box.turn or not len(box.queue) for box in self.sandboxes.values()), "one waits though it is free"
        assert set(self.guests.values()) <= set(self.sandboxes.values()), "a guest of a sandbox that is over"
        if self.serving:
            assert not (self.fleet.idle and len(self.queue)), "a waiter waits while a worker is idle"
        assert self.fleet.count(STOPPING) == len(self.fleet) - self.fleet.staying
        assert not self.ending or not len(self.queue), "somebody waits for a pool that ends"
        assert self._to_recycle or not self._recycle_surge, "a spare for nothing"
        assert self._to_recycle or self.fleet.places[STOPPING] or not self.recyclers, "recycled, and nobody told"
        assert all(self.fleet.workers[id].state is not STOPPING for id in self._to_recycle), "recycled, and still to be"
        if not self.ending:
            self._check_hiring()

    def _check_hiring(self) -> None:
        fleet = self.fleet
        surplus = fleet.staying - self.size - self._recycle_surge
        down = fleet.places[DOWN].values()
        trying = fleet.count(OPENING) or any(worker.timer is not None for worker in down)
        assert surplus >= 0, "a base worker is missing"
        assert self.permanently_failed or not down or trying, "some are down, and nobody will try again"
        assert self.permanently_failed or self.down_cause is None or trying, "an outage that nobody looks into"
        probe = fleet.workers.get(self._probe_id)
        assert (self._probe_id == NOBODY) == (probe is None), "the probe is gone"
        assert probe is None or (self.down_cause and probe.state in (DOWN, OPENING)), "a probe for nothing"
        for worker in fleet.idle.values():
            limits = [self.config.overflow_ttl] if surplus > 0 else []
            limits += [self.config.idle_timeout] if self.config.idle_timeout and worker.connected_at else []
            when = worker.idle_since + min(limits, default=float("inf"))
            assert not limits or (worker.timer is not None and worker.timer <= when), "idle, and nobody will look"
        if self.serving and self.down_cause is None and not down:
            enough = surplus >= self.max_overflow or len(self.queue) <= self.incoming
            assert enough, "somebody waits, and nobody is hired"
