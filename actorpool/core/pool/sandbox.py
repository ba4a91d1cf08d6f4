"""Sandboxes: a leased worker that several callers use in turn, each under a lease of its own within the owner's.

The owner's lease is an ordinary one, and whatever ends it ends the sandbox: a checkin, its holder's or its worker's
death, `max_lease`, a drain. Callers that may come in ask for a turn as they would for a worker; turns are first come,
first served. A turn that is revoked (its holder died, a call of it timed out) costs the others nothing: the worker
goes back to where that turn began.

The ids of turns are those of leases, so they grow too, and a turn that is over can never run anything again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from actorpool._protocol.sandboxes import OUTSIDE
from actorpool.core.effects import Answer, Ended, Granted, Refused, Revoke
from actorpool.core.pool.leases import Lease
from actorpool.core.pool.queue import Waiter, WaitingQueue
from actorpool.core.pool.sticky import process_of


class Sandbox:
    """A lease that others may use in turn.

    Args:
        key: names it; a caller that knows it and may come in asks for a turn by it.
        lease: the owner's.
        owner: the process it belongs to.
    """

    def __init__(self, key: str, lease: Lease, owner: Hashable) -> None:
        self.key = key
        self.lease = lease
        self.processes = {owner}
        self.queue = WaitingQueue()
        self.turn: Lease | None = None
        self.revoked = False  # the turn is over, and the worker on its way back to where it began


class Sandboxes:
    """Which leases are sandboxes, which callers may enter each, and which one has the turn.

    Args:
        new_id: gives ids of leases.
        do: takes effects.
    """

    def __init__(self, new_id: Callable[[], int], do: Callable[[Any], None]) -> None:
        self.by_key: dict[str, Sandbox] = {}
        self.turns: dict[int, Lease] = {}
        self.guests: dict[Hashable, Sandbox] = {}  # processes of which all calls go to a sandbox
        self.closing: list[tuple[int, Any]] = []  # requests that wait for the worker of a sandbox to be pristine
        self._new_id = new_id
        self._do = do

    # -- opening and closing --------------------------------------------------------------------------------

    def open(self, key: str, lease: Lease, owner: Hashable) -> None:
        """Make the owner's lease a sandbox."""
        lease.sandbox = key
        self.by_key[key] = Sandbox(key, lease, owner)

    def admit(self, sandbox: Sandbox, process: Hashable) -> bool:
        """Let all calls of another process in; False if that process is in another sandbox."""
        if self.guests.get(process, sandbox) is not sandbox:
            return False
        sandbox.processes.add(process)
        self.guests[process] = sandbox
        return True

    def close(self, lease: Lease, died: bool, refusal: Exception) -> None:
        """The owner's lease is over, and the turns in it."""
        sandbox = self.by_key.pop(lease.sandbox or "")
        for process in [process for process, box in self.guests.items() if box is sandbox]:
            del self.guests[process]
        for waiter in sandbox.queue.clear():
            self._do(Refused(waiter.ref[1], waiter.caller, refusal))
        turn, told = sandbox.turn, sandbox.revoked
        if turn is not None:
            self._forget_turn(sandbox)
            if not told:
                self._do(Ended(turn.id, turn.holder, turn.ref, turn.worker.id, died))

    def answer_closed(self, resetting: Callable[[int], bool]) -> None:
        """Answer the requests that waited for workers which are pristine again."""
        for closing in list(self.closing):
            if not resetting(closing[0]):
                self.closing.remove(closing)
                self._do(Answer(closing[1]))

    # -- entering --------------------------------------------------------------------------------------------

    def key_of(self, process: Hashable) -> str | None:
        """The sandbox that all calls of this process go to, if any."""
        sandbox = self.guests.get(process)
        return None if sandbox is None else sandbox.key

    def is_meant(self, caller: Hashable, key: str | None) -> bool:
        """Whether a checkout is for a sandbox: it names one, or the caller's process is a guest of one."""
        return key != OUTSIDE and (key is not None or process_of(caller) in self.guests)

    def find(self, caller: Hashable, key: str | None) -> Sandbox | None:
        """The sandbox that is meant; None: it is over."""
        return self.guests[process_of(caller)] if key is None else self.by_key.get(key)

    def enter(self, sandbox: Sandbox, waiter: Waiter, now: float) -> None:
        """Give a turn, now or when those before it are over."""
        if sandbox.turn is not None:
            sandbox.queue.push(waiter)
        else:
            self._give_turn(sandbox, waiter, now)

    def _give_turn(self, sandbox: Sandbox, waiter: Waiter, now: float) -> None:
        worker = sandbox.lease.worker
        turn = Lease(self._new_id(), worker, waiter.caller, waiter.ref[1], now, waiter.stack)
        turn.sandbox = sandbox.key
        sandbox.turn = self.turns[turn.id] = turn
        worker.calls += 1
        self._do(Granted(turn.ref, turn.holder, turn.id, worker.id, now - waiter.since, False, True))

    def knows(self, holder: Hashable) -> bool:
        """Whether the holder has a turn, or waits for one."""
        boxes = self.by_key.values()
        return any(box.queue.knows(holder) or (box.turn is not None and box.turn.holder == holder) for box in boxes)

    # -- the end of a turn --------------------------------------------------------------------------------------

    def turn_over(self, id: int, now: float) -> None:
        """The worker is back from this turn; one that is over already is nothing."""
        turn = self.turns.get(id)
        if turn is None:
            return
        sandbox = self.by_key[turn.sandbox or ""]
        self._forget_turn(sandbox)
        waiter, _ = sandbox.queue.pop(now)
        if waiter is not None:
            self._give_turn(sandbox, waiter, now)

    def checked_in(self, id: int, now: float) -> None:
        """The holder gives its turn back; one that was revoked ends when the worker says so."""
        turn = self.turns.get(id)
        if turn is not None and not self.by_key[turn.sandbox or ""].revoked:
            self.turn_over(id, now)

    def revoke_turn(self, id: int) -> bool:
        """Interrupt what runs in this turn, and have the worker go back to where it began; False: nothing to do."""
        turn = self.turns.get(id)
        if turn is None or self.by_key[turn.sandbox or ""].revoked:
            return False
        self.by_key[turn.sandbox or ""].revoked = True
        self._do(Ended(id, turn.holder, turn.ref, turn.worker.id, False))
        self._do(Revoke(turn.worker.id, id))
        return True

    def _forget_turn(self, sandbox: Sandbox) -> None:
        assert sandbox.turn is not None
        del self.turns[sandbox.turn.id]
        sandbox.turn = None
        sandbox.revoked = False

    # -- callers that go away -------------------------------------------------------------------------------

    def cancel(self, holder: Hashable, ref: Any, now: float) -> None:
        """The caller waits no longer; if the grant crossed its cancel, the turn is over."""
        for sandbox in list(self.by_key.values()):
            turn = sandbox.turn
            sandbox.queue.remove((holder, ref))
            if turn is not None and (turn.holder, turn.ref) == (holder, ref):
                self.checked_in(turn.id, now)

    def holder_died(self, holder: Hashable) -> list[int]:
        """Forget the waiters of a holder; returns its turns. The sandbox remains unless the holder owns it."""
        turns = []
        for sandbox in self.by_key.values():
            sandbox.queue.of_caller(holder)
            if sandbox.turn is not None and sandbox.turn.holder == holder:
                turns.append(sandbox.turn.id)
        return turns

    def expired(self, now: float) -> list[tuple[Sandbox, Waiter]]:
        """Take out the waiters that had no turn in time."""
        return [(sandbox, waiter) for sandbox in self.by_key.values() for waiter in sandbox.queue.expired(now)]

    def next_deadline(self) -> float | None:
        """When `expired` has to be called next."""
        moments = (sandbox.queue.next_deadline() for sandbox in self.by_key.values())
        return min((moment for moment in moments if moment is not None), default=None)

    def check(self, leases: dict[int, Lease]) -> None:
        """Raise AssertionError if an invariant is broken. For tests."""
        boxes = list(self.by_key.values())
        assert all(box.lease.sandbox == box.key and leases.get(box.lease.id) is box.lease for box in boxes)
        assert sorted(self.turns) == sorted(box.turn.id for box in boxes if box.turn is not None)
        assert all(box.turn or not len(box.queue) for box in boxes), "one waits though it is free"
        assert all(box in boxes for box in self.guests.values()), "a guest of a sandbox that is over"
