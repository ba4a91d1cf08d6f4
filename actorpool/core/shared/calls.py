"""Calls: when each one begins, how it ends. Exactly one answer for each, whatever happens.

A call queues at the connection that was chosen for it. It leaves the queue only to be run, because its time is over,
or because its connection is over (then it goes to another one). A call that has begun is not moved. Calls
that take next to no time are sent ahead, while the one before them runs; the worker runs them in order, or sends them
back.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from typing import Any

from actorpool.core.effects import Answer, Kill
from actorpool.core.machine import Effects
from actorpool.core.shared.balancing import Balancing
from actorpool.core.shared.effects import Deliver, Interrupt, Run
from actorpool.core.shared.lifecycle import Lifecycle
from actorpool.core.shared.records import DRAINING, ENDING, LIVE, Call, Connection, Deadlines, Gather, Loan
from actorpool.errors import ActorPoolError

PATIENCE = 0.05
"""Seconds of cooldown that waiting calls sit out. For a longer pause they look for a better connection."""
AHEAD = 8
"""Quick calls that a worker may have got beside the one that it runs."""


class Calls:
    """Mediates between calls and connections, above the life of these.

    Args:
        lifecycle: what there is of connections.
        balancing: knows the best connection for a call.
        new_number: gives the next number; they keep the order of arrival.
        kill_after: seconds a worker has to obey an interrupt before it is killed.
        effects: where to put what is to be done.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        balancing: Balancing,
        new_number: Callable[[], int],
        kill_after: float,
        effects: Effects,
    ) -> None:
        self.lifecycle = lifecycle
        self.connections, self.loans = lifecycle.connections, lifecycle.loans
        self.refusals, self.timers = lifecycle.refusals, lifecycle.timers
        self.balancing = balancing
        self.kill_after = kill_after
        self.by_ref: dict[Hashable, Call] = {}
        """Calls whose callers wait for an answer."""
        self.deadlines = Deadlines()
        self._new_number = new_number
        self._do, self._emit = effects.do, effects.emit
        self._homeless: list[tuple[int, Call]] = []
        self._housing = False

    # -- arriving -------------------------------------------------------------------------------------------

    def arrive(self, call: Call, now: float) -> None:
        """A call comes."""
        if self.lifecycle.stopping:
            self._fail(call, self.refusals.stopped())
            return
        target = self._choose(call, now)
        if isinstance(target, Connection):
            self._take(call, target, now)
        else:
            self._fail(call, target)

    def map(
        self, now: float, ref: Any, caller: Hashable, resource: Hashable, method: str, payload: Any,
        timeout: float | None,
    ) -> None:  # fmt: skip
        """Have a method run on every live connection; see `SharedPoolCore.map`."""
        live = self.live(resource, now)
        if not live:
            self._do(Answer(ref, {}))
            return
        if any((ref, connection.id) in self.by_ref for connection in live):
            return  # the same request once more
        gather = Gather(ref, [connection.id for connection in live])
        deadline = None if timeout is None else now + timeout
        for connection in live:
            if method not in connection.meters:
                gather.put(connection.id, self.refusals.no_method(resource, method, [connection]), self._do)
                continue
            key = (ref, connection.id)
            call = Call(self._new_number(), key, caller, resource, method, payload, None, now, deadline, gather)
            self._take(call, connection, now)

    def live(self, resource: Hashable, now: float) -> list[Connection]:
        """The connections that take calls now; those that are found expired are ended."""
        live = [connection for connection in self.connections.of(resource) if connection.state is LIVE]
        expired = [connection for connection in live if connection.ttl is not None and connection.expired(now)]
        if not expired:
            return live
        for connection in expired:
            if connection.state is LIVE:  # not ended by a call that one before it sent elsewhere
                self.end(connection, now)
        return [connection for connection in live if connection not in expired]

    def _choose(self, call: Call, now: float) -> Connection | ActorPoolError:
        return self.balancing.choose(call, self.live(call.resource, now), now)

    def _take(self, call: Call, connection: Connection, now: float) -> None:
        self.by_ref[call.ref] = call
        self._queue(call, connection, now)
        if call.deadline is not None:
            self.deadlines.add(call)

    # -- waiting and running --------------------------------------------------------------------------------

    def _queue(self, call: Call, connection: Connection, now: float) -> None:
        call.connection = connection
        if call.deadline is not None and now >= call.deadline:
            self._fail(call, self.refusals.timed_out(call, now))
        elif connection.running is None and not connection.queue and now >= connection.free_at:
            self._run(call, connection, now)
        else:
            connection.enqueue(call)
            connection.in_row = 0  # a call that has to wait shows that its caller is not alone
            self.loans.recall(connection)

    def _run(self, call: Call, connection: Connection, now: float) -> None:
        assert connection.worker is not None
        ahead = connection.running is not None
        if ahead:
            connection.sent.append(call)
        else:
            connection.running = call
            call.started = now
        self._do(Run(connection.worker.id, call, ahead))

    def next(self, connection: Connection, now: float) -> None:
        """The one place where waiting calls begin; called after every change of a connection that may let one."""
        if not connection.serving:
            return
        if connection.queue and connection.expired(now):
            self.end(connection, now)
            return
        room = self._room(connection)
        while room > 0 and connection.queue and now >= connection.free_at:
            call = connection.queue.popitem(last=False)[1]
            if call.deadline is not None and now >= call.deadline:
                self._fail(call, self.refusals.timed_out(call, now))
                continue
            self._run(call, connection, now)
            room = room - 1 if connection.quick(call) and self._next_is_quick(connection) else 0
        if connection.state is DRAINING:
            if connection.running is None and not connection.queue:
                self.lifecycle.drop(connection, now)
            else:
                self.loans.recall(connection)

    def _room(self, connection: Connection) -> int:
        """How many calls may be sent to the worker now: one that it runs at once, and quick ones ahead."""
        if connection.running is None:
            return AHEAD + 1
        if connection.held or len(connection.sent) > AHEAD // 2 or not connection.quick(connection.running):
            return 0
        return AHEAD - len(connection.sent) if self._next_is_quick(connection) else 0

    @staticmethod
    def _next_is_quick(connection: Connection) -> bool:
        return bool(connection.queue) and connection.quick(next(iter(connection.queue.values())))

    def running(self, worker: int, number: int) -> tuple[Connection, Call] | None:
        """The call of that number and its connection, if that worker runs it. Late news of another one are nothing."""
        connection = self.connections.by_worker.get(worker)
        call = connection.running if connection is not None else None
        if connection is None or not isinstance(call, Call) or call.number != number:
            return None
        return connection, call

    def done(
        self, connection: Connection, call: Call, reply: Any, failed: bool, cooldown: float, close: bool,
        took: float | None, now: float,
    ) -> None:  # fmt: skip
        """The worker has answered the call that it ran; see `SharedPoolCore.done`."""
        connection.last_call = now
        took = now - call.started if took is None else took
        connection.meters[call.method].add(took, failed)
        self.free(connection, now, cooldown, close)  # before the answer: the worker is what others wait for
        self._deliver(call, connection, reply, took, None if failed else self.loans.lend(connection, call, now))

    def free(self, connection: Connection, now: float, cooldown: float, close: bool) -> None:
        """What the connection ran is over."""
        connection.advance(now)
        connection.proven = True
        if close or cooldown == float("inf"):
            self.end(connection, now)
        elif connection.state is ENDING:
            self.lifecycle.settle(connection, now)
        else:
            if cooldown > 0:
                connection.held = connection.running is not None
                self._cool(connection, now, cooldown)
            self.next(connection, now)

    def _cool(self, connection: Connection, now: float, cooldown: float) -> None:
        connection.free_at = now + cooldown
        self.timers.at(connection.free_at, (self._cooled, connection.id, None))
        if cooldown >= PATIENCE:
            self._reconsider(connection, now)

    def _cooled(self, id: int, _since: None, now: float) -> None:
        connection = self.connections.by_id.get(id)
        if connection is not None:
            self.next(connection, now)

    # -- going elsewhere ------------------------------------------------------------------------------------

    def end(self, connection: Connection, now: float, failed: bool = False) -> None:
        """The connection takes no more calls; those that wait go elsewhere, the one that runs ends first."""
        self.lifecycle.over(connection, now, failed)
        self._move(connection, now)
        self.lifecycle.settle(connection, now)

    def watch_ttl(self, connection: Connection) -> None:
        """Look at a connection when its time to live is over."""
        if connection.ttl is not None and connection.connected_at is not None:
            self.timers.at(connection.connected_at + connection.ttl, (self._ttl_over, connection.id, None))

    def _ttl_over(self, id: int, _since: None, now: float) -> None:
        """Expiry is met by calls. An idle connection that is revived waits for one; it may never be needed again."""
        connection = self.connections.by_id.get(id)
        if connection is None or not connection.serving or not connection.expired(now):
            return
        if connection.queue or not connection.revive:
            self.end(connection, now)

    def wind_up(self, connection: Connection, now: float) -> None:
        """Let a connection finish what it has, and drop it then."""
        if connection.state is LIVE:
            connection.move(DRAINING)
        if connection.state is DRAINING:
            self.next(connection, now)
        elif connection.state is not ENDING:
            self.lifecycle.drop(connection, now)

    def _move(self, connection: Connection, now: float) -> None:
        """The connection is over: each waiting call goes to the best of the others, or fails if none can take it.

        Looking for a place may find another connection expired, whose calls then join: the oldest goes first.
        """
        for call in connection.take_queue():
            heapq.heappush(self._homeless, (call.number, call))
        if self._housing:
            return
        self._housing = True
        while self._homeless:
            call = heapq.heappop(self._homeless)[1]
            target = self._choose(call, now) if call.gather is None else None
            if isinstance(target, Connection):
                self._queue(call, target, now)
            else:
                self._fail(call, self.refusals.none_left(call))
        self._housing = False

    def _take_back(self, call: Call, connection: Connection) -> None:
        """The worker had got the call, and has not begun it: it waits again, as if it had never left the queue."""
        if call.answered:
            return
        if self.lifecycle.stopping:
            self._fail(call, self.refusals.stopped())
        else:
            connection.enqueue(call)

    def _reconsider(self, connection: Connection, now: float) -> None:
        """The connection pauses: those of its waiting calls that begin sooner on another one go there."""
        self.live(connection.resource, now)  # first: else one is found expired, and its calls moved, halfway through
        if connection.state is not LIVE:
            return
        for call in connection.take_queue():
            target = connection if call.gather is not None else self._choose(call, now)
            self._queue(call, target if isinstance(target, Connection) else connection, now)

    def not_run(self, connection: Connection, call: Call, error: Exception | None, now: float) -> None:
        """The worker sends a call back that it has not begun; see `SharedPoolCore.not_run`."""
        connection.advance(now)
        connection.held = connection.running is not None
        self._take_back(call, connection)
        if connection.state is ENDING:
            self._move(connection, now)
            self.lifecycle.settle(connection, now)
        elif error is not None:
            connection.cause = error
            self.end(connection, now, failed=True)
        elif connection.state is LIVE and connection.running is None and connection.free_at - now >= PATIENCE:
            self._reconsider(connection, now)
        else:
            self.next(connection, now)

    # -- ending ---------------------------------------------------------------------------------------------

    def _deliver(self, call: Call, connection: Connection, reply: Any, took: float, loan: Loan | None) -> None:
        if self.loans.observed:
            metadata = {"connection": connection.id, "method": call.method}
            self._emit("call.done", metadata=metadata, ms=took * 1e3)
        if call.answered:
            return
        call.answered = True
        del self.by_ref[call.ref]
        if call.gather is None:
            self._do(Deliver(call, reply, loan))
        else:
            call.gather.put(connection.id, reply, self._do)

    def _fail(self, call: Call, error: ActorPoolError) -> None:
        call.answered = True
        self.by_ref.pop(call.ref, None)
        if call.gather is None:
            self._do(Answer(call.ref, error))
        elif call.connection is not None:
            call.gather.put(call.connection.id, error, self._do)

    def worker_died(self, connection: Connection, now: float, reason: str, begun: bool, refused: int | None) -> None:
        """Its worker has died: at most the first of what it had got was begun, since all answers before are here.

        What the kernel says of an unread order (`begun`) is about the last one. It speaks for the first if that is
        the only one; otherwise only one that could not even be sent is known not to have begun.
        """
        taken = connection.take_running()
        for call in taken:
            if isinstance(call, Loan):
                self.loans.tell(connection, call, now)
            elif call is taken[0] and call.number != refused and (begun or len(taken) > 1) and not call.answered:
                self._fail(call, self.refusals.died(call, reason))
            else:
                self._take_back(call, connection)
        self.end(connection, now, failed=True)

    def cut_off(self, connection: Connection, now: float) -> None:
        """The pool ends, and what its worker has got is not waited for any longer."""
        for call in connection.take_running():
            if isinstance(call, Loan):
                self.loans.tell(connection, call, now)
            elif not call.answered:
                self._fail(call, self.refusals.stopped())
        self.lifecycle.drop(connection, now, interrupt=True)

    def turn_away(self, connection: Connection) -> None:
        """The pool ends: what waits for this connection fails."""
        for call in connection.take_queue():
            self._fail(call, self.refusals.stopped())

    def expire(self, now: float) -> None:
        """End the calls that have taken too long: one that waits is never run, one that runs is interrupted."""
        for call in self.deadlines.due(now):
            if call.waiting or call.running:  # not if one before it has taken it along
                self._overdue(call, now)

    def _overdue(self, call: Call, now: float) -> None:
        connection = call.connection
        assert connection is not None
        if call.running:
            assert connection.worker is not None
            connection.kill_at = now + self.kill_after
            self.timers.at(connection.kill_at, (self._kill_if_stuck, connection.id, call.number))
            self._do(Interrupt(connection.worker.id, call.number))
            self._emit("call.timeout", metadata={"connection": connection.id, "method": call.method})
        error = self.refusals.timed_out(call, now)
        connection.queue.pop(call.number, None)
        if not call.answered:
            self._fail(call, error)
        if call.running:
            self._reconsider(connection, now)
        else:
            self.next(connection, now)

    def _kill_if_stuck(self, id: int, number: int, now: float) -> None:
        connection = self.connections.by_id.get(id)
        if connection is None or connection.worker is None or connection.running is None:
            return
        if connection.running.number == number:
            self._do(Kill(connection.worker.id))

    def forget(self, calls: list[Call], now: float) -> None:
        """Drop calls without a waiter. They leave their queues; a running one ends by itself, or at its deadline."""
        left = []
        for call in calls:
            del self.by_ref[call.ref]
            call.answered = True
            connection = call.connection
            if connection is not None and connection.queue.pop(call.number, None) is not None:
                left.append(connection)
        for connection in dict.fromkeys(left):  # after all of them: none of these is to be begun or moved
            self.next(connection, now)
