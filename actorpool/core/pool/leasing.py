"""Callers: checkout, waiting, leases, checkin, and taking back what a caller does not give back.

`match` is the only place that matches waiters with workers. The semantics are poolboy's (devinus/poolboy), with leases
that belong to the real caller, deadlines on the request, and CoDel in the queue.

It is longer than other modules because it says in one place how these parts play together; each part is short.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

from actorpool.config import PoolConfig
from actorpool.core.effects import Ended, Granted, Keyed, Refused, Revoke, UseLocal
from actorpool.core.machine import Effects, TimerQueue
from actorpool.core.pool.leases import Lease, Leases
from actorpool.core.pool.queue import Waiter, WaitingQueue
from actorpool.core.pool.sandbox import Sandbox, Sandboxes
from actorpool.core.pool.sessions import Session
from actorpool.core.pool.sticky import FIRST_LOOK, StickyLeases, process_of
from actorpool.core.pool.sticky_lease import UsageCounter
from actorpool.core.pool.worker_lifecycle import WorkerLifecycle
from actorpool.core.pool.workers import LEASED, PARKED, REVOKING, Worker

DIED = "worker died"


class Leasing:
    """Mediates between what knows of callers and leases, above the life of the workers.

    Args:
        config: the pool's settings.
        lifecycle: what there is of workers.
        queue, leases, sticky, sandboxes: parts of the pool.
        timers: where to have oneself called later.
        effects: where to put what is to be done.
        counter: where a worker counts its uses, by its id; None where no lease of it can be sticky.
    """

    def __init__(
        self,
        config: PoolConfig,
        lifecycle: WorkerLifecycle,
        queue: WaitingQueue,
        leases: Leases,
        sticky: StickyLeases,
        sandboxes: Sandboxes,
        timers: TimerQueue,
        effects: Effects,
        counter: Callable[[int], UsageCounter | None],
    ) -> None:
        self.config = config
        self.lifecycle = lifecycle
        self.life, self.workers, self.connector = lifecycle.life, lifecycle.workers, lifecycle.connector
        self.sessions = lifecycle.sessions
        self.stats, self.figures, self.refusals = lifecycle.stats, lifecycle.figures, lifecycle.refusals
        self.queue = queue
        self.leases = leases
        self.sticky = sticky
        self.sandboxes = sandboxes
        self.timers = timers
        self.observed = False  # a listener wants an event for each checkout and checkin
        self._do, self._emit = effects.do, effects.emit
        self._counter = counter

    # -- checkout ------------------------------------------------------------------------------------------

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
        key: Hashable = None,
    ) -> None:
        """Ask for a worker; see `PoolCore.checkout`."""
        if len(self.queue) and (holder, ref) in self.queue:
            return  # the same request once more
        timeout = self.config.checkout_timeout if timeout is None else timeout
        if (sandbox is not None or self.sandboxes.guests) and self.sandboxes.is_meant(holder, sandbox):
            self._enter_sandbox(Waiter((holder, ref), holder, now, now + timeout, block, stack), sandbox, now)
        elif (refusal := self._refusal(now)) is not None:
            self._do(Refused(ref, holder, refusal))
        elif key is not None:
            self._checkout_keyed(now, Waiter((holder, ref), holder, now, now + timeout, block, stack, False, key))
        elif self.workers.idle and self.life.serving and not (len(self.queue) and self.figures.wanted):
            self._grant(now, ref, holder, now, stack, sticky)
        else:
            self._wait(now, Waiter((holder, ref), holder, now, now + timeout, block, stack, sticky))

    def _checkout_keyed(self, now: float, waiter: Waiter) -> None:
        session = self.sessions.by_key.get(waiter.key)
        if self.life.serving and session is not None and session.parked_at is not None:
            self._grant_to(waiter, now)  # no other waiter could have it without eviction, which is then under way
        elif session is not None:
            refusal = self._no_waiting_for_key(waiter, now)
            if refusal is None:
                self.queue.push(waiter)
            else:
                self.refuse(waiter, refusal)
        elif self.life.serving and self.workers.idle and not self.figures.wanted:
            self._grant_to(waiter, now)
        else:
            self._wait(now, waiter)

    def _no_waiting_for_key(self, waiter: Waiter, now: float) -> Exception | None:
        """Why this request cannot be queued behind the caller that has its key."""
        if not waiter.block:
            return self.refusals.key_in_use(waiter.key, now)
        return self._no_waiting(waiter.deadline - now, True, now, waiter.key)

    def _refusal(self, now: float) -> Exception | None:
        """Why no caller is let in at all."""
        if self.life.ending:
            return self.refusals.over()
        if not self.connector.circuit.allows(now, self.queue):
            return self.refusals.circuit_open(now)
        if self.connector.permanently_failed and self.workers.all_down:
            return self.refusals.unavailable(0.0)
        return None

    def _wait(self, now: float, waiter: Waiter) -> None:
        """No worker is idle. Recall sticky leases, then queue this request if it is allowed to wait."""
        serving = self.life.serving
        if waiter.sticky and serving and not len(self.queue) and self.sticky.all_local(waiter):
            self._do(UseLocal(waiter.ref[1], waiter.caller))
            return
        self.sticky.wanted(waiter, now)
        self._recall_sticky(now)
        nonblocking = not waiter.block or waiter.deadline <= now
        if nonblocking and serving and self.figures.wanted < self.figures.prompt:
            waiter.nonblocking = True  # an unused worker is its own, as soon as it is back
            waiter.deadline = max(waiter.deadline, now + self.sticky.return_limit)
        elif (refusal := self._no_waiting(waiter.deadline - now, waiter.block, now)) is not None:
            self.refuse(waiter, refusal)
            return
        self.queue.push(waiter)
        self.lifecycle.refill(now)

    def _no_waiting(self, timeout: float, block: bool, now: float, key: Hashable = None) -> Exception | None:
        """Why this request cannot be queued; `key`: it would wait for another caller that has this key."""
        waiting = len(self.queue)
        if not block and not (self.life.serving and waiting < self._coming()):
            return self.refusals.full(now)
        if timeout <= 0:
            self.stats.timeouts += 1
            self._emit("pool.timeout", timeout=0.0)
            return self.refusals.too_late(0.0, now, key)
        limit = self.config.max_waiting
        if limit is not None and waiting - (self._coming() if self.life.serving else 0) >= limit:
            self.stats.shed += 1
            self._emit("pool.shed", waiting=waiting)
            return self.refusals.too_many(waiting, now)
        return None

    def _coming(self) -> int:
        """Workers on their way to callers: soon idle, about to reconnect, or overflow that may still be started."""
        reconnecting = 0 if self.connector.down_cause is not None else len(self.workers.down)
        return self.figures.incoming + reconnecting + len(self.sessions.parked) + self.lifecycle.room

    def _review_nonblocking(self, now: float) -> None:
        """Fewer workers return than were counted on: decide anew about requests that would not have waited."""
        returning = self.figures.prompt
        for place, waiter in enumerate(list(self.queue)):
            if waiter.nonblocking and place >= returning:
                waiter.nonblocking = False
                self.queue.remove(waiter.ref)
                refusal = self._no_waiting(0.0 if waiter.block else 1.0, waiter.block, now)
                if refusal is not None:
                    self.refuse(waiter, refusal)
                else:
                    self.queue.push(waiter)

    def _grant_to(self, waiter: Waiter, now: float, sticky: bool = False) -> bool:
        return self._grant(now, waiter.ref[1], waiter.caller, waiter.since, waiter.stack, sticky, waiter.key)

    def _grant(
        self,
        now: float,
        ref: Any,
        holder: Hashable,
        since: float,
        stack: str | None,
        sticky: bool = False,
        key: Hashable = None,
    ) -> bool:
        """Grant an idle worker, or the parked one of the key. Returns whether the lease is sticky."""
        session = None if key is None else self.sessions.by_key.get(key)
        if session is None:
            idle = self.workers.idle
            worker = idle[next(reversed(idle) if self.config.strategy == "lifo" else iter(idle))]
        else:
            worker = session.worker
        self.workers.move(worker, LEASED)
        lease = self.leases.grant(worker, holder, ref, now, stack)
        waited = now - since
        self.stats.checkouts += 1
        self.stats.waits.add(waited)
        self._watch_lease(lease, now)
        lease.trial = self.connector.circuit.trial_begins(now)
        if self.observed:
            self._emit("pool.checkout", metadata={"worker": worker.id, "lease": lease.id}, wait_ms=waited * 1e3)
        is_sticky = sticky and self._make_sticky(lease, now)
        keyed = None if key is None else self._key(lease, key, session, now)
        self._do(Granted(ref, holder, lease.id, worker.id, waited, worker.suspect, False, is_sticky, keyed))
        worker.suspect = False
        return is_sticky

    def _key(self, lease: Lease, key: Hashable, session: Session | None, now: float) -> Keyed:
        """Make a lease keyed: it goes on with the session there is, or begins one."""
        lease.keyed = True
        lost = None
        if session is None:
            lost = self.sessions.begin(key, lease.worker, now)
            session, fresh = self.sessions.by_key[key], True
        else:
            self.sessions.resume(session)
            fresh = False
        session.lease = lease.id
        session.leases += 1
        return Keyed(fresh, lost)

    def available(self, worker: Worker, now: float, since: float | None = None) -> None:
        """A worker came back, and was not used since `since` (None: until now)."""
        if self.lifecycle.take_in(worker, now, since):
            if len(self.queue):
                self.match(now)
            else:
                self.queue.unneeded()
            self.lifecycle.watch_idle(worker)

    def match(self, now: float) -> None:
        """Match idle workers with waiters, first come, first served, until one of the two runs out."""
        while (self.workers.idle or self.sessions.parked) and self.life.serving:
            waiter, shed = self.queue.pop(now, self._servable)
            for late, delay in shed:
                self._shed(late, delay, now)
            if waiter is None:
                break
            sticky = waiter.sticky and self.sticky.waits_alone(waiter, self.queue, now)
            if self._grant_to(waiter, now, sticky):  # the other waiters are of the same process and must share it
                for other in list(self.queue):
                    self.queue.remove(other.ref)
                    self._do(UseLocal(other.ref[1], other.caller))
            elif sticky:
                self.sticky.crowded(now)

    def _servable(self, waiters: Iterator[Waiter]) -> Waiter | None:
        """The first waiter for which there is a worker now.

        A waiter for a key that is in use is passed over. One that takes the parked worker of its key may pass those
        for which other workers are on their way, and no others: for them, its worker is evicted.
        """
        passed = 0
        for waiter in waiters:
            session = None if waiter.key is None else self.sessions.by_key.get(waiter.key)
            if session is None and self.workers.idle:
                return waiter
            if session is not None and session.parked_at is None:
                continue
            if passed > self.figures.incoming:
                return None
            if session is not None:
                return waiter
            passed += 1
        return None

    # -- waiting that ends without a worker ----------------------------------------------------------------

    def refuse(self, waiter: Waiter, error: Exception) -> None:
        self._do(Refused(waiter.ref[1], waiter.caller, error))

    def _shed(self, waiter: Waiter, delay: float, now: float) -> None:
        self.stats.shed += 1
        waited = now - waiter.since
        self._emit("pool.shed", waiting=len(self.queue), wait_ms=waited * 1e3)
        self.refuse(waiter, self.refusals.shed(waited, delay, now))

    def expire_waiters(self, now: float) -> None:
        for waiter in self.queue.expired(now):
            self.stats.timeouts += 1
            waited = now - waiter.since
            self._emit("pool.timeout", timeout=waited)
            busy = waiter.key if self.sessions.is_busy(waiter.key) else None
            self.refuse(waiter, self.refusals.too_late(waited, now, busy))
        for waiter, delay in self.queue.shed(now):
            self._shed(waiter, delay, now)
        for sandbox, waiter in self.sandboxes.expired(now):
            self.refuse(waiter, self._no_turn_in_time(sandbox, now - waiter.since, now))

    def turn_away(self, error: Callable[[Waiter], Exception]) -> None:
        """Refuse all waiters."""
        for waiter in self.queue.clear():
            self.refuse(waiter, error(waiter))

    # -- a lease ends --------------------------------------------------------------------------------------

    def checkin(self, now: float, id: int, empty: bool = False, told: bool = False) -> None:
        """The holder gives the lease back; see `PoolCore.checkin`."""
        lease = self.leases.by_id.get(id)
        if lease is None:
            self.sandboxes.checked_in(id, now)
        elif lease.sandbox is not None:  # its end is for the worker to carry out before any other caller has it
            self.take_back(lease, now, "sandbox")
        elif lease.sticky is not None and lease.sticky.running:  # the holder has lost its worker, which may yet live
            self.take_back(lease, now, "given up")
        else:
            self._give_back(lease, now)
            if lease.trial:
                self.lifecycle.resource_works(now)
            if self.observed:
                hold = (now - lease.since) * 1e3
                self._emit("pool.checkin", metadata={"worker": lease.worker.id, "lease": id}, hold_ms=hold)
            if lease.leaked:
                self._emit("pool.leak_returned", metadata={"lease": id}, age=now - lease.since)
            if empty:
                self.sessions.not_begun(lease.worker, told)
            self._returned(lease.worker, now)

    def cancel(self, now: float, ref: Any, holder: Hashable) -> None:
        """The caller waits no longer. If the grant crossed its cancel, the lease ends."""
        if self.queue.remove((holder, ref)) is not None:
            return
        lease = self.leases.of_request(holder, ref)
        if lease is not None:
            self._give_back(lease, now)
            self.sessions.not_begun(lease.worker, told=False)
            self._returned(lease.worker, now)
        else:
            self.sandboxes.cancel(holder, ref, now)

    def _give_back(self, lease: Lease, now: float) -> None:
        self.stats.checkins += not lease.unused  # the end of each use of a sticky lease is one already
        self.end(lease, now)

    def caller_down(self, now: float, holder: Hashable) -> None:
        """The holder is gone: its waiters are forgotten, its leases reclaimed."""
        self.queue.of_caller(holder)
        for lease in self.leases.of_holder(holder):
            if lease.sticky is not None and lease.unused:  # no reclaim, unless its last call was on its way
                lease.sticky.orphaned = True
                self.recall(lease, now)
                self.timers.at(now + FIRST_LOOK, (self._look_after_recalled, lease.id, now))
            else:
                self.reclaim(lease, now, "caller died")
        for turn in self.sandboxes.holder_died(holder):
            self._revoke_turn(turn, now)

    def revoked(self, now: float, id: int, lease: int) -> None:
        """The worker is pristine again after its lease was revoked."""
        worker = self.workers.get(id, REVOKING)
        if worker is not None and worker.revoked_lease == lease:
            self.sessions.evicting.discard(id)
            self._returned(worker, now)
        else:
            self.sandboxes.turn_over(lease, now)

    def recalled(self, now: float, id: int, lease: int) -> None:
        """The worker is back from its caller. A lease that has ended meanwhile is nothing."""
        recalled = self.sticky.by_id.get(lease)
        if recalled is not None and recalled.sticky is not None and recalled.worker.id == id:
            self.end(recalled, now)
            self.available(recalled.worker, now, recalled.sticky.counter.read().until)

    def _returned(self, worker: Worker, now: float) -> None:
        """A worker is back from its holder: it is parked with the state of its key, or free."""
        session = self.sessions.of_worker(worker)
        if session is None or worker.broken or self.life.ending:
            self.available(worker, now)
            return
        why = session.ending
        if self.lifecycle.surplus > 0:
            why = why or "overflow"
        elif worker.id in self.lifecycle.recycling.to_recycle:
            why = why or "recycled"
        if why is not None:
            self.lifecycle.evict(worker, why, now)
            return
        self.workers.move(worker, PARKED)
        self.sessions.park(session, now)
        self.timers.at(now + self.config.session_idle, (self.lifecycle.session_expired, worker.id, now))
        self.match(now)
        self.lifecycle.refill(now)

    def serve_keys(self, now: float) -> None:
        """Serve callers that waited for a key whose session has just ended: any worker will do for them now."""
        if self.queue.keyed:
            self.match(now)
            self.lifecycle.refill(now)

    def end_session(self, key: Hashable, now: float) -> bool:
        """End the session of a key, at once or when it is given back; False: there is none."""
        session = self.sessions.by_key.get(key)
        if session is None:
            return False
        if session.parked_at is None:
            session.ending = "ended"
        else:
            self.lifecycle.evict(session.worker, "ended", now)
        return True

    def worker_died(self, lease: Lease, now: float) -> None:
        """The worker of a lease has died."""
        self.end(lease, now, DIED)

    def end(self, lease: Lease, now: float, why: str | None = None) -> None:
        """End the lease; `why` is what a holder that did not end it is told."""
        self.leases.end(lease)
        if lease.sandbox is not None:
            self.sandboxes.close(lease, why == DIED, self.refusals.sandbox_over())
        if not lease.unused:
            self.stats.holds.add(now - lease.used_since)
        if lease.sticky is not None:
            self.stats.settle(lease)
            self.sticky.end(lease)
        if lease.trial:
            self.connector.circuit.trial_ends(now)
        if why is not None:
            self._do(Ended(lease.id, lease.holder, lease.ref, lease.worker.id, why == DIED, why))

    def take_back(self, lease: Lease, now: float, why: str) -> None:
        """End a lease that its holder did not end: interrupt the worker, and have it reset before it serves again."""
        self.end(lease, now, why)
        self.workers.move(lease.worker, REVOKING)
        session = self.sessions.of_worker(lease.worker) if lease.keyed else None
        if session is not None and session.ending is not None:
            self.sessions.end(lease.worker, session.ending)
            session = None
        self._do(Revoke(lease.worker.id, lease.id, keep=session is not None))
        self.lifecycle.await_reset(lease.worker, lease.id, now)

    def reclaim(self, lease: Lease, now: float, why: str) -> None:
        self.stats.reclaimed += 1
        metadata = {"worker": lease.worker.id, "lease": lease.id, "why": why}
        self._emit("pool.reclaimed", metadata=metadata, age=now - lease.used_since)
        if why == "caller died" and self.config.on_caller_death == "restart":
            self.end(lease, now, why)
            self.lifecycle.stop(lease.worker, now, interrupt=True)
            self.lifecycle.replace(lease.worker, now)
        else:
            self.take_back(lease, now, why)

    def knows(self, holder: Hashable) -> bool:
        """Whether the holder has a lease or a turn, or waits for one."""
        return holder in self.leases.by_holder or self.queue.knows(holder) or self.sandboxes.knows(holder)

    # -- how long a lease may take -------------------------------------------------------------------------

    def limit(self, now: float, id: int, seconds: float) -> None:
        """Bound what runs under this lease: after `seconds` it is abandoned (for calls that no client times)."""
        if self.lease(id) is not None:
            self._remind(now + seconds, (self.overran, id, None))

    def overran(self, id: int, _since: None, now: float) -> None:
        lease = self.lease(id)
        if lease is not None:
            self._emit("call.timeout", metadata={"worker": lease.worker.id, "lease": id})
            if id in self.sandboxes.turns:
                self._revoke_turn(id, now)
            else:
                self.take_back(lease, now, "timeout")

    def _watch_lease(self, lease: Lease, now: float) -> None:
        """Set the timers of a lease."""
        if self.config.max_lease is not None:
            self._remind(now + self.config.max_lease, (self._overdue, lease.id, None))
        if self.config.leak_threshold is not None:
            self._remind(now + self.config.leak_threshold, (self._leaking, lease.id, None))

    def _remind(self, when: float, what: tuple[Any, int, None]) -> None:
        """Set a timer about a lease. Most leases end long before."""
        self.leases.timers.tidy(lambda entry: self.lease(entry[1]) is not None)
        self.leases.timers.at(when, what)

    def _overdue(self, id: int, _since: None, now: float) -> None:
        lease = self.leases.by_id.get(id)
        if lease is not None:
            self.reclaim(lease, now, "max_lease")

    def _leaking(self, id: int, _since: None, now: float) -> None:
        lease = self.leases.by_id.get(id)
        if lease is not None:
            lease.leaked = True
            metadata = {"lease": id, "holder": str(getattr(lease.holder, "pid", "?")), "stack": lease.stack or ""}
            self._emit("pool.leak", metadata=metadata, age=now - lease.since)

    def lease(self, id: int) -> Lease | None:
        """The lease of that id, or the turn in a sandbox, if it is out."""
        return self.leases.by_id.get(id) or self.sandboxes.turns.get(id)

    # -- sticky leases -------------------------------------------------------------------------------------

    def _make_sticky(self, lease: Lease, now: float) -> bool:
        """Let a lease be sticky if it may; whether it is."""
        if (
            self.observed
            or lease.trial
            or self.sandboxes.guests
            or self.lifecycle.recycling.to_recycle
            or self.lifecycle.surplus > 0
            or not self.sticky.may_begin(lease.worker, now)
            or (counter := self._counter(lease.worker.id)) is None
        ):
            return False
        self.sticky.begin(lease, counter)
        self._plan_look(now)
        return True

    def recall(self, lease: Lease, now: float) -> None:
        """Have the worker back: at once if it is unused, or after what it runs."""
        recall = self.sticky.recall(lease)
        if recall is not None:
            self.timers.at(now + FIRST_LOOK, (self._look_after_recalled, lease.id, now))
            self._do(recall)

    def _recall_sticky(self, now: float) -> None:
        for lease in self.sticky.by_id.values():
            self.recall(lease, now)

    def recall_all(self, now: float) -> None:
        """Have every worker where it can be seen, and let no lease be sticky for a while."""
        self.sticky.crowded(now)
        self._recall_sticky(now)

    def _look_after_recalled(self, id: int, since: float, now: float) -> None:
        """Look after a recalled worker, less and less often: it is in use, or it tidies up, or it hangs."""
        lease = self.sticky.by_id.get(id)
        if lease is None or lease.sticky is None:
            return
        wait = min(max(now - since, FIRST_LOOK), self.sticky.return_limit)
        if not lease.unused:
            if lease.sticky.orphaned:
                self.reclaim(lease, now, "caller died")
                return
            if id in self.sticky.returning:
                self.sticky.returning.discard(id)
                self.lifecycle.refill(now)
                self._review_nonblocking(now)
        else:
            left = self.sticky.time_left(lease, since, now)
            if left < 1e-3:
                self.take_back(lease, now, "recalled")
                return
            wait = min(wait, left)
        self.timers.at(now + wait, (self._look_after_recalled, id, since))

    def _plan_look(self, now: float) -> None:
        if not self.sticky.look_planned:
            self.sticky.look_planned = True
            self.timers.at(now + self.sticky.interval, (self._recall_unused, None, None))

    def _recall_unused(self, _key: None, _since: None, now: float) -> None:
        """Recall what was not used since the last look."""
        for lease in list(self.sticky.by_id.values()):
            if lease.sticky is not None and lease.sticky.idles():
                self.recall(lease, now)
        self.sticky.look_planned = False
        if self.sticky.by_id:
            self._plan_look(now)

    # -- sandboxes -----------------------------------------------------------------------------------------

    def _enter_sandbox(self, waiter: Waiter, key: str | None, now: float) -> None:
        sandbox = self.sandboxes.find(waiter.caller, key)
        if sandbox is None:
            self.refuse(waiter, self.refusals.sandbox_over())
        elif waiter.ref in sandbox.queue:
            pass  # the same request once more
        elif process_of(waiter.caller) not in sandbox.processes:
            self.refuse(waiter, self.refusals.not_let_in())
        elif sandbox.turn is not None and not waiter.block:
            self.refuse(waiter, self.refusals.sandbox_busy(now))
        elif sandbox.turn is not None and waiter.deadline <= now:
            self.refuse(waiter, self._no_turn_in_time(sandbox, 0.0, now))
        else:
            self.sandboxes.enter(sandbox, waiter, now)

    def _no_turn_in_time(self, sandbox: Sandbox, waited: float, now: float) -> Exception:
        self.stats.timeouts += 1
        return self.refusals.no_turn_in_time(sandbox, waited, now)

    def _revoke_turn(self, id: int, now: float) -> None:
        if self.sandboxes.revoke_turn(id):
            self.timers.at(now + self.config.kill_after, (self._turn_unanswered, id, None))

    def _turn_unanswered(self, id: int, _since: None, now: float) -> None:
        turn = self.sandboxes.turns.get(id)
        if turn is not None:
            self.end(self.sandboxes.by_key[turn.sandbox or ""].lease, now, DIED)
            self.lifecycle.kill(turn.worker, now)
