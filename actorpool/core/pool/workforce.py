"""Worker processes: starting, losing, replacing, ending them.

A *crash* is the death of a process that nobody asked to end; more than `max_restarts` within `restart_period`, and the
pool fails to its supervisor. Failing to connect is no crash: see `connecting`.
"""

from __future__ import annotations

from actorpool.core.effects import Fail, Kill, Ready, Start, Stop, Stopped
from actorpool.core.machine import step
from actorpool.core.pool.ledger import Ledger
from actorpool.core.pool.workers import DOWN, OPENING, STARTING, STOPPING, Worker
from actorpool.errors import RestartIntensityExceeded

DIED = "worker died"


class Workforce(Ledger):
    """The layer that hires and dismisses."""

    # -- starting -----------------------------------------------------------------------------------------

    @property
    def _surplus(self) -> int:
        """How many workers there are above what is to be kept: `size`, and one more while processes are recycled."""
        return self.fleet.staying - self.size - self._recycle_surge

    @property
    def _room(self) -> int:
        """How many overflow workers may be hired now.

        None while some are down: hiring beside those who reconnect one by one would be the storm that this avoids.
        """
        if self.down_cause is not None or self.fleet.places[DOWN]:
            return 0
        return max(0, self.max_overflow - self._surplus)

    def _start(self, now: float, restarts: int = 0) -> Worker:
        worker = Worker(next(self._worker_ids), self._surplus >= 0, restarts)
        worker.idle_since = worker.seen = now
        self.fleet.add(worker)
        self._do(Start(worker.id))
        return worker

    def _fill(self, now: float, restarts: int = 0) -> None:
        """Start what is missing: base workers always, overflow workers for waiters nobody comes back for."""
        if self.ending:
            return
        while self._surplus < 0:
            self._start(now, restarts)
        if not self.serving:
            return
        for _ in range(min(self._room, len(self.queue) - self.incoming)):
            worker = self._start(now)
            self._emit("pool.overflow", metadata={"worker": worker.id}, overflow=self.overflow)

    @step
    def worker_started(self, now: float, id: int) -> None:
        """The worker's process is up and its `__init__` has run."""
        worker = self.fleet.workers.get(id)
        if worker is not None and worker.state is STARTING:
            self._emit("worker.started", metadata={"worker": id})
            self._open(worker, now)

    @step
    def start_failed(self, now: float, id: int, error: Exception) -> None:
        """The worker's `__init__` raised, and its process ends.

        When the pool starts, its settings are wrong, and a second try would be the same. Later, with settings that
        were right before, its death is a crash like any other.
        """
        if not self.started:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End with an error, once. Nobody is served or hired after it; the shell ends what is there."""
        if self.ending:
            return
        self.failed = error
        self.ending = True
        self._turn_away()
        self._do(Fail(error))

    def _check_started(self) -> None:
        if self.started or self.ending or self.fleet.count(STARTING, OPENING):
            return
        self.started = True
        self._do(Ready(degraded=self.down_cause is not None))

    # -- ending -------------------------------------------------------------------------------------------

    @step
    def died(self, now: float, id: int, reason: str = "killed") -> None:
        """The worker's process is gone, whatever the reason. A second notice of the same death is nothing."""
        worker = self.fleet.workers.get(id)
        if worker is None:
            return
        if worker.lease is not None:
            self._end_lease(worker.lease, now, DIED)
        self.fleet.remove(worker)
        if worker.state is not STOPPING:
            self._emit("worker.died", metadata={"worker": id, "reason": reason})
            self._left(worker, now)
            self._crashed(worker, now, reason)
        self._recycle_next(now)
        self._check_drained()
        self._check_started()
        if self.stopping and not len(self.fleet):
            self._do(Stopped())

    def _crashed(self, worker: Worker, now: float, reason: str) -> None:
        if self.intensity.add(now):
            self._replace(worker, now)
            return
        limit, period = self.config.max_restarts, self.config.restart_period
        self._fail(
            RestartIntensityExceeded(
                f"pool {self.name!r}: more than {limit} worker crashes within {period:g} s, the last: {reason}; "
                "find out why workers die (node.log says how each ended) or raise max_restarts",
                pool=self.name,
            )
        )

    def _replace(self, worker: Worker, now: float) -> None:
        """Start another worker instead of this one, if one is missing without it."""
        before = self.fleet.staying
        self._fill(now, worker.restarts + 1)
        if self.fleet.staying > before:
            self.restarts += 1
            self._emit("worker.restarted", metadata={"worker": worker.id})

    def _stop(self, worker: Worker, now: float, interrupt: bool = False) -> None:
        """Ask a worker's process to end; it does not count as the pool's any more."""
        interrupt = interrupt or worker.state is OPENING
        self.fleet.move(worker, STOPPING)
        self._left(worker, now)
        self._do(Stop(worker.id, interrupt))
        self.timers.at(now + self.config.kill_after, (self._kill_if_there, worker.id, None))

    def _kill_if_there(self, id: int, _since: None, now: float) -> None:
        if id in self.fleet:
            self._do(Kill(id))

    def _kill(self, worker: Worker, now: float) -> None:
        """End a worker that does not answer. No crash: it was us. Nothing that it still says counts."""
        self.fleet.move(worker, STOPPING)
        self._left(worker, now)
        self._do(Kill(worker.id))
        self._replace(worker, now)

    def _dismiss_surplus(self, now: float) -> None:
        """Stop workers above `size` that nobody uses."""
        for worker in (*self.fleet.places[DOWN].values(), *self.fleet.idle.values()):
            if self._surplus <= 0:
                break
            self._stop(worker, now)

    # -- what the layers above decide -----------------------------------------------------------------------

    def _open(self, worker: Worker, now: float) -> None:
        raise NotImplementedError

    def _left(self, worker: Worker, now: float) -> None:
        raise NotImplementedError

    def _end_lease(self, id: int, now: float, why: str | None = None) -> None:
        raise NotImplementedError

    def _turn_away(self) -> None:
        raise NotImplementedError

    def _recycle_next(self, now: float) -> None:
        raise NotImplementedError

    def _check_drained(self) -> None:
        raise NotImplementedError
