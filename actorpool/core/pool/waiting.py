"""Requests that wait: which may, and how their waiting ends without a worker."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from actorpool.config import PoolConfig
from actorpool.core.effects import Refused
from actorpool.core.machine import Effects
from actorpool.core.pool.queue import Waiter, WaitingQueue
from actorpool.core.pool.sandbox import Sandbox, Sandboxes
from actorpool.core.pool.worker_lifecycle import WorkerLifecycle


class Waiting:
    """Mediates between the queue and what there is of workers. It gives none of them away.

    Args:
        config: the pool's settings.
        lifecycle: what there is of workers.
        queue, sandboxes: parts of the pool.
        effects: where to put what is to be done.
    """

    def __init__(
        self,
        config: PoolConfig,
        lifecycle: WorkerLifecycle,
        queue: WaitingQueue,
        sandboxes: Sandboxes,
        effects: Effects,
    ) -> None:
        self.config = config
        self.lifecycle = lifecycle
        self.life, self.workers, self.connector = lifecycle.life, lifecycle.workers, lifecycle.connector
        self.sessions, self.stats = lifecycle.sessions, lifecycle.stats
        self.figures, self.refusals = lifecycle.figures, lifecycle.refusals
        self.queue = queue
        self.sandboxes = sandboxes
        self._do, self._emit = effects.do, effects.emit

    # -- who may wait --------------------------------------------------------------------------------------

    def refusal(self, timeout: float, block: bool, now: float, key: Hashable = None) -> Exception | None:
        """Why this request cannot be queued; `key`: it would wait for another caller that has this key."""
        waiting = len(self.queue)
        if not block and not (self.life.serving and waiting < self._coming()):
            return self.refusals.full(now)
        if timeout <= 0 or self.refusals.barren:
            self.stats.timeouts += 1
            self._emit("pool.timeout", timeout=0.0)
            return self.refusals.too_late(0.0, now, key)
        limit = self.config.max_waiting
        if limit is not None and waiting - (self._coming() if self.life.serving else 0) >= limit:
            self.stats.shed += 1
            self._emit("pool.shed", waiting=waiting)
            return self.refusals.too_many(waiting, now)
        return None

    def refusal_for_key(self, waiter: Waiter, now: float) -> Exception | None:
        """Why this request cannot be queued behind the caller that has its key."""
        if not waiter.block:
            return self.refusals.key_in_use(waiter.key, now)
        return self.refusal(waiter.deadline - now, True, now, waiter.key)

    def _coming(self) -> int:
        """Workers on their way to callers: soon idle, about to reconnect, or overflow that may still be started."""
        reconnecting = 0 if self.connector.down_cause is not None else len(self.workers.down)
        return self.figures.incoming + reconnecting + len(self.sessions.parked) + self.lifecycle.room

    def review_nonblocking(self, now: float) -> None:
        """Fewer workers return than were counted on: decide anew about requests that would not have waited."""
        returning = self.figures.prompt
        for place, waiter in enumerate(list(self.queue)):
            if waiter.nonblocking and place >= returning:
                waiter.nonblocking = False
                self.queue.remove(waiter.ref)
                refusal = self.refusal(0.0 if waiter.block else 1.0, waiter.block, now)
                if refusal is not None:
                    self.refuse(waiter, refusal)
                else:
                    self.queue.push(waiter)

    # -- waiting that ends without a worker ----------------------------------------------------------------

    def refuse(self, waiter: Waiter, error: Exception) -> None:
        self._do(Refused(waiter.ref[1], waiter.caller, error))

    def shed(self, waiter: Waiter, delay: float, now: float) -> None:
        self.stats.shed += 1
        waited = now - waiter.since
        self._emit("pool.shed", waiting=len(self.queue), wait_ms=waited * 1e3)
        self.refuse(waiter, self.refusals.shed(waited, delay, now))

    def expire(self, now: float) -> None:
        for waiter in self.queue.expired(now):
            self.stats.timeouts += 1
            waited = now - waiter.since
            self._emit("pool.timeout", timeout=waited)
            busy = waiter.key if self.sessions.is_busy(waiter.key) else None
            self.refuse(waiter, self.refusals.too_late(waited, now, busy))
        for waiter, delay in self.queue.shed(now):
            self.shed(waiter, delay, now)
        for sandbox, waiter in self.sandboxes.expired(now):
            self.refuse(waiter, self.no_turn_in_time(sandbox, now - waiter.since, now))

    def no_turn_in_time(self, sandbox: Sandbox, waited: float, now: float) -> Exception:
        self.stats.timeouts += 1
        return self.refusals.no_turn_in_time(sandbox, waited, now)

    def turn_away(self, error: Callable[[Waiter], Exception]) -> None:
        """Refuse all waiters."""
        for waiter in self.queue.clear():
            self.refuse(waiter, error(waiter))
