"""What becomes of a worker that came back; and rolling replacement, of every connection or process, one at a time.

`take_in` is the one place that says what becomes of a worker that is not in use any more.
"""

from __future__ import annotations

from typing import Any

from actorpool.config import PoolConfig
from actorpool.core.effects import Answer
from actorpool.core.machine import Effects, TimerQueue
from actorpool.core.pool.worker_lifecycle import WorkerLifecycle
from actorpool.core.workers import CHECKING, DOWN, IDLE, OPENING, STARTING, STOPPING, Worker


class Returning:
    """Mediates between the life of workers and what is known of those that are to be replaced.

    Args:
        config: the pool's settings.
        lifecycle: what there is of workers.
        timers: where to have oneself called later.
        effects: where to put what is to be done.
    """

    def __init__(self, config: PoolConfig, lifecycle: WorkerLifecycle, timers: TimerQueue, effects: Effects) -> None:
        self.config = config
        self.lifecycle = lifecycle
        self.life, self.workers, self.connector = lifecycle.life, lifecycle.workers, lifecycle.connector
        self.recycling = lifecycle.recycling
        self.figures, self.refusals = lifecycle.figures, lifecycle.refusals
        self.timers = timers
        self._effects = effects
        self._do = effects.do

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
        surplus = self.lifecycle.surplus
        if self.life.ending or (surplus > 0 and self._is_too_many(surplus)):
            self.lifecycle.stop(worker, now)
        elif worker.id in self.recycling.to_recycle and self._replaces(worker, now):
            pass
        elif worker.broken:
            self.lifecycle.open(worker, now)
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
        self.lifecycle.stop(worker, now)
        self.lifecycle.refill(now, worker.restarts)

    # -- rolling replacement -------------------------------------------------------------------------------

    def recycle(self, now: float, ref: Any, timeout: float | None = None, restart: bool = False) -> None:
        """Begin a rolling replacement."""
        old = [worker.id for worker in self.workers if worker.state not in (STARTING, STOPPING)]
        self.recycling.begin(old, restart, ref)
        if timeout is not None:
            self.timers.at(now + timeout, (self._recycle_late, ref, None))
        self._try_at_once(now)
        self.next(now)
        self.lifecycle.refill(now)

    def _try_at_once(self, now: float) -> None:
        """An operator has done something about the resource: ask it at once, whatever the backoff says."""
        self.connector.permanently_failed = False
        down = next(iter(self.workers.down.values()), None)
        if down is not None and self.connector.down_cause is not None and not self.workers.by_state[OPENING]:
            self.connector.probe_id = down.id
            self.lifecycle.open(down, now)
        else:
            self.lifecycle.plan_reconnect(now)

    def next(self, now: float) -> None:
        """Take the next old worker, if it is time; answer when none is left."""
        recycling = self.recycling
        if recycling.to_recycle and recycling.by_restart:
            while (old := recycling.next(self.workers)) is not None and self._is_dispensable(old):
                self.lifecycle.stop(old, now)
            recycling.surge = 1 if recycling.to_recycle else 0
            self.lifecycle.refill(now)
        elif recycling.to_recycle and not self._is_reopening():
            old = recycling.next(self.workers)
            if old is not None:
                self._reopen(old, now)
        if not recycling.to_recycle:
            self.end(now)

    def _is_dispensable(self, worker: Worker) -> bool:
        if worker.state is DOWN:
            return self.connector.down_cause is None
        return self.workers.staying - self.workers.count(STARTING, OPENING, DOWN) > self.life.size

    def _is_reopening(self) -> bool:
        """Whether a new connection is on its way, or it is not known whether one could be had."""
        return self.connector.down_cause is not None or self.recycling.is_reopening(self.workers)

    def _reopen(self, worker: Worker, now: float) -> None:
        self.recycling.reopening_id = worker.id
        self.lifecycle.open(worker, now)
        self.lifecycle.refill(now)  # none was started as long as one was down, and it may have been the last

    def _replaces(self, worker: Worker, now: float) -> bool:
        """Replace a worker that came back, if it is its turn; whether that was done."""
        if self.recycling.by_restart and self._is_dispensable(worker):
            self.lifecycle.stop(worker, now)
            self.next(now)
            self.lifecycle.refill(now)  # who waited for this one is now entitled to an overflow worker
        elif not self.recycling.by_restart and not self._is_reopening():
            self._reopen(worker, now)
        else:
            return False
        return True

    def end(self, now: float, error: Exception | None = None) -> None:
        """No worker is to be replaced any more."""
        if self.recycling.clear():
            self.lifecycle.dismiss_surplus(now)
        self._effects.answer(self.recycling.waiting, error)

    def _recycle_late(self, ref: Any, _since: None, _now: float) -> None:
        if ref in self.recycling.waiting:
            self.recycling.waiting.remove(ref)
            self._do(Answer(ref, self.refusals.recycle_late(len(self.recycling.to_recycle))))
