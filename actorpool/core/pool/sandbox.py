"""Sandboxes: a leased worker that several callers use in turn, each under a lease of its own within the owner's.

The owner's lease is an ordinary one, and whatever ends it ends the sandbox: a checkin, its holder's or its worker's
death, `max_lease`, a drain. Those who may come in ask for a turn as they would for a worker; turns are first come,
first served. A turn that is taken back (its holder died, a call of it timed out) costs the others nothing: the worker
goes back to where that turn began.

The ids of turns are those of leases, so they grow too, and a turn that is over can never run anything again.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from actorpool._protocol.sandboxes import OUTSIDE
from actorpool.core.effects import Answer, Ended, Granted, Refused, Revoke
from actorpool.core.machine import step
from actorpool.core.pool.connector import Connector
from actorpool.core.pool.ledger import Lease
from actorpool.core.pool.queue import Waiter, WaitingQueue
from actorpool.core.pool.workers import REVOKING, STOPPING
from actorpool.core.pool.workforce import DIED
from actorpool.errors import CheckoutTimeout, LeaseExpired, PoolFull


class Sandbox:
    """A lease that others may use in turn.

    Args:
        key: names it; whoever knows it and may come in asks for a turn by it.
        lease: the owner's.
        owner: the process it belongs to.
    """

    def __init__(self, key: str, lease: Lease, owner: Hashable) -> None:
        self.key = key
        self.lease = lease
        self.processes = {owner}
        self.queue = WaitingQueue()
        self.turn: Lease | None = None
        self.taken_back = False  # the turn is over, and the worker on its way back to where it began


def process_of(holder: Hashable) -> Hashable:
    """The process that a holder stands for."""
    return getattr(holder, "caller", holder)


class Sandboxes(Connector):
    """The layer that knows which leases are shared, and among whom."""

    # -- opening and closing --------------------------------------------------------------------------------

    def enclose(self, key: str, id: int, owner: Hashable) -> Exception | None:
        """Make the owner's lease a sandbox; the error, if that lease is over."""
        lease = self.leases.get(id)
        if lease is None:
            return LeaseExpired(f"pool {self.name!r}: lease {id} is over, no sandbox was opened on it", pool=self.name)
        lease.sandbox = self.sandboxes[key] = Sandbox(key, lease, owner)
        return None

    @step
    def allow(self, now: float, ref: Any, key: str, process: Hashable) -> None:
        """Let all calls of another process into a sandbox, until it is over. `Answer(ref)`, or the error."""
        sandbox = self.sandboxes.get(key)
        if sandbox is None:
            self._do(Answer(ref, self._sandbox_over()))
        elif self.guests.get(process, sandbox) is not sandbox:
            text = f"pool {self.name!r}: that process is in another sandbox; end that one first"
            self._do(Answer(ref, ValueError(text)))
        else:
            sandbox.processes.add(process)
            self.guests[process] = sandbox
            self._recall_all(now)  # it may have a worker of its own, which is no way into the sandbox
            self._do(Answer(ref))

    @step
    def release(self, now: float, ref: Any, key: str) -> None:
        """End a sandbox: who waits is refused, what runs interrupted. `Answer(ref)` once the worker is pristine."""
        sandbox = self.sandboxes.get(key)
        if sandbox is None:
            self._do(Answer(ref))
            return
        self.closers.append((sandbox.lease.worker.id, ref))
        self._take_back(sandbox.lease, now, "sandbox")

    def _close(self, sandbox: Sandbox, died: bool) -> None:
        """The owner's lease is over, and the turns in it."""
        del self.sandboxes[sandbox.key]
        for process in [process for process, box in self.guests.items() if box is sandbox]:
            del self.guests[process]
        for waiter in sandbox.queue.clear():
            self._do(Refused(waiter.ref[1], waiter.caller, self._sandbox_over()))
        turn, told = sandbox.turn, sandbox.taken_back
        if turn is not None:
            self._forget_turn(sandbox)
            if not told:
                self._do(Ended(turn.id, turn.holder, turn.ref, turn.worker.id, died))

    def _check_drained(self) -> None:
        """A pool is drained when nothing runs any more: also not in workers that are being interrupted or ended."""
        if self.closers:
            self._check_closed()
        if self.drainers and not self.leases and not self.fleet.count(REVOKING, STOPPING):
            self._answer(self.drainers)

    def _answer(self, refs: list[Any], value: Any = None) -> None:
        for ref in refs:
            self._do(Answer(ref, value))
        refs.clear()

    def _check_closed(self) -> None:
        """Answer who waits for a worker that was in a sandbox to be pristine again."""
        for closer in list(self.closers):
            if closer[0] not in self.fleet.places[REVOKING]:
                self.closers.remove(closer)
                self._do(Answer(closer[1]))

    # -- turns --------------------------------------------------------------------------------------------

    def sandbox_of(self, process: Hashable) -> str | None:
        """The sandbox that all calls of this process go to, if any."""
        sandbox = self.guests.get(process)
        return None if sandbox is None else sandbox.key

    def _enters(self, now: float, waiter: Waiter, key: str | None) -> bool:
        """Whether a checkout is for a sandbox; then it is dealt with here."""
        if key == OUTSIDE or (key is None and process_of(waiter.caller) not in self.guests):
            return False
        sandbox = self.guests[process_of(waiter.caller)] if key is None else self.sandboxes.get(key)
        if sandbox is not None and waiter.ref in sandbox.queue:
            return True  # the same request once more
        refusal = self._sandbox_over() if sandbox is None else self._no_turn(sandbox, waiter, now)
        if refusal is not None:
            self._do(Refused(waiter.ref[1], waiter.caller, refusal))
        elif sandbox is not None and sandbox.turn is not None:
            sandbox.queue.push(waiter)
        elif sandbox is not None:
            self._give_turn(sandbox, waiter, now)
        return True

    def _no_turn(self, sandbox: Sandbox, waiter: Waiter, now: float) -> Exception | None:
        """Why this caller cannot even wait for a turn."""
        if process_of(waiter.caller) not in sandbox.processes:
            return LeaseExpired(
                f"pool {self.name!r}: the sandbox belongs to another process; let this one in with box.allow(pid), "
                "or use a handle of the pool that was made outside of the sandbox",
                pool=self.name,
            )
        if sandbox.turn is None:
            return None
        if not waiter.block:
            text = f"pool {self.name!r}: the sandbox has one worker, and it is in use; wait for it with block=True"
            return PoolFull(text, pool=self.name, status=self.status(now))
        if waiter.deadline <= now:
            return self._no_turn_in_time(sandbox, 0.0, now)
        return None

    def _no_turn_in_time(self, sandbox: Sandbox, waited: float, now: float) -> Exception:
        self.timeouts += 1
        turn = sandbox.turn
        held = "" if turn is None else f"held for {now - turn.since:.1f} s by pid {getattr(turn.holder, 'pid', '?')}, "
        return CheckoutTimeout(
            f"pool {self.name!r}: no turn in the sandbox within {waited:.2f} s ({held}{len(sandbox.queue)} waiting): "
            "in a sandbox all callers share one worker, so end the lease or transaction that is open, or call by it",
            pool=self.name,
            waited=waited,
            status=self.status(now),
        )

    def _sandbox_over(self) -> Exception:
        text = f"pool {self.name!r}: the sandbox is over: it was left, or its owner or its worker has died"
        return LeaseExpired(text, pool=self.name)

    def _next_turn(self, sandbox: Sandbox, now: float) -> None:
        waiter, _ = sandbox.queue.pop(now)
        if waiter is not None:
            self._give_turn(sandbox, waiter, now)

    def _give_turn(self, sandbox: Sandbox, waiter: Waiter, now: float) -> None:
        worker = sandbox.lease.worker
        turn = Lease(next(self._lease_ids), worker, waiter.caller, waiter.ref[1], now, waiter.stack)
        turn.sandbox = sandbox
        sandbox.turn = self.turns[turn.id] = turn
        worker.calls += 1
        self._do(Granted(turn.ref, turn.holder, turn.id, worker.id, now - waiter.since, False, True))

    def _forget_turn(self, sandbox: Sandbox) -> None:
        assert sandbox.turn is not None
        del self.turns[sandbox.turn.id]
        sandbox.turn = None
        sandbox.taken_back = False

    def _turn_over(self, id: int, now: float) -> None:
        """The worker is back from this turn; one that is over already is nothing."""
        turn = self.turns.get(id)
        if turn is not None and turn.sandbox is not None:
            self._forget_turn(turn.sandbox)
            self._next_turn(turn.sandbox, now)

    def _turn_checked_in(self, id: int, now: float) -> None:
        turn = self.turns.get(id)
        if turn is not None and turn.sandbox is not None and not turn.sandbox.taken_back:
            self._turn_over(id, now)

    def _take_turn_back(self, id: int, now: float) -> None:
        """Interrupt what runs in this turn, and have the worker go back to where it began."""
        turn = self.turns.get(id)
        if turn is None or turn.sandbox is None or turn.sandbox.taken_back:
            return
        turn.sandbox.taken_back = True
        self._do(Ended(id, turn.holder, turn.ref, turn.worker.id, False))
        self._do(Revoke(turn.worker.id, id))
        self.timers.at(now + self.config.kill_after, (self._turn_unanswered, id, None))

    def _turn_unanswered(self, id: int, _since: None, now: float) -> None:
        turn = self.turns.get(id)
        if turn is not None and turn.sandbox is not None:
            self._end_lease(turn.sandbox.lease.id, now, DIED)
            self._kill(turn.worker, now)

    # -- callers that go away -------------------------------------------------------------------------------

    def _cancel_turn(self, ref: Any, holder: Hashable, now: float) -> None:
        """The caller waits no longer; if the grant crossed its cancel, the turn is over."""
        for sandbox in list(self.sandboxes.values()):
            turn = sandbox.turn
            sandbox.queue.remove((holder, ref))
            if turn is not None and (turn.holder, turn.ref) == (holder, ref):
                self._turn_checked_in(turn.id, now)

    def _holder_left(self, holder: Hashable, now: float) -> None:
        """The holder is gone: its turns are taken back. The sandbox stays, unless it was the owner's."""
        for sandbox in list(self.sandboxes.values()):
            sandbox.queue.of_caller(holder)
            if sandbox.turn is not None and sandbox.turn.holder == holder:
                self._take_turn_back(sandbox.turn.id, now)

    def _expire_turns(self, now: float) -> None:
        for sandbox in self.sandboxes.values():
            for waiter in sandbox.queue.expired(now):
                error = self._no_turn_in_time(sandbox, now - waiter.since, now)
                self._do(Refused(waiter.ref[1], waiter.caller, error))

    # -- what the layer above decides -------------------------------------------------------------------------

    def _take_back(self, lease: Lease, now: float, why: str) -> None:
        raise NotImplementedError
