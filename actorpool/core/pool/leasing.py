"""Callers: checkout, waiting, leases, checkin.

`match` is the only place that matches waiters with workers. The semantics are poolboy's (devinus/poolboy), with leases
that belong to the real caller, deadlines on the request, and CoDel in the queue.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from actorpool.config import PoolConfig
from actorpool.core.effects import Granted, Keyed, Refused, UseLocal
from actorpool.core.machine import Effects
from actorpool.core.pool.ending import DIED, Ending
from actorpool.core.pool.leases import Lease
from actorpool.core.pool.queue import Waiter
from actorpool.core.pool.recalls import Recalls
from actorpool.core.pool.returning import Returning
from actorpool.core.pool.sessions import Session
from actorpool.core.pool.sticky import FIRST_LOOK, process_of
from actorpool.core.pool.waiting import Waiting
from actorpool.core.workers import IDLE, LEASED, PARKED, REVOKING, Worker


class Leasing:
    """Mediates between callers and workers: who gets which, and what becomes of it afterwards.

    Args:
        config: the pool's settings.
        returning: what becomes of workers that come back.
        waiting: who may wait.
        ending: ends leases.
        recalls: begins sticky leases, and has them back.
        effects: where to put what is to be done.
    """

    def __init__(
        self,
        config: PoolConfig,
        returning: Returning,
        waiting: Waiting,
        ending: Ending,
        recalls: Recalls,
        effects: Effects,
    ) -> None:
        self.config = config
        self.returning, self.waiting, self.ending, self.recalls = returning, waiting, ending, recalls
        self.lifecycle = lifecycle = ending.lifecycle
        self.life, self.workers, self.connector = lifecycle.life, lifecycle.workers, lifecycle.connector
        self.sessions, self.timers = lifecycle.sessions, lifecycle.timers
        self.stats, self.figures, self.refusals = lifecycle.stats, lifecycle.figures, lifecycle.refusals
        self.queue = waiting.queue
        self.leases, self.sticky, self.sandboxes = ending.leases, ending.sticky, ending.sandboxes
        self._newest_first = config.strategy == "lifo"
        self._do, self._emit = effects.do, effects.emit

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
        waiters = self.queue.waiters
        if waiters and (holder, ref) in waiters:
            return  # the same request once more
        timeout = self.config.checkout_timeout if timeout is None else timeout
        if (sandbox is not None or self.sandboxes.guests) and self.sandboxes.is_meant(holder, sandbox):
            self._enter_sandbox(Waiter((holder, ref), holder, now, now + timeout, block, stack), sandbox, now)
        elif (refusal := self._refusal(now)) is not None:
            self._do(Refused(ref, holder, refusal))
        elif key is not None:
            self._checkout_keyed(now, Waiter((holder, ref), holder, now, now + timeout, block, stack, False, key))
        elif self.workers.idle and self.life.serving and not (waiters and self.figures.wanted):
            self._grant(now, ref, holder, now, stack, sticky)
        else:
            self._wait(now, Waiter((holder, ref), holder, now, now + timeout, block, stack, sticky))

    def _checkout_keyed(self, now: float, waiter: Waiter) -> None:
        session = self.sessions.by_key.get(waiter.key)
        if self.life.serving and session is not None and session.parked_at is not None:
            self._grant_to(waiter, now)  # no other waiter could have it without eviction, which is then under way
        elif session is not None:
            refusal = self.waiting.refusal_for_key(waiter, now)
            if refusal is None:
                self.queue.push(waiter)
            else:
                self.waiting.refuse(waiter, refusal)
        elif self.life.serving and self.workers.idle and not self.figures.wanted:
            self._grant_to(waiter, now)
        else:
            self._wait(now, waiter)

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
        self.recalls.recall_for_waiter(now)
        nonblocking = not waiter.block or waiter.deadline <= now
        if nonblocking and serving and self.figures.wanted < self.figures.prompt:
            waiter.nonblocking = True  # an unused worker is its own, as soon as it is back
            waiter.deadline = max(waiter.deadline, now + self.sticky.return_limit)
        elif (refusal := self.waiting.refusal(waiter.deadline - now, waiter.block, now)) is not None:
            self.waiting.refuse(waiter, refusal)
            return
        self.queue.push(waiter)
        self.lifecycle.refill(now)

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
            worker = idle[next(reversed(idle) if self._newest_first else iter(idle))]
        else:
            worker = session.worker
        self.workers.move(worker, LEASED)
        lease = self.leases.grant(worker, holder, ref, now, stack)
        waited = now - since
        self.stats.checkouts += 1
        self.stats.waits.add(waited)
        if self.ending.watches:
            self.ending.watch(lease, now)
        lease.trial = self.connector.circuit.trial_begins(now)
        if self.recalls.observed:
            self._emit("pool.checkout", metadata={"worker": worker.id, "lease": lease.id}, wait_ms=waited * 1e3)
        is_sticky = sticky and self.recalls.begin(lease, now)
        keyed = None if key is None else self._key(lease, key, session, now)
        self._do(Granted(ref, holder, lease.id, worker.id, waited, worker.suspect, False, is_sticky, keyed))
        worker.suspect = False
        return is_sticky

    def _key(self, lease: Lease, key: Hashable, session: Session | None, now: float) -> Keyed:
        """Make a lease keyed: it goes on with the session there is, or begins one."""
        lease.keyed = True
        if session is None:
            session = self.sessions.begin(key, lease.worker, now)
        else:
            self.sessions.resume(session)
        session.lease = lease.id
        session.leases += 1
        return Keyed(session.fresh, session.lost if session.fresh else None)

    def available(self, worker: Worker, now: float, since: float | None = None) -> None:
        """A worker came back, and was not used since `since` (None: until now)."""
        if self.returning.take_in(worker, now, since):
            if self.queue.waiters:
                self.match(now)
            else:
                self.queue.unneeded()
            self.lifecycle.watch_idle(worker)

    def connected(self, worker: Worker, now: float) -> None:
        """A worker has connected: its connection's lifetime begins."""
        worker.connected_at = now
        worker.expires = self.connector.expiry(now)
        if worker.expires is not None:
            self.timers.at(worker.expires, (self._lifetime_over, worker.id, now))

    def _lifetime_over(self, id: int, connected_at: float, now: float) -> None:
        worker = self.workers.get(id)
        if worker is None or worker.connected_at != connected_at:
            return
        if worker.state is IDLE:
            self.returning.renew(worker, now)
        elif worker.lease in self.sticky.by_id:
            self.recalls.recall(self.leases.by_id[worker.lease], now)

    def match(self, now: float) -> None:
        """Match idle workers with waiters, first come, first served, until one of the two runs out."""
        while (self.workers.idle or self.sessions.parked) and self.life.serving:
            waiter, shed = self.queue.pop(now, self._servable)
            for late, delay in shed:
                self.waiting.shed(late, delay, now)
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

    # -- a lease ends --------------------------------------------------------------------------------------

    def checkin(self, now: float, id: int, empty: bool = False, told: bool = False) -> None:
        """The holder gives the lease back; see `PoolCore.checkin`."""
        lease = self.leases.by_id.get(id)
        if lease is None:
            self.sandboxes.checked_in(id, now)
        elif lease.sandbox is not None:  # its end is for the worker to carry out before any other caller has it
            self.ending.take_back(lease, now, "sandbox")
        elif lease.sticky is not None and lease.sticky.running:  # the holder has lost its worker, which may yet live
            self.ending.take_back(lease, now, "given up")
        else:
            self._give_back(lease, now)
            if lease.trial:
                self.lifecycle.resource_works(now)
            if self.recalls.observed:
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
        if lease is not None and lease.sticky is not None and lease.sticky.running:  # as in `checkin`
            self.ending.take_back(lease, now, "given up")
        elif lease is not None:
            self._give_back(lease, now)
            self.sessions.not_begun(lease.worker, told=False)
            self.sessions.end_empty(lease.worker)
            self._returned(lease.worker, now)
        else:
            self.sandboxes.cancel(holder, ref, now)

    def _give_back(self, lease: Lease, now: float) -> None:
        self.stats.checkins += not lease.unused  # the end of each use of a sticky lease is one already
        self.ending.end(lease, now)

    def caller_down(self, now: float, holder: Hashable) -> None:
        """The holder is gone: its waiters are forgotten, its leases reclaimed."""
        self.queue.of_caller(holder)
        for lease in self.leases.of_holder(holder):
            if lease.sticky is not None and lease.unused:  # no reclaim, unless its last call was on its way
                lease.sticky.orphaned = True
                self.recalls.recall(lease, now)
                self.timers.at(now + FIRST_LOOK, (self.recalls.look_after, lease.id, now))
            else:
                self.ending.reclaim(lease, now, "caller died")
        for turn in self.sandboxes.holder_died(holder):
            self.ending.revoke_turn(turn, now)

    def revoked(self, now: float, id: int, lease: int) -> None:
        """The worker is pristine again after its lease was revoked."""
        worker = self.workers.get(id, REVOKING)
        if worker is not None and worker.revoked_lease == lease:
            self.sessions.was_reset(id)
            self._returned(worker, now)
        else:
            self.sandboxes.turn_over(lease, now)

    def recalled(self, now: float, id: int, lease: int) -> None:
        """The worker is back from its caller. A lease that has ended meanwhile is nothing."""
        recalled = self.sticky.by_id.get(lease)
        if recalled is not None and recalled.sticky is not None and recalled.worker.id == id:
            self.ending.end(recalled, now)
            self.available(recalled.worker, now, recalled.sticky.counter.read().until)

    def _returned(self, worker: Worker, now: float) -> None:
        """A worker is back from its holder: it is parked with the state of its key, or free."""
        session = self.sessions.of_worker(worker)
        if session is None or worker.broken or self.life.ending:
            self.available(worker, now)
            return
        why = session.ending
        if self.lifecycle.surplus > len(self.sessions.surplus):
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
            if self.figures.wanted:
                self.recalls.recall_for_waiter(now)
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
        """The worker of a lease has died.

        A holder that was told of a loss with the grant, and has called nothing, has lost nothing since. (Without a loss
        to be told, a call may have reached the worker that was not counted yet.)
        """
        session = self.sessions.of_worker(lease.worker)
        if session is not None and session.lost is not None:
            self.sessions.end_unused(lease.worker, told=True)
        self.ending.end(lease, now, DIED)

    def knows(self, holder: Hashable) -> bool:
        """Whether the holder has a lease or a turn, or waits for one."""
        return holder in self.leases.by_holder or self.queue.knows(holder) or self.sandboxes.knows(holder)

    # -- sandboxes -----------------------------------------------------------------------------------------

    def _enter_sandbox(self, waiter: Waiter, key: str | None, now: float) -> None:
        sandbox = self.sandboxes.find(waiter.caller, key)
        if sandbox is None:
            self.waiting.refuse(waiter, self.refusals.sandbox_over())
        elif waiter.ref in sandbox.queue:
            pass  # the same request once more
        elif process_of(waiter.caller) not in sandbox.processes:
            self.waiting.refuse(waiter, self.refusals.not_let_in())
        elif sandbox.turn is not None and not waiter.block:
            self.waiting.refuse(waiter, self.refusals.sandbox_busy(now))
        elif sandbox.turn is not None and waiter.deadline <= now:
            self.waiting.refuse(waiter, self.waiting.no_turn_in_time(sandbox, 0.0, now))
        else:
            self.sandboxes.enter(sandbox, waiter, now)
