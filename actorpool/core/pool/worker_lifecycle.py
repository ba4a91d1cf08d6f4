"""Worker processes and their connections: started, opened, checked, stopped, so that there are enough.

A *crash* is the death of a process that was not asked to end; more than `max_restarts` within `restart_period`, and the
pool fails to its supervisor. Failing to connect is no crash: see `connector`.

`refill` is the one place that decides which processes are started. What becomes of a worker that came back is decided
in `replacement`.
"""

from __future__ import annotations

from collections.abc import Callable

from actorpool.config import PoolConfig
from actorpool.core.effects import Check, Close, Revoke
from actorpool.core.machine import Effects, Intensity, TimerQueue
from actorpool.core.pool.connector import NEVER, Connector
from actorpool.core.pool.figures import Figures
from actorpool.core.pool.pool_state import PoolState
from actorpool.core.pool.recycle import Recycling
from actorpool.core.pool.refusals import Refusals
from actorpool.core.pool.sessions import Sessions
from actorpool.core.pool.stats import Stats
from actorpool.core.processes import Processes
from actorpool.core.workers import (
    CHECKING,
    DOWN,
    IDLE,
    NO_LEASE,
    OPENING,
    PARKED,
    REVOKING,
    Worker,
)


class WorkerLifecycle:
    """Mediates between what knows of processes and of connections. It knows of callers only how many wait.

    Args:
        config: the pool's settings.
        life, processes, connector, recycling, sessions, stats, figures, refusals: parts of the pool.
        timers: where to have oneself called later.
        effects: where to put what is to be done.
        on_trip: called with the time when the circuit breaker opens.
    """

    def __init__(
        self,
        config: PoolConfig,
        life: PoolState,
        processes: Processes,
        connector: Connector,
        recycling: Recycling,
        sessions: Sessions,
        stats: Stats,
        figures: Figures,
        refusals: Refusals,
        timers: TimerQueue,
        effects: Effects,
        on_trip: Callable[[float], None],
    ) -> None:
        self.config = config
        self.life = life
        self.processes = processes
        self.workers = processes.workers
        self.connector = connector
        self.recycling = recycling
        self.sessions = sessions
        self.stats = stats
        self.figures = figures
        self.refusals = refusals
        self.timers = timers
        self.intensity = Intensity(config.max_restarts, config.restart_period)
        self._effects = effects
        self._do, self._emit = effects.do, effects.emit
        self._on_trip = on_trip

    # -- processes -----------------------------------------------------------------------------------------

    @property
    def surplus(self) -> int:
        """How many workers there are above what is kept: `size`, and one more while processes are recycled."""
        return self.workers.staying - self.life.kept.size - self.recycling.surge

    @property
    def room(self) -> int:
        """How many overflow workers may be started now.

        None while some are down: starting more beside those that reconnect one by one would be the storm that the
        probe avoids.
        """
        if self.connector.down_cause is not None or self.workers.down:
            return 0
        return max(0, self.life.max_overflow - self.surplus)

    def refill(self, now: float, restarts: int = 0) -> None:
        """Start what is missing: base workers always, overflow workers for waiters that no worker returns for.

        A parked worker is evicted before an overflow worker is started.
        """
        if self.life.ending:
            return
        while self.surplus < 0:
            self.processes.start(now, restarts=restarts)
        waiting = self.figures.wanted
        missing = waiting - self.figures.incoming if waiting else 0
        while missing > 0 and self.sessions.parked:
            self.evict(next(iter(self.sessions.parked.values())).worker, "evicted", now)
            missing -= 1
        for _ in range(min(self.room, missing) if missing > 0 else 0):
            worker = self.processes.start(now, overflow=True)
            self._emit("pool.overflow", metadata=worker.named(), overflow=self.figures.overflow)

    def replace(self, worker: Worker, now: float) -> None:
        """Start another worker instead of this one, if one is missing without it."""
        before = self.workers.staying
        self.refill(now, worker.restarts + 1)
        if self.workers.staying > before:
            self.stats.restarts += 1
            self.processes.tell(worker, "worker.restarted")

    def stop(self, worker: Worker, now: float, interrupt: bool = False) -> None:
        """Ask a worker's process to end; it does not count as the pool's any more."""
        self.processes.stop(worker, now, interrupt)
        self.left(worker, now)

    def kill(self, worker: Worker, now: float) -> None:
        """End a worker that does not answer, and replace it."""
        self.processes.kill(worker)
        self.left(worker, now)
        self.replace(worker, now)

    def left(self, worker: Worker, now: float) -> None:
        """Let go of what depended on this worker, which has died or is to end."""
        self.recycling.gone(worker.id)
        self.sessions.was_reset(worker.id)
        self.sessions.end(worker, "died" if worker.id not in self.workers else "stopped")
        if worker.id == self.connector.probe_id:
            self.plan_reconnect(now)

    def dismiss_surplus(self, now: float) -> None:
        """Stop workers above `size` that are not in use."""
        unused = (self.workers.down, self.workers.idle, self.workers.by_state[PARKED])
        for worker in [worker for place in unused for worker in place.values()]:
            if self.surplus <= 0:
                break
            self.stop(worker, now)

    # -- a worker is not in use ----------------------------------------------------------------------------

    def watch_idle(self, worker: Worker) -> None:
        """Look at an idle worker when its time may be up; one timer at a time, however often it comes and goes."""
        if worker.state is not IDLE or (self.config.idle_timeout is None and self.surplus <= 0):
            return
        when = worker.idle_since + self.connector.idle_limit(worker, self.surplus > 0)
        if when < NEVER and (worker.timer is None or when < worker.timer):
            worker.timer = when
            self.timers.at(when, (self._idle_long, worker.id, when))

    def _idle_long(self, id: int, when: float, now: float) -> None:
        worker = self.workers.get(id)
        if worker is None or worker.timer != when:
            return
        worker.timer = None
        if worker.state is not IDLE:
            return
        if worker.idle_since + self.connector.idle_limit(worker, self.surplus > 0) > now:
            self.watch_idle(worker)
        elif self.surplus > 0:
            self.stop(worker, now)
        else:
            worker.connected_at = worker.expires = None
            self._do(Close(worker.id))

    def evict(self, worker: Worker, why: str, now: float) -> None:
        """Reset a worker that holds the state of a key, for other callers."""
        session = self.sessions.of_worker(worker)
        assert session is not None
        self.sessions.end(worker, why)
        if why == "evicted":
            self.sessions.evicting.add(worker.id)
        elif why == "overflow":
            self.sessions.surplus.add(worker.id)
        self.workers.move(worker, REVOKING)
        self._do(Revoke(worker.id, session.lease))
        self.await_reset(worker, session.lease, now)

    def session_expired(self, id: int, parked_at: float, now: float) -> None:
        """End a session that was parked for `session_idle`."""
        session = self.sessions.parked.get(id)
        if session is not None and session.parked_at == parked_at:
            self.evict(session.worker, "expired", now)

    # -- connecting ----------------------------------------------------------------------------------------

    def open(self, worker: Worker, now: float) -> None:
        """Have the worker connect."""
        if self.life.ending:
            self.stop(worker, now)
            return
        self.sessions.end(worker, "reconnected")
        self.processes.open(worker, now)
        self.timers.at(now + self.connector.open_limit, (self._open_hangs, worker.id, now))

    def _open_hangs(self, id: int, since: float, now: float) -> None:
        """Interrupt an `open()`; the worker says what came of it and then that no interrupt is on its way any more."""
        worker = self.workers.get(id, OPENING)
        if worker is not None and worker.last_heard == since:
            self._do(Revoke(id, NO_LEASE))
            self.await_reset(worker, NO_LEASE, now)

    def count_failure(self, worker: Worker, error: Exception, now: float) -> None:
        """A worker could not connect."""
        self.stats.connect_errors += 1
        self.resource_failed(worker, error, now)

    def plan_reconnect(self, now: float, retry_after: float | None = None) -> None:
        """See to it that one worker tries for all that are down; the others wait for its success."""
        current = self.workers.get(self.connector.probe_id, OPENING, DOWN)
        probe = self.connector.probe(current, next(iter(self.workers.down.values()), None))
        if probe is not None and probe.state is DOWN and probe.timer is None:
            self._retry_at(probe, now + (self.connector.delay() if retry_after is None else retry_after))

    def connected(self, worker: Worker, now: float) -> None:
        """The worker has connected: the outage, if there was one, is over."""
        self.resource_works(now)
        if self.connector.works():  # the others follow, spread out so that the resource is not knocked over again
            for number, other in enumerate(self.workers.down.values()):
                self._retry_at(other, now + self.connector.spread(number))
        self.recycling.connected_anew(worker.id)

    def _retry_at(self, worker: Worker, when: float) -> None:
        worker.timer = when
        self.timers.at(when, (self._reconnect, worker.id, when))

    def _reconnect(self, id: int, when: float, now: float) -> None:
        worker = self.workers.get(id, DOWN)
        if worker is None or worker.timer != when:
            return
        worker.timer = None
        if self.connector.permanently_failed:
            return
        if self.surplus > 0 and not self.figures.wanted:
            self.stop(worker, now)
        else:
            self.open(worker, now)
            self.refill(now)  # none was started as long as one was down

    def check_health(self, _key: None, _since: None, now: float) -> None:
        """Check every worker that was not heard of for `health_interval`, a few at a time."""
        if self.config.health_interval is not None and not self.life.ending:
            self.check_some(now)
            self.timers.at(now + self.config.health_interval, (self.check_health, None, None))

    def check_some(self, now: float) -> None:
        """Begin the checks that are due and may begin; the rest follow these."""
        interval, idle = self.config.health_interval, self.workers.idle
        if interval is None or self.life.ending:
            return
        due = [one for one in idle.values() if one.last_heard <= now - interval and one.connected_at is not None]
        room = self.connector.checks_now(len(idle), self.workers.count(CHECKING))
        for worker in due[: max(room, 0)]:
            self.workers.move(worker, CHECKING)
            self._do(Check(worker.id))
            self._expect_answer(worker, now, self.connector.check_limit)

    def await_reset(self, worker: Worker, lease: int, now: float) -> None:
        """An interrupt is on its way to the worker; it is killed unless it says in time that it was reset."""
        worker.revoked_lease = lease
        self._expect_answer(worker, now, self.config.kill_after)

    def _expect_answer(self, worker: Worker, now: float, within: float) -> None:
        worker.last_heard = now
        self.timers.at(now + within, (self._unanswered, worker.id, now))

    def _unanswered(self, id: int, since: float, now: float) -> None:
        """Kill a worker that has not answered in time."""
        worker = self.workers.get(id)
        if worker is None or worker.last_heard != since:
            return
        if worker.state is OPENING and worker.revoked_lease is not None:
            self.count_failure(worker, self.connector.hung(), now)
            self.kill(worker, now)
        elif worker.state in (CHECKING, REVOKING):
            self.kill(worker, now)

    def resource_works(self, now: float) -> None:
        """A connection works."""
        if self.connector.circuit.success(now):
            self._emit("breaker.closed")

    def resource_failed(self, worker: Worker, error: Exception, now: float) -> None:
        """A connection could not be opened, or was lost."""
        why = self.processes.failed(worker, error)
        if self.connector.circuit.failure(now):
            self._on_trip(now)
            self.connector.tripped_by = error
            self._emit("breaker.opened", metadata=why)
