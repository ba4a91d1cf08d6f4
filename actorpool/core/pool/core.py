"""The pool: every decision about it, without clock, process or Thespian. Start reading here.

The shell (`pools/actor.py`) calls one method for each thing that happens and carries the returned effects out;
it asks `deadline()` when to call `tick()`. Identities of holders and refs of requests are opaque; worker and lease
ids are numbers that only grow, so a late answer about an old one falls through.

Layers: `ledger` (state, figures) <- `workforce` (processes) <- `connecting` (connections) <- `sandboxes` (leases that
several use) <- `staying` (leases that stay with their callers) <- `limits` (time) <- `leasing` (callers) <- this.
"""

from __future__ import annotations

import itertools
from typing import Any

from actorpool.core.effects import Answer, Keep, Ready, Stopped
from actorpool.core.machine import step
from actorpool.core.pool.autoscale import Scaler, target_size
from actorpool.core.pool.leases import Leases
from actorpool.core.pool.workers import DOWN, LEASED, OPENING, REVOKING, STARTING, STOPPING, Worker
from actorpool.errors import ActorPoolError, CallTimeout


class PoolCore(Leases):
    """A pool. All times are monotonic seconds; every public method but the figures returns effects."""

    _scaler: Scaler | None = None

    @step
    def start(self, now: float) -> None:
        """Start the base workers. `Ready` (or `Fail`) follows, at the latest after `checkout_timeout`."""
        if not self.serving:
            self.queue.suspend()
        if self.config.autoscale is not None:
            self._scaler = Scaler(self.config.autoscale, now)
        if self.config.health_interval is not None:
            self.timers.at(now + self.config.health_interval, (self._check_health, None, None))
        self.timers.at(now + self.config.checkout_timeout, (self._start_over, None, None))
        self._fill(now)
        self._check_started()

    # -- operations -----------------------------------------------------------------------------------------

    @step
    def resize(self, now: float, size: int | None = None, max_overflow: int | None = None) -> None:
        """Change the size in place: no lease breaks, waiters stay; surplus workers stop as they come back."""
        self._resize(now, size, max_overflow)

    def _resize(self, now: float, size: int | None, max_overflow: int | None = None) -> None:
        self.size = self.size if size is None else size
        self.max_overflow = self.max_overflow if max_overflow is None else max_overflow
        self._keep()
        self._recall_all(now)
        self._emit("pool.resized", size=self.size, max_overflow=self.max_overflow)
        self._dismiss_surplus(now)
        self._fill(now)

    @step
    def suspend(self, now: float) -> None:
        """Serve nobody new; leases go on, waiters keep waiting within their timeouts."""
        self.suspended = True
        self._keep()
        self._recall_all(now)
        self.queue.suspend()

    @step
    def resume(self, now: float) -> None:
        """End a suspension or a drain. Who still waits for the end of a drain hears of it."""
        self.suspended = self.draining = False
        self._keep()
        text = f"pool {self.name!r}: resume() ended the drain while {len(self.leases)} lease(s) were out"
        self._answer(self.drainers, ActorPoolError(text, pool=self.name))
        self.queue.resume(now)
        self._serve(now)
        self._fill(now)

    @step
    def drain(self, now: float, ref: Any, timeout: float) -> None:
        """As `suspend`; `Answer(ref)` once every lease is back. At the deadline, what still runs is interrupted."""
        if self.failed is not None:
            self._do(Answer(ref, self._over()))
            return
        self.draining = True
        self._keep()
        self._recall_all(now)
        self.queue.suspend()
        self.drainers.append(ref)
        self.timers.at(now + timeout, (self._drain_over, ref, None))
        self._check_drained()

    def _drain_over(self, ref: Any, _since: None, now: float) -> None:
        if ref in self.drainers:
            for lease in list(self.leases.values()):
                self._reclaimed(lease, now, "drain")

    def _keep(self) -> None:
        kept = Keep(self.size, self.max_overflow, self.suspended, self.draining)
        if kept != self.kept:
            self.kept = kept
            self._do(kept)

    @step
    def stop(self, now: float, ref: Any, timeout: float) -> None:
        """End the pool: waiters fail at once, what runs may finish within `timeout`. At the end, `Stopped`."""
        self.stopping = self.ending = True
        self._turn_away()
        self._recall_all(now)
        self.stoppers.append(ref)
        for worker in self.fleet:
            if worker.state not in (LEASED, REVOKING, STOPPING):
                self._stop(worker, now)
        self.timers.at(now + timeout, (self._stop_over, ref, None))
        if not len(self.fleet):
            self._do(Stopped())

    def _stop_over(self, _ref: Any, _since: None, now: float) -> None:
        for lease in list(self.leases.values()):
            worker = lease.worker
            self._end_lease(lease.id, now, "stop")
            self._stop(worker, now, interrupt=True)

    def _turn_away(self) -> None:
        for waiter in self.queue.clear():
            self._refuse(waiter, self._over())
        self._to_recycle.clear()
        self._recycle_surge = 0
        self._answer(self.recyclers, self._over())
        if self.failed is not None:
            self._answer(self.drainers, self._over())

    # -- rolling replacement --------------------------------------------------------------------------------

    @step
    def recycle(self, now: float, ref: Any, timeout: float | None = None, restart: bool = False) -> None:
        """Replace every connection (or process), one at a time, those in use when they come back; then `Answer`.

        A connection is opened anew in its place. For processes there is one worker more than `size` meanwhile, and an
        old one goes only while more than `size` are connected: no capacity is lost. An outage halts both, a
        `PermanentError` ends them with that cause.
        """
        if self.ending:
            self._do(Answer(ref, self._over()))
            return
        self._recall_all(now)
        self._by_restart = restart or (self._by_restart and bool(self._to_recycle))
        self._to_recycle.update(worker.id for worker in self.fleet if worker.state not in (STARTING, STOPPING))
        self.recyclers.append(ref)
        if timeout is not None:
            self.timers.at(now + timeout, (self._recycle_over, ref, None))
        self._try_again(now)
        self._recycle_next(now)
        self._fill(now)

    def _try_again(self, now: float) -> None:
        """An operator has done something about the resource: ask it at once, whatever the backoff says."""
        self.permanently_failed = False
        down = next(iter(self.fleet.places[DOWN].values()), None)
        if down is not None and self.down_cause is not None and not self.fleet.places[OPENING]:
            self._probe_id = down.id
            self._open(down, now)
        else:
            self._plan_reconnect(now)

    def _recycle_next(self, now: float) -> None:
        """Take the next old worker, if it is time; answer when none is left."""
        if self._to_recycle and self._by_restart:
            while (old := self._next_to_recycle()) is not None and self._is_dispensable(old):
                self._stop(old, now)
            self._recycle_surge = 1 if self._to_recycle else 0
            self._fill(now)
        elif self._to_recycle and not self._is_reopening() and (old := self._next_to_recycle()) is not None:
            self._reopen(old, now)
        if not self._to_recycle:
            self._end_recycling(now)

    def _next_to_recycle(self) -> Worker | None:
        """An old worker that nobody uses; those that are down first."""
        unused = itertools.chain(self.fleet.places[DOWN].values(), self.fleet.idle.values())
        return next((worker for worker in unused if worker.id in self._to_recycle), None)

    def _is_dispensable(self, worker: Worker) -> bool:
        if worker.state is DOWN:
            return self.down_cause is None
        return self.fleet.staying - self.fleet.count(STARTING, OPENING, DOWN) > self.size

    def _is_reopening(self) -> bool:
        """Whether one is on its way, or nobody knows whether it could connect."""
        current = self.fleet.workers.get(self._reopening)
        return self.down_cause is not None or (current is not None and current.state in (OPENING, DOWN))

    def _reopen(self, worker: Worker, now: float) -> None:
        self._reopening = worker.id
        self._open(worker, now)
        self._fill(now)  # it may have been the last that was down, and nobody was hired as long as one was

    def _recycled(self, worker: Worker, now: float) -> bool:
        if worker.id not in self._to_recycle:
            return False
        if self._by_restart and self._is_dispensable(worker):
            self._stop(worker, now)
            self._recycle_next(now)
            self._fill(now)  # somebody may have waited for this one, who is now entitled to an overflow worker
        elif not self._by_restart and not self._is_reopening():
            self._reopen(worker, now)
        else:
            return False
        return True

    def _end_recycling(self, now: float, error: Exception | None = None) -> None:
        self._to_recycle.clear()
        if self._recycle_surge:
            self._recycle_surge = 0
            self._dismiss_surplus(now)
        self._answer(self.recyclers, error)

    def _recycle_over(self, ref: Any, _since: None, _now: float) -> None:
        if ref in self.recyclers:
            self.recyclers.remove(ref)
            text = (
                f"pool {self.name!r}: recycle() ran out of time, {len(self._to_recycle)} worker(s) are not yet "
                "replaced; they still will be, as they come back"
            )
            self._do(Answer(ref, CallTimeout(text, pool=self.name)))

    def _give_up(self, now: float) -> None:
        super()._give_up(now)
        self._end_recycling(now, self._unavailable(0.0))  # what still has a connection had better keep it

    # -- time -----------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `tick` is to be called next; None: not before something else happens."""
        queues = [self.queue, *(sandbox.queue for sandbox in self.sandboxes.values())]
        moments = [self.timers.next(), self.lease_timers.next(), *(queue.next_deadline() for queue in queues)]
        return min((moment for moment in moments if moment is not None), default=None)

    @step
    def tick(self, now: float) -> None:
        """Do what is due. An entry whose worker or lease is no longer as it was falls through."""
        self._expire_waiters(now)
        self._expire_turns(now)
        for act, key, since in self.lease_timers.due(now) + self.timers.due(now):
            act(key, since, now)

    def _start_over(self, _key: None, _since: None, now: float) -> None:
        if not self.started and not self.ending:
            self.started = True
            self._do(Ready(degraded=True))

    @step
    def sampled(self, now: float, usage: list[int]) -> None:
        """The shell took a sample; `usage` is leases out over the last samples. Autoscale, if it is time."""
        if self._scaler is None or not self._scaler.due(now) or self.config.autoscale is None or self.ending:
            return
        size = target_size(self.config.autoscale, usage, self.size)
        if size is not None:
            self._resize(now, size)
