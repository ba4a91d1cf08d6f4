"""Worker processes and their connections: started, opened, checked, replaced, stopped, so that there are enough.

A *crash* is the death of a process that was not asked to end; more than `max_restarts` within `restart_period`, and the
pool fails to its supervisor. Failing to connect is no crash: see `connector`.

Two methods decide what everything else leads to: `take_in` (what becomes of a worker that came back) and `refill`
(which processes are started). It is longer than other modules because it says in one place how its parts play together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actorpool.config import PoolConfig
from actorpool.core.effects import Answer, Check, Close, Kill, Open, Revoke, Start, Stop
from actorpool.core.machine import Effects, Intensity, TimerQueue
from actorpool.core.pool.connector import NEVER, Connector
from actorpool.core.pool.figures import Figures
from actorpool.core.pool.pool_state import PoolState
from actorpool.core.pool.recycle import Recycling
from actorpool.core.pool.refusals import Refusals
from actorpool.core.pool.sessions import Sessions
from actorpool.core.pool.stats import Stats
from actorpool.core.pool.workers import (
    CHECKING,
    DOWN,
    IDLE,
    NO_LEASE,
    OPENING,
    PARKED,
    REVOKING,
    STARTING,
    STOPPING,
    Worker,
    Workers,
)
from actorpool.serialization.exceptions import description_of, name_of


class WorkerLifecycle:
    """Mediates between what knows of processes and of connections. It knows of callers only how many wait.

    Args:
        config: the pool's settings.
        life, workers, connector, recycling, sessions, stats, figures, refusals: parts of the pool.
        timers: where to have oneself called later.
        effects: where to put what is to be done.
        on_trip: called with the time when the circuit breaker opens.
    """

    def __init__(
        self,
        config: PoolConfig,
        life: PoolState,
        workers: Workers,
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
        self.workers = workers
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

    def _start(self, now: float, restarts: int = 0) -> Worker:
        worker = self.workers.hire(now, self.surplus >= 0, restarts)
        self._do(Start(worker.id))
        return worker

    def refill(self, now: float, restarts: int = 0) -> None:
        """Start what is missing: base workers always, overflow workers for waiters that no worker returns for.

        A parked worker is evicted before an overflow worker is started.
        """
        if self.life.ending:
            return
        while self.surplus < 0:
            self._start(now, restarts)
        waiting = self.figures.wanted
        missing = waiting - self.figures.incoming if waiting else 0
        while missing > 0 and self.sessions.parked:
            self.evict(next(iter(self.sessions.parked.values())).worker, "evicted", now)
            missing -= 1
        for _ in range(min(self.room, missing) if missing > 0 else 0):
            worker = self._start(now)
            self._emit("pool.overflow", metadata={"worker": worker.id}, overflow=self.figures.overflow)

    def replace(self, worker: Worker, now: float) -> None:
        """Start another worker instead of this one, if one is missing without it."""
        before = self.workers.staying
        self.refill(now, worker.restarts + 1)
        if self.workers.staying > before:
            self.stats.restarts += 1
            self._emit("worker.restarted", metadata={"worker": worker.id})

    def stop(self, worker: Worker, now: float, interrupt: bool = False) -> None:
        """Ask a worker's process to end; it does not count as the pool's any more."""
        interrupt = interrupt or worker.state is OPENING
        self.workers.move(worker, STOPPING)
        self.left(worker, now)
        self._do(Stop(worker.id, interrupt))
        self.timers.at(now + self.config.kill_after, (self._kill_if_there, worker.id, None))

    def _kill_if_there(self, id: int, _since: None, now: float) -> None:
        if id in self.workers:
            self._do(Kill(id))

    def kill(self, worker: Worker, now: float) -> None:
        """End a worker that does not answer. No crash: it was us. Nothing that it still says counts."""
        self.workers.move(worker, STOPPING)
        self.left(worker, now)
        self._do(Kill(worker.id))
        self.replace(worker, now)

    def left(self, worker: Worker, now: float) -> None:
        """Let go of what depended on this worker, which has died or is to end."""
        self.recycling.gone(worker.id)
        self.sessions.evicting.discard(worker.id)
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

    # -- a worker comes back -------------------------------------------------------------------------------

    def take_in(self, worker: Worker, now: float, since: float | None = None) -> bool:
        """The one place that says what becomes of a worker that came back.

        Args:
            worker: it is not in use any more.
            now: monotonic seconds.
            since: it was not used since then (None: until now).

        Returns:
            Whether it is idle now, to be matched with a waiter; then `watch_idle` is due.
        """
        surplus = self.surplus
        if self.life.ending or (surplus > 0 and self._is_too_many(surplus)):
            self.stop(worker, now)
        elif worker.id in self.recycling.to_recycle and self._recycle(worker, now):
            pass
        elif worker.broken:
            self.open(worker, now)
        elif worker.expires is not None and now >= worker.expires:
            self.renew(worker, now)
        else:
            moment = now if since is None else since
            if worker.state is not CHECKING:  # to be checked is no use
                worker.idle_since = moment
            worker.last_heard = moment
            self.workers.move(worker, IDLE)
            return True
        return False

    def _is_too_many(self, surplus: int) -> bool:
        """Whether a worker above `size` goes: always when a resize left more than allowed, else when none waits."""
        return surplus > self.life.max_overflow or (self.config.overflow_ttl <= 0 and not self.figures.wanted)

    def renew(self, worker: Worker, now: float) -> None:
        """Replace the process of a worker at the end of its lifetime."""
        self.stop(worker, now)
        self.refill(now, worker.restarts)

    def evict(self, worker: Worker, why: str, now: float) -> None:
        """Reset a worker that holds the state of a key, for other callers."""
        session = self.sessions.of_worker(worker)
        assert session is not None
        self.sessions.end(worker, why)
        if why == "evicted":
            self.sessions.evicting.add(worker.id)
        self.workers.move(worker, REVOKING)
        self._do(Revoke(worker.id, session.lease))
        self.await_reset(worker, session.lease, now)

    def session_expired(self, id: int, parked_at: float, now: float) -> None:
        """End a session that was parked for `session_idle`."""
        session = self.sessions.parked.get(id)
        if session is not None and session.parked_at == parked_at:
            self.evict(session.worker, "expired", now)

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

    # -- connecting ----------------------------------------------------------------------------------------

    def open(self, worker: Worker, now: float) -> None:
        """Have the worker connect."""
        if self.life.ending:
            self.stop(worker, now)
            return
        self.sessions.end(worker, "reconnected")
        self.workers.move(worker, OPENING)
        worker.disconnected(now)
        self._do(Open(worker.id))
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
        told = {"worker": worker.id, "error": name_of(error), "reason": description_of(error)}
        self._emit("worker.connect_error", metadata=told)
        if self.connector.circuit.failure(now):
            self._on_trip(now)
            self.connector.tripped_by = error
            self._emit("breaker.opened", metadata={"error": told["error"], "reason": told["reason"]})

    # -- rolling replacement -------------------------------------------------------------------------------

    def recycle(self, now: float, ref: Any, timeout: float | None = None, restart: bool = False) -> None:
        """Begin a rolling replacement."""
        old = [worker.id for worker in self.workers if worker.state not in (STARTING, STOPPING)]
        self.recycling.begin(old, restart, ref)
        if timeout is not None:
            self.timers.at(now + timeout, (self._recycle_late, ref, None))
        self._try_at_once(now)
        self.recycle_next(now)
        self.refill(now)

    def _try_at_once(self, now: float) -> None:
        """An operator has done something about the resource: ask it at once, whatever the backoff says."""
        self.connector.permanently_failed = False
        down = next(iter(self.workers.down.values()), None)
        if down is not None and self.connector.down_cause is not None and not self.workers.by_state[OPENING]:
            self.connector.probe_id = down.id
            self.open(down, now)
        else:
            self.plan_reconnect(now)

    def recycle_next(self, now: float) -> None:
        """Take the next old worker, if it is time; answer when none is left."""
        recycling = self.recycling
        if recycling.to_recycle and recycling.by_restart:
            while (old := recycling.next(self.workers)) is not None and self._is_dispensable(old):
                self.stop(old, now)
            recycling.surge = 1 if recycling.to_recycle else 0
            self.refill(now)
        elif recycling.to_recycle and not self._is_reopening():
            old = recycling.next(self.workers)
            if old is not None:
                self._reopen(old, now)
        if not recycling.to_recycle:
            self.end_recycling(now)

    def _is_dispensable(self, worker: Worker) -> bool:
        if worker.state is DOWN:
            return self.connector.down_cause is None
        return self.workers.staying - self.workers.count(STARTING, OPENING, DOWN) > self.life.size

    def _is_reopening(self) -> bool:
        """Whether a new connection is on its way, or it is not known whether one could be had."""
        return self.connector.down_cause is not None or self.recycling.is_reopening(self.workers)

    def _reopen(self, worker: Worker, now: float) -> None:
        self.recycling.reopening_id = worker.id
        self.open(worker, now)
        self.refill(now)  # it may have been the last that was down, and none was started as long as one was

    def _recycle(self, worker: Worker, now: float) -> bool:
        """Replace a worker that came back, if it is its turn; whether that was done."""
        if self.recycling.by_restart and self._is_dispensable(worker):
            self.stop(worker, now)
            self.recycle_next(now)
            self.refill(now)  # a request may have waited for this one, and is now entitled to an overflow worker
        elif not self.recycling.by_restart and not self._is_reopening():
            self._reopen(worker, now)
        else:
            return False
        return True

    def end_recycling(self, now: float, error: Exception | None = None) -> None:
        """No worker is to be replaced any more."""
        if self.recycling.clear():
            self.dismiss_surplus(now)
        self._effects.answer(self.recycling.waiting, error)

    def _recycle_late(self, ref: Any, _since: None, _now: float) -> None:
        if ref in self.recycling.waiting:
            self.recycling.waiting.remove(ref)
            self._do(Answer(ref, self.refusals.recycle_late(len(self.recycling.to_recycle))))
