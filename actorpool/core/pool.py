"""The pool: every decision about it, without clock, process or Thespian. Start reading here.

The shell (`supervisors/pool.py`) calls one method for each thing that happens and carries the returned effects out;
it asks `deadline()` when to call `tick()`. Identities of holders and refs of requests are opaque; worker and lease
ids are numbers that only grow, so a late answer about an old one falls through.

Layers: `ledger` (state, figures) <- `workforce` (processes, connections) <- `sandboxes` (leases that several use)
<- `leasing` (callers) <- this (operations).
"""

from __future__ import annotations

from typing import Any

from actorpool.core.autoscale import Scaler, target_size
from actorpool.core.decider import decides
from actorpool.core.effects import Answer, Ready, Stopped
from actorpool.core.fleet import DOWN, IDLE, LEASED, REVOKING, STARTING, STOPPING, Worker
from actorpool.core.leasing import Leasing
from actorpool.errors import CallTimeout, PoolStopped


class PoolCore(Leasing):
    """A pool. All times are monotonic seconds; every public method but the figures returns effects."""

    _scaler: Scaler | None = None
    @decides
    def start(self, now: float) -> None:
        """Start the base workers. `Ready` (or `Fail`) follows, at the latest after `checkout_timeout`."""
        if self.config.autoscale is not None:
            self._scaler = Scaler(self.config.autoscale, now)
        if self.config.health_interval is not None:
            self.agenda.at(now + self.config.health_interval, (self._check_health, None, None))
        self.agenda.at(now + self.config.checkout_timeout, (self._start_over, None, None))
        self._fill(now)
        self._check_started()

    # -- operations -----------------------------------------------------------------------------------------

    @decides
    def resize(self, now: float, size: int | None = None, max_overflow: int | None = None) -> None:
        """Change the size in place: no lease breaks, waiters stay; surplus workers stop as they come back."""
        self.size = self.size if size is None else size
        self.max_overflow = self.max_overflow if max_overflow is None else max_overflow
        self._emit("pool.resized", size=self.size, max_overflow=self.max_overflow)
        for worker in list(self.fleet.places[DOWN].values()) + list(self.fleet.idle.values()):
            if self._surplus <= 0:
                break
            self._stop(worker, now)
        self._fill(now)

    @decides
    def suspend(self, now: float) -> None:
        """Serve nobody new; leases go on, waiters keep waiting within their timeouts."""
        self.suspended = True
        self.queue.suspend()

    @decides
    def resume(self, now: float) -> None:
        """End a suspension or a drain."""
        self.suspended = self.draining = False
        self.queue.resume(now)
        self._serve(now)
        self._fill(now)

    @decides
    def drain(self, now: float, ref: Any, timeout: float) -> None:
        """As `suspend`; `Answer(ref)` once every lease is back. At the deadline, what still runs is interrupted."""
        self.draining = True
        self.queue.suspend()
        self.drainers.append(ref)
        self.agenda.at(now + timeout, (self._drain_over, ref, None))
        self._check_drained()

    def _drain_over(self, ref: Any, _since: None, now: float) -> None:
        if ref in self.drainers:
            for lease in list(self.leases.values()):
                self._reclaimed(lease, now, "drain")

    @decides
    def stop(self, now: float, ref: Any, timeout: float) -> None:
        """End the pool: waiters fail at once, running calls may finish within `timeout`. Then `Stopped`."""
        self.stopping = True
        for waiter in self.queue.clear():
            self._refuse(waiter, PoolStopped(f"pool {self.name!r} was stopped while you waited", pool=self.name))
        self.stoppers.append(ref)
        for worker in self.fleet:
            if worker.state not in (LEASED, REVOKING, STOPPING):
                self._stop(worker, now)
        self.agenda.at(now + timeout, (self._stop_over, ref, None))
        if not len(self.fleet):
            self._do(Stopped())

    def _stop_over(self, _ref: Any, _since: None, now: float) -> None:
        for lease in list(self.leases.values()):
            worker = lease.worker
            self._end_lease(lease.id, now)
            self._stop(worker, now, interrupt=True)

    # -- rolling replacement --------------------------------------------------------------------------------

    @decides
    def recycle(self, now: float, ref: Any, timeout: float | None = None, restart: bool = False) -> None:
        """Replace every connection (or process), one at a time; those in use when they come back. Then `Answer`."""
        self.hopeless = False
        for worker in self.fleet:
            if worker.state not in (STARTING, STOPPING):
                worker.recycle = "restart" if restart else "reopen"
        self.recyclers.append(ref)
        if timeout is not None:
            self.agenda.at(now + timeout, (self._recycle_over, ref, None))
        self._recycle_next(now)

    def _recycle_turn(self, worker: Worker) -> bool:
        return self._recycled is None or self._recycled == worker.id

    def _recycle_next(self, now: float) -> None:
        """Take the next idle worker that is still to be replaced; answer when none is left."""
        if self._recycled is not None:
            current = self.fleet.workers.get(self._recycled)
            if current is not None and current.recycle and current.state is not STOPPING:
                return
            self._recycled = None
        if not self.recyclers:
            return
        for worker in (*self.fleet.idle.values(), *self.fleet.places[DOWN].values()):
            if worker.recycle:
                self._recycle_now(worker, now)
                return
        if not self._to_recycle():
            for ref in self.recyclers:
                self._do(Answer(ref))
            self.recyclers.clear()

    def _to_recycle(self) -> int:
        return sum(1 for worker in self.fleet if worker.recycle and worker.state is not STOPPING)

    def _recycle_now(self, worker: Worker, now: float) -> None:
        self._recycled = worker.id
        if worker.recycle == "reopen":
            self._open(worker, now)
            return
        if worker.state is not IDLE and worker.state is not DOWN:
            self._rest(worker, now)  # it goes on serving until its replacement is there
            self._serve(now)
        self._start(now, worker.restarts, replaces=worker.id)

    def _recycled_by(self, worker: Worker, now: float) -> None:
        """A worker has connected: if it is a replacement, its predecessor goes, now or when it comes back."""
        if worker.replaces is not None:
            old = self.fleet.workers.get(worker.replaces)
            worker.replaces = None
            if old is not None and old.state is LEASED:
                old.recycle = "retire"
            elif old is not None and old.state is not STOPPING:
                self._stop(old, now)
            self._recycled = None
        self._recycle_next(now)

    def _recycle_over(self, ref: Any, _since: None, _now: float) -> None:
        if ref in self.recyclers:
            self.recyclers.remove(ref)
            text = (
                f"pool {self.name!r}: recycle() ran out of time, {self._to_recycle()} worker(s) are not yet replaced; "
                "they still will be, as they come back"
            )
            self._do(Answer(ref, CallTimeout(text, pool=self.name)))

    # -- time -----------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `tick` is to be called next; None: not before something else happens."""
        queues = [self.queue, *(sandbox.queue for sandbox in self.sandboxes.values())]
        moments = [self.agenda.next(), *(queue.next_deadline() for queue in queues)]
        return min((moment for moment in moments if moment is not None), default=None)

    @decides
    def tick(self, now: float) -> None:
        """Do what is due. An entry whose worker or lease is no longer as it was falls through."""
        self._expire_waiters(now)
        self._expire_turns(now)
        for act, key, since in self.agenda.due(now):
            act(key, since, now)

    def _start_over(self, _key: None, _since: None, now: float) -> None:
        if not self.started and self.failed is None:
            self.started = True
            self._do(Ready(degraded=True))

    @decides
    def sampled(self, now: float, usage: list[int]) -> None:
        """The shell took a sample; `usage` is leases out over the last samples. Autoscale, if it is time."""
        if self._scaler is None or not self._scaler.due(now) or self.config.autoscale is None:
            return
        size = target_size(self.config.autoscale, usage, self.size)
        if size is not None:
            self._effects += self.resize(now, size)


