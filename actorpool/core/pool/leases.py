"""Callers: checkout, waiting, leases, checkin, and taking back what a caller does not give back.

`_serve` is the only place that matches waiters with workers. The semantics are poolboy's (devinus/poolboy), with
leases that belong to the real caller, deadlines on the request, and CoDel in the queue.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from actorpool.core.effects import Ended, Granted, Refused, Revoke, UseLocal
from actorpool.core.machine import step
from actorpool.core.pool.ledger import Lease
from actorpool.core.pool.limits import LeaseLimits
from actorpool.core.pool.queue import Waiter
from actorpool.core.pool.workers import DOWN, LEASED, REVOKING
from actorpool.core.pool.workforce import DIED
from actorpool.errors import (
    CheckoutTimeout,
    CircuitOpen,
    PoolDown,
    PoolFull,
    PoolStopped,
    QueueShed,
    TooManyWaiting,
    WorkerUnavailable,
)
from actorpool.serialization.exceptions import name_of


class Leases(LeaseLimits):
    """The layer that serves callers."""

    # -- checkout -----------------------------------------------------------------------------------------

    @step
    def checkout(
        self,
        now: float,
        ref: Any,
        holder: Hashable,
        timeout: float | None = None,
        block: bool = True,
        stack: str | None = None,
        sandbox: str | None = None,
        sticky: bool = False,
    ) -> None:
        """Ask for a worker: `Granted` or `Refused`, now or later.

        Args:
            now: monotonic seconds.
            ref: names this request among the holder's; the same one again while it waits is dropped.
            holder: whose lease it will be; `caller_down(holder)` takes it back.
            timeout: longest wait in seconds (None: the config's).
            block: False refuses at once when the pool is full.
            stack: where the caller asked, for leak reports.
            sandbox: the sandbox that a turn is asked for in; None: the one that the caller is a guest of, if any.
            stay: the worker may stay with the holder after its first use (see `staying`).
        """
        if len(self.queue) and (holder, ref) in self.queue:
            return  # the same request once more
        timeout = self.config.checkout_timeout if timeout is None else timeout
        if sandbox is not None or self.guests:
            waiter = Waiter((holder, ref), holder, now, now + timeout, block, stack)
            if self._enters(now, waiter, sandbox):
                return
        refusal = self._refusal(now)
        if refusal is not None:
            self._do(Refused(ref, holder, refusal))
        elif self.fleet.idle and not len(self.queue) and self.serving:
            self._grant(now, ref, holder, now, stack, sticky)
        else:
            self._wait(now, Waiter((holder, ref), holder, now, now + timeout, block, stack, sticky))

    def _wait(self, now: float, waiter: Waiter) -> None:
        """Nobody is idle: have back who only stays with a caller, and let this one wait if he may."""
        if waiter.sticky and self._uses_local(waiter):
            self._do(UseLocal(waiter.ref[1], waiter.caller))
            return
        self._want(waiter, now)
        nonblocking = not waiter.block or waiter.deadline <= now
        if nonblocking and self.serving and len(self.queue) < len(self.returning):
            waiter.nonblocking = True  # an idle worker is his, as soon as it is back
            waiter.deadline = max(waiter.deadline, now + self._return_limit)
        elif (refusal := self._no_waiting(waiter.deadline - now, waiter.block, now)) is not None:
            self._refuse(waiter, refusal)
            return
        self.queue.push(waiter)
        self._fill(now)

    def _judge_nonblocking(self, now: float) -> None:
        """Fewer come back than were counted on: decide anew about those who would not have waited otherwise."""
        for place, waiter in enumerate(list(self.queue)):
            if waiter.nonblocking and place >= len(self.returning):
                waiter.nonblocking = False
                self.queue.remove(waiter.ref)
                refusal = self._no_waiting(0.0 if waiter.block else 1.0, waiter.block, now)
                if refusal is not None:
                    self._refuse(waiter, refusal)
                else:
                    self.queue.push(waiter)

    def _refusal(self, now: float) -> Exception | None:
        """Why nobody is let in at all."""
        if self.ending:
            return self._over()
        if not self.circuit.allows(now, self.queue):
            cause = self.last_error or self.tripped_by  # a connection may work again before the circuit is closed
            return CircuitOpen(
                f"pool {self.name!r}: the circuit breaker is open after repeated connection failures "
                f"(last: {cause!r}); next try in {self.circuit.retry_in(now):.1f} s",
                pool=self.name,
                cause=cause,
            )
        if self.permanently_failed and self.fleet.staying == self.fleet.count(DOWN):
            return self._unavailable(0.0)
        return None

    def _over(self) -> Exception:
        """What is said to everybody once the pool has stopped or failed."""
        if self.failed is None:
            return PoolStopped(f"pool {self.name!r} was stopped", pool=self.name)
        text = f"pool {self.name!r} has failed ({self.failed!r}); its supervisor starts it again, or gives it up"
        return PoolDown(text, pool=self.name, cause=self.failed)

    def _no_waiting(self, timeout: float, block: bool, now: float) -> Exception | None:
        """Why this caller cannot queue."""
        if not block and not (self.serving and len(self.queue) < self._coming()):
            if self._all_disconnected:
                return self._unavailable(0.0)
            return PoolFull(
                f"pool {self.name!r} is {self.state(now)} ({self.situation(now)}); "
                + self._advice("wait for a worker with block=True, or raise size or max_overflow"),
                pool=self.name,
                waited=0.0,
                status=self.status(now),
            )
        if timeout <= 0:
            self.timeouts += 1
            self._emit("pool.timeout", timeout=0.0)
            return self._too_late(0.0, now)
        limit = self.config.max_waiting
        if limit is not None and len(self.queue) - (self._coming() if self.serving else 0) >= limit:
            self.shed += 1
            self._emit("pool.shed", waiting=len(self.queue))
            return TooManyWaiting(
                f"pool {self.name!r}: {len(self.queue)} callers are waiting, max_waiting is {limit} "
                f"({self.situation(now)}); " + self._advice("slow the callers down, or raise max_waiting or size"),
                pool=self.name,
                waited=0.0,
                status=self.status(now),
            )
        return None

    def _coming(self) -> int:
        """Workers on their way to callers: soon idle, about to reconnect, or overflow that may still be started."""
        reconnecting = 0 if self.down_cause is not None else self.fleet.count(DOWN)
        return self.incoming + reconnecting + self._room

    def _grant(
        self, now: float, ref: Any, holder: Hashable, since: float, stack: str | None, sticky: bool = False
    ) -> bool:
        """Hand out an idle worker; whether it stays with the holder."""
        idle = self.fleet.idle
        worker = idle[next(reversed(idle) if self.config.strategy == "lifo" else iter(idle))]
        self.fleet.move(worker, LEASED)
        lease = Lease(next(self._lease_ids), worker, holder, ref, now, stack)
        worker.lease = lease.id
        worker.calls += 1
        self.leases[lease.id] = lease
        held = self.held.get(holder)
        if held is None:
            held = self.held[holder] = set()
        held.add(lease.id)
        self.checkouts += 1
        waited = now - since
        self.waits.add(waited)
        self._watch_lease(lease, now)
        lease.trial = self.circuit.trial_begins(now)
        if self.observed:
            self._emit("pool.checkout", metadata={"worker": worker.id, "lease": lease.id}, wait_ms=waited * 1e3)
        stays = sticky and self._stand(lease, now)
        self._do(Granted(ref, holder, lease.id, worker.id, waited, worker.suspect, False, stays))
        worker.suspect = False
        return stays

    def _serve(self, now: float) -> None:
        """Match idle workers with waiters, first come, first served, until one of the two runs out."""
        while self.fleet.idle and self.serving:
            waiter, shed = self.queue.pop(now)
            for late, delay in shed:
                self._shed(late, delay, now)
            if waiter is None:
                break
            sticky = waiter.sticky and self._waits_alone(waiter, now)
            stays = self._grant(now, waiter.ref[1], waiter.caller, waiter.since, waiter.stack, sticky)
            if sticky:
                self._use_local(stays, now)

    # -- waiting that ends without a worker -----------------------------------------------------------------

    def _refuse(self, waiter: Waiter, error: Exception) -> None:
        self._do(Refused(waiter.ref[1], waiter.caller, error))

    def _shed(self, waiter: Waiter, delay: float, now: float) -> None:
        self.shed += 1
        waited = now - waiter.since
        target = self.config.queue_target or 0.0
        self._emit("pool.shed", waiting=len(self.queue), wait_ms=waited * 1e3)
        text = (
            f"pool {self.name!r}: shed after {waited * 1e3:.0f} ms in the queue; over the last queue_interval every "
            f"wait was above {delay * 1e3:.0f} ms, queue_target is {target * 1e3:.0f} ms ({self.situation(now)}). "
            "Raise size, make the calls shorter, spread the load, or raise queue_target"
        )
        error = QueueShed(text, pool=self.name, waited=waited, status=self.status(now))
        self._refuse(waiter, self._unavailable(waited) if self._all_disconnected else error)

    def _expire_waiters(self, now: float) -> None:
        for waiter in self.queue.expired(now):
            self.timeouts += 1
            waited = now - waiter.since
            self._emit("pool.timeout", timeout=waited)
            self._refuse(waiter, self._too_late(waited, now))
        for waiter, delay in self.queue.shed(now):
            self._shed(waiter, delay, now)

    def _too_late(self, waited: float, now: float) -> Exception:
        if self._all_disconnected:
            return self._unavailable(waited)
        return CheckoutTimeout(
            f"pool {self.name!r}: no worker within {waited:.2f} s ({self.situation(now)}); "
            + self._advice("look for a leak or slow calls first, then raise size, max_overflow or checkout_timeout"),
            pool=self.name,
            waited=waited,
            status=self.status(now),
        )

    def _advice(self, usual: str) -> str:
        """What to do about a refusal; the usual is of no use where nobody is served on purpose, or nothing is open."""
        if not self.serving:
            return f"the pool is {'draining' if self.draining else 'suspended'}: resume() lets it serve again"
        if not self.leases and self.fleet.incoming:
            return "its workers are still being started, opened or reset: find out what takes so long"
        return usual

    @property
    def _all_disconnected(self) -> bool:
        """Whether no worker has a connection, for a known cause: what callers are to hear of, not of the queue."""
        staying = self.fleet.staying
        return self.last_error is not None and 0 < staying == self.fleet.count(DOWN) + self.fleet.incoming

    def _unavailable(self, waited: float) -> Exception:
        cause = self.last_error or ConnectionError("no reason is known")
        return WorkerUnavailable(
            f"pool {self.name!r}: no worker can connect ({name_of(cause)}: {cause})"
            + ("; it will not be tried again by itself: correct the cause, then recycle() the pool"
               if self.permanently_failed else f"; waited {waited:.2f} s, and reconnecting goes on with backoff: bring "
               "the resource back, or correct worker_args"),
            pool=self.name,
            waited=waited,
            cause=cause,
        )  # fmt: skip

    def _give_up(self, now: float) -> None:
        """No worker will be able to connect: say so to those who wait for nothing else."""
        if self.fleet.staying == self.fleet.count(DOWN):
            for waiter in self.queue.clear():
                self._refuse(waiter, self._unavailable(now - waiter.since))

    # -- a lease ends ---------------------------------------------------------------------------------------

    @step
    def checkin(self, now: float, id: int) -> None:
        """The holder gives the lease back. A lease that is over (taken back meanwhile) is nothing."""
        lease = self.leases.get(id)
        if lease is None:
            self._turn_checked_in(id, now)
            return
        if lease.sandbox is not None:  # its end is for the worker to carry out before anybody else has it
            self._take_back(lease, now, "sandbox")
            return
        if lease.standing is not None and lease.standing.runs:  # the holder has lost its worker, which may yet live
            self._take_back(lease, now, "given up")
            return
        self._give_back(lease, now)
        if lease.trial:
            self._circuit_success(now)
        if self.observed:
            hold = (now - lease.since) * 1e3
            self._emit("pool.checkin", metadata={"worker": lease.worker.id, "lease": id}, hold_ms=hold)
        if lease.leaked:
            self._emit("pool.leak_returned", metadata={"lease": id}, age=now - lease.since)
        self._available(lease.worker, now)
        self._check_drained()

    @step
    def cancel(self, now: float, ref: Any, holder: Hashable) -> None:
        """The caller waits no longer. If the grant crossed its cancel, the lease ends."""
        if self.queue.remove((holder, ref)) is not None:
            return
        lease = self._lease_of(holder, ref)
        if lease is not None:
            self._give_back(lease, now)
            self._available(lease.worker, now)
            self._check_drained()
        elif self.sandboxes:
            self._cancel_turn(ref, holder, now)

    def _give_back(self, lease: Lease, now: float) -> None:
        self.checkins += not lease.rests  # the end of each use of a sticky lease is one already
        self._end_lease(lease.id, now)

    @step
    def caller_down(self, now: float, holder: Hashable) -> None:
        """The holder is gone: its waiters are forgotten, its leases reclaimed."""
        self.queue.of_caller(holder)
        for lease in [self.leases[id] for id in self.held.get(holder, ())]:
            if lease.rests:
                self._orphan(lease, now)
            else:
                self._reclaimed(lease, now, "caller died")
        if self.sandboxes:
            self._holder_left(holder, now)
        self._check_drained()

    @step
    def revoked(self, now: float, id: int, lease: int) -> None:
        """The worker is pristine again after its lease was taken back."""
        worker = self.fleet.workers.get(id)
        if worker is not None and worker.state is REVOKING and worker.awaits == lease:
            self._available(worker, now)
            self._check_drained()
        elif lease in self.turns:
            self._turn_over(lease, now)

    def _end_lease(self, id: int, now: float, why: str | None = None) -> None:
        """The lease is over; `why` tells it to a holder who did not end it."""
        lease = self.leases.pop(id)
        held = self.held[lease.holder]
        held.discard(id)
        if not held:
            del self.held[lease.holder]  # a holder that leases once must not be remembered for ever
        lease.worker.lease = None
        if lease.sandbox is not None:
            self._close(lease.sandbox, why == DIED)
        if not lease.rests:
            self.holds.add(now - lease.used_since)
        if lease.standing is not None:
            self._dissolve(lease)
        if lease.trial:
            self.circuit.trial_ends(now)
        if why is not None:
            self._do(Ended(id, lease.holder, lease.ref, lease.worker.id, why == DIED, why))

    def _take_back(self, lease: Lease, now: float, why: str) -> None:
        """End a lease that its holder did not end: interrupt the worker, and have it reset before it serves again."""
        worker = lease.worker
        self._end_lease(lease.id, now, why)
        self.fleet.move(worker, REVOKING)
        self._do(Revoke(worker.id, lease.id))
        self._await_reset(worker, lease.id, now)

    def _reclaimed(self, lease: Lease, now: float, why: str) -> None:
        self.reclaimed += 1
        metadata = {"worker": lease.worker.id, "lease": lease.id, "why": why}
        self._emit("pool.reclaimed", metadata=metadata, age=now - lease.used_since)
        if why == "caller died" and self.config.on_caller_death == "restart":
            self._end_lease(lease.id, now, why)
            self._stop(lease.worker, now, interrupt=True)
            self._replace(lease.worker, now)
        else:
            self._take_back(lease, now, why)

    def knows(self, holder: Hashable) -> bool:
        """Whether the holder has a lease or a turn, or waits for one."""
        if holder in self.held or self.queue.knows(holder):
            return True
        boxes = self.sandboxes.values()
        return any(box.queue.knows(holder) or (box.turn and box.turn.holder == holder) for box in boxes)

    def _lease_of(self, holder: Hashable, ref: Any) -> Lease | None:
        """The lease that a checkout was answered with, if it is still out (a grant that crossed a cancel)."""
        for id in self.held.get(holder, ()):
            if self.leases[id].ref == ref:
                return self.leases[id]
        return None
