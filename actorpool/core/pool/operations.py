"""What operators do to a pool: resize, suspend, resume, drain, recycle, stop it. And how it fails."""

from __future__ import annotations

from typing import Any

from actorpool.config import Autoscale
from actorpool.core.effects import Answer, Fail, Stopped
from actorpool.core.machine import Effects, step
from actorpool.core.pool.autoscale import Scaler, target_size
from actorpool.core.pool.leasing import Leasing
from actorpool.core.workers import LEASED, REVOKING, STOPPING


class Operations:
    """Steps of a `PoolCore`.

    Args:
        autoscale: how the pool changes its size by itself, if it does.
        now: monotonic seconds.
        leasing: what there is of callers and workers.
        effects: where to put what is to be done.
    """

    def __init__(self, autoscale: Autoscale | None, now: float, leasing: Leasing, effects: Effects) -> None:
        self.leasing = leasing
        self.lifecycle = lifecycle = leasing.lifecycle
        self.life, self.workers, self.timers = lifecycle.life, lifecycle.workers, lifecycle.timers
        self.queue, self.leases, self.sandboxes = leasing.queue, leasing.leases, leasing.sandboxes
        self.refusals = lifecycle.refusals
        self.effects = effects
        self._scaler = Scaler(autoscale, now)
        self._do, self._emit = effects.do, effects.emit

    @step
    def resize(self, now: float, size: int | None = None, max_overflow: int | None = None) -> None:
        """Change the size in place: no lease breaks, waiters stay; surplus workers stop as they come back."""
        self._resize(now, size, max_overflow)

    def _resize(self, now: float, size: int | None, max_overflow: int | None = None) -> None:
        wishes = {"size": size, "max_overflow": max_overflow}
        self._change(**{name: wish for name, wish in wishes.items() if wish is not None})
        self.leasing.recalls.recall_all(now)
        self._emit("pool.resized", size=self.life.size, max_overflow=self.life.max_overflow)
        self.lifecycle.dismiss_surplus(now)
        self.lifecycle.refill(now)
        self.leasing.serve_keys(now)

    @step
    def sampled(self, now: float, usage: list[int]) -> None:
        """The shell took a sample; `usage` is leases out over the last samples. Autoscale, if it is time."""
        if self._scaler.autoscale is not None and self._scaler.due(now) and not self.life.ending:
            size = target_size(self._scaler.autoscale, usage, self.life.size)
            if size is not None:
                self._resize(now, size)

    @step
    def suspend(self, now: float) -> None:
        """Serve no newcomer; leases go on, waiters keep waiting within their timeouts."""
        self._change(suspended=True)
        self.leasing.recalls.recall_all(now)
        self.queue.suspend()

    @step
    def resume(self, now: float) -> None:
        """End a suspension or a drain. Requests that still wait for the end of a drain hear of it."""
        self._change(suspended=False, draining=False)
        if self.life.drainers:
            self.effects.answer(self.life.drainers, self.refusals.drain_ended())
        self.queue.resume(now)
        self.leasing.match(now)
        self.lifecycle.refill(now)

    @step
    def drain(self, now: float, ref: Any, timeout: float) -> None:
        """As `suspend`; `Answer(ref)` once every lease is back. At the deadline, what still runs is interrupted."""
        if self.life.failed is not None:
            self._do(Answer(ref, self.refusals.over()))
            return
        self._change(draining=True)
        self.leasing.recalls.recall_all(now)
        self.queue.suspend()
        self.life.drainers.append(ref)
        self.timers.at(now + timeout, (self._drain_over, ref, None))
        self.leasing.serve_keys(now)
        self.check_drained()

    def _drain_over(self, ref: Any, _since: None, now: float) -> None:
        if ref in self.life.drainers:
            for lease in self.leases:
                self.leasing.ending.reclaim(lease, now, "drain")

    def check_drained(self) -> None:
        """A pool is drained when nothing runs any more: also not in workers that are being interrupted or ended."""
        if self.sandboxes.closing:
            self.sandboxes.answer_closed(self.workers.by_state[REVOKING].__contains__)
        if self.life.drainers and not len(self.leases) and not self.workers.count(REVOKING, STOPPING):
            self.effects.answer(self.life.drainers)

    @step
    def recycle(self, now: float, ref: Any, timeout: float | None = None, restart: bool = False) -> None:
        """Replace every connection (or process), one at a time, those in use when they come back; then `Answer`.

        A connection is opened anew in its place. For processes there is one worker more than `size` meanwhile, and an
        old one goes only while more than `size` are connected: no capacity is lost.

        An outage halts it, a `PermanentError` ends it with that cause.
        """
        if self.life.ending:
            self._do(Answer(ref, self.refusals.over()))
            return
        self.leasing.recalls.recall_all(now)
        self.leasing.returning.recycle(now, ref, timeout, restart)
        self.leasing.serve_keys(now)

    def _change(self, **wishes: Any) -> None:
        kept = self.life.change(**wishes)
        if kept is not None:
            self._do(kept)

    # -- the end -------------------------------------------------------------------------------------------

    @step
    def stop(self, now: float, ref: Any, timeout: float) -> None:
        """End the pool: waiters fail at once, what runs may finish within `timeout`. At the end, `Stopped`."""
        self.life.stopping = self.life.ending = True
        self._turn_away()
        self.leasing.recalls.recall_all(now)
        self.life.stoppers.append(ref)
        for worker in self.workers:
            if worker.state not in (LEASED, REVOKING, STOPPING):
                self.lifecycle.stop(worker, now)
        self.timers.at(now + timeout, (self._stop_over, ref, None))
        if not len(self.workers):
            self._do(Stopped())

    def _stop_over(self, _ref: Any, _since: None, now: float) -> None:
        for lease in self.leases:
            self.leasing.ending.end(lease, now, "stop")
            self.lifecycle.stop(lease.worker, now, interrupt=True)

    def fail(self, error: Exception) -> None:
        """End with an error, once. No caller is served, no worker started after it; the shell ends what is there."""
        if self.life.ending:
            return
        self.life.failed = error
        self.life.ending = True
        self._turn_away()
        self._do(Fail(error))

    def _turn_away(self) -> None:
        over = self.refusals.over()
        self.leasing.waiting.turn_away(lambda _waiter: over)
        self.lifecycle.recycling.clear()
        self.effects.answer(self.lifecycle.recycling.waiting, over)
        if self.life.failed is not None:
            self.effects.answer(self.life.drainers, over)
