"""Calls: when each one begins, how it ends. Exactly one answer for each, whatever happens.

A call queues at the connection that was chosen for it. It leaves the queue only to be run, because its time is over,
or because its connection is over (then it goes to another one). A call that has begun is not moved. Calls
that take next to no time are sent ahead, while the one before them runs; the worker runs them in order, or sends them
back.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping
from typing import Any

from actorpool.core.effects import Answer, Kill
from actorpool.core.machine import step
from actorpool.core.shared.balancing import Balancing
from actorpool.core.shared.effects import Deliver, Interrupt, Run
from actorpool.core.shared.records import DRAINING, ENDING, LIVE, Call, Connection, Gather, Loan
from actorpool.errors import ActorPoolError, WorkerDied

PATIENCE = 0.05
"""Seconds of cooldown that waiting calls sit out. For a longer pause they look for a better connection."""
AHEAD = 8
"""Quick calls that a worker may have got beside the one that it runs."""


class Calls(Balancing):
    """The layer that serves callers."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._homeless: list[tuple[int, Call]] = []
        self._housing = False

    # -- arriving -------------------------------------------------------------------------------------------

    @step
    def call(
        self,
        now: float,
        ref: Hashable,
        caller: Hashable,
        resource: Hashable,
        method: str,
        payload: Any = None,
        *,
        where: Any = None,
        timeout: float | None = None,
        direct: bool = False,
    ) -> None:
        """Run a method on the connection to `resource` with the least expected wait; ends in `Deliver` or `Answer`.

        Args:
            ref: names the call towards its caller; a second call of a pending `ref` is the same message again.
            caller: all calls of one caller are forgotten when it dies (`caller_down`).
            payload: what the worker needs; passed on in `Run`.
            where: see `Connections._fits`.
            timeout: seconds from now, waiting and running together, or None.
            direct: the caller could as well send such a call to the worker itself, see `Loan`.
        """
        if ref in self.calls:
            return
        deadline = None if timeout is None else now + timeout
        direct = direct and timeout is None and where is None
        number = next(self._numbers)
        call = Call(number, ref, caller, resource, method, payload, where, now, deadline, direct=direct)
        if self.stopping:
            self._fail(call, self._stopped())
            return
        target = self._choose(call, now)
        if isinstance(target, Connection):
            self._take(call, target, now)
        else:
            self._fail(call, target)

    @step
    def map(
        self,
        now: float,
        ref: Any,
        caller: Hashable,
        resource: Hashable,
        method: str,
        payload: Any = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Run a method on every live connection to `resource`; answered by `{id: the worker's reply, or an error}`."""
        live = self._live(resource, now)
        if not live:
            self._do(Answer(ref, {}))
            return
        if any((ref, connection.id) in self.calls for connection in live):
            return  # the same request once more
        gather = Gather(ref, [connection.id for connection in live])
        deadline = None if timeout is None else now + timeout
        for connection in live:
            if method not in connection.meters:
                self._contribute(gather, connection, self._no_method(resource, method, [connection]))
                continue
            key = (ref, connection.id)
            call = Call(next(self._numbers), key, caller, resource, method, payload, None, now, deadline, gather)
            self._take(call, connection, now)

    def _take(self, call: Call, connection: Connection, now: float) -> None:
        self.calls[call.ref] = call
        self._queue(call, connection, now)
        if call.deadline is not None:
            self.deadlines.add(call)

    # -- waiting and running --------------------------------------------------------------------------------

    def _queue(self, call: Call, connection: Connection, now: float) -> None:
        call.connection = connection
        if call.deadline is not None and now >= call.deadline:
            self._fail(call, self._timed_out(call, now))
        elif connection.running is None and not connection.queue and now >= connection.free_at:
            self._run(call, connection, now)
        else:
            connection.enqueue(call)
            connection.in_row = 0  # a call that has to wait shows that its caller is not alone
            self._recall(connection)

    def _run(self, call: Call, connection: Connection, now: float) -> None:
        assert connection.worker is not None
        ahead = connection.running is not None
        if ahead:
            connection.sent.append(call)
        else:
            connection.running = call
            call.started = now
        self._do(Run(connection.worker, call, ahead))

    def _next(self, connection: Connection, now: float) -> None:
        """The one place where waiting calls begin; called after every change of a connection that may let one."""
        if not connection.serving:
            return
        if connection.queue and connection.expired(now):
            self._end(connection, now)
            return
        room = self._room(connection)
        while room > 0 and connection.queue and now >= connection.free_at:
            call = connection.queue.popitem(last=False)[1]
            if call.deadline is not None and now >= call.deadline:
                self._fail(call, self._timed_out(call, now))
                continue
            self._run(call, connection, now)
            room = room - 1 if connection.quick(call) and self._next_is_quick(connection) else 0
        if connection.state is DRAINING:
            if connection.running is None and not connection.queue:
                self._drop(connection, now)
            else:
                self._recall(connection)

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

    @step
    def done(
        self,
        now: float,
        worker: int,
        number: int,
        reply: Any = None,
        *,
        failed: bool = False,
        cooldown: float = 0.0,
        close: bool = False,
        took: float | None = None,
    ) -> None:
        """The worker has answered the call of that number.

        Args:
            reply: what it answered; passed on unopened.
            failed: the method raised.
            took: seconds it ran, as the worker has measured it; None: as seen from here.
            cooldown: seconds during which the connection is to begin no call.
            close: the connection is done (so it is when `cooldown` is infinite).
        """
        connection = self.workers.get(worker)
        call = connection.running if connection is not None else None
        if connection is None or not isinstance(call, Call) or call.number != number:
            return
        connection.last_call = now
        took = now - call.started if took is None else took
        connection.meters[call.method].add(took, failed)
        self._free(connection, now, cooldown, close)  # before the answer: the worker is what others wait for
        self._deliver(call, connection, reply, took, None if failed else self._lend(connection, call, now))

    @step
    def returned(
        self,
        now: float,
        worker: int,
        number: int,
        done: Mapping[str, tuple[int, float, int]],
        last_call: float | None = None,
        *,
        cooldown: float = 0.0,
        close: bool = False,
    ) -> None:
        """The worker has ended the loan of that number: it was called back, or something came up.

        Args:
            done: what was called in it: method to number of calls, their mean in seconds, and how many of them raised.
            last_call: when the last of them ended, monotonic seconds.
            cooldown, close: as of `done`, of the last of them.
        """
        connection = self.workers.get(worker)
        loan = connection.running if connection is not None else None
        if connection is None or not isinstance(loan, Loan) or loan.number != number:
            return
        for method, (count, mean, errors) in done.items():
            connection.meters[method].merge(count, mean, errors)
        connection.last_call = last_call or connection.last_call
        self._tell(connection, loan, now)
        self._free(connection, now, cooldown, close)

    def _free(self, connection: Connection, now: float, cooldown: float, close: bool) -> None:
        """What the connection ran is over."""
        connection.advance(now)
        connection.proven = True
        if close or cooldown == float("inf"):
            self._end(connection, now)
        elif connection.state is ENDING:
            self._settle(connection, now)
        else:
            if cooldown > 0:
                connection.held = connection.running is not None
                self._cool(connection, now, cooldown)
            self._next(connection, now)

    def _cool(self, connection: Connection, now: float, cooldown: float) -> None:
        connection.free_at = now + cooldown
        self.timers.at(connection.free_at, (self._cooled, connection.id, None))
        if cooldown >= PATIENCE:
            self._reconsider(connection, now)

    def _cooled(self, id: int, _since: None, now: float) -> None:
        connection = self.connections.get(id)
        if connection is not None:
            self._next(connection, now)

    # -- going elsewhere ------------------------------------------------------------------------------------

    def _move_calls(self, connection: Connection, now: float) -> None:
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
                self._fail(call, self._none_left(call))
        self._housing = False

    def _take_back(self, call: Call, connection: Connection) -> None:
        """The worker had got the call, and has not begun it: it waits again, as if it had never left the queue."""
        if call.answered:
            return
        if self.stopping:
            self._fail(call, self._stopped())
        else:
            connection.enqueue(call)

    def _reconsider(self, connection: Connection, now: float) -> None:
        """The connection pauses: those of its waiting calls that begin sooner on another one go there."""
        self._live(connection.resource, now)  # first: else one is found expired, and its calls moved, halfway through
        if connection.state is not LIVE:
            return
        for call in connection.take_queue():
            target = connection if call.gather is not None else self._choose(call, now)
            self._queue(call, target if isinstance(target, Connection) else connection, now)

    @step
    def not_run(self, now: float, worker: int, number: int, error: Exception | None) -> None:
        """The worker sends a call back that it has not begun.

        Args:
            error: what has become of its connection; None: nothing, but what was sent ahead is not begun at present.
        """
        connection = self.workers.get(worker)
        call = connection.running if connection is not None else None
        if connection is None or not isinstance(call, Call) or call.number != number:
            return
        connection.advance(now)
        connection.held = connection.running is not None
        self._take_back(call, connection)
        if connection.state is ENDING:
            self._move_calls(connection, now)
            self._settle(connection, now)
        elif error is not None:
            connection.cause = error
            self._end(connection, now, failed=True)
        elif connection.state is LIVE and connection.running is None and connection.free_at - now >= PATIENCE:
            self._reconsider(connection, now)
        else:
            self._next(connection, now)

    # -- ending ---------------------------------------------------------------------------------------------

    def _deliver(self, call: Call, connection: Connection, reply: Any, took: float, loan: Loan | None) -> None:
        if self.observed:
            metadata = {"connection": connection.id, "method": call.method}
            self._emit("call.done", metadata=metadata, ms=took * 1e3)
        if call.answered:
            return
        call.answered = True
        del self.calls[call.ref]
        if call.gather is None:
            self._do(Deliver(call, reply, loan))
        else:
            self._contribute(call.gather, connection, reply)

    def _fail(self, call: Call, error: ActorPoolError) -> None:
        call.answered = True
        self.calls.pop(call.ref, None)
        if call.gather is None:
            self._do(Answer(call.ref, error))
        elif call.connection is not None:
            self._contribute(call.gather, call.connection, error)

    def _lose_running(self, connection: Connection, now: float, reason: str, begun: bool, refused: int | None) -> None:
        """The worker has died: at most the first of what it had got was begun, since all answers before are here.

        What the kernel says of an unread order (`begun`) is about the last one. It speaks for the first if that is
        the only one; otherwise only one that could not even be sent is known not to have begun.
        """
        taken = connection.take_running()
        for call in taken:
            if isinstance(call, Loan):
                self._tell(connection, call, now)
            elif call is taken[0] and call.number != refused and (begun or len(taken) > 1) and not call.answered:
                text = (
                    f"shared pool {self.name!r}: the process of connection {connection.id} died ({reason}) while it "
                    f"ran {call.method!r}; the call may have taken effect and was not repeated"
                )
                self._fail(call, WorkerDied(text, pool=self.name))
            else:
                self._take_back(call, connection)

    def _overdue(self, call: Call, now: float) -> None:
        """The call's time is over: one that waits is never run, one that runs is interrupted."""
        connection = call.connection
        assert connection is not None
        if call.running:
            assert connection.worker is not None
            connection.kill_at = now + self.kill_after
            self.timers.at(connection.kill_at, (self._kill_if_stuck, connection.id, call.number))
            self._do(Interrupt(connection.worker, call.number))
            self._emit("call.timeout", metadata={"connection": connection.id, "method": call.method})
        error = self._timed_out(call, now)
        connection.queue.pop(call.number, None)
        if not call.answered:
            self._fail(call, error)
        if call.running:
            self._reconsider(connection, now)
        else:
            self._next(connection, now)

    def _kill_if_stuck(self, id: int, number: int, now: float) -> None:
        connection = self.connections.get(id)
        if connection is None or connection.worker is None or connection.running is None:
            return
        if connection.running.number == number:
            self._do(Kill(connection.worker))

    def _forget(self, calls: list[Call], now: float) -> None:
        """Drop calls without a waiter. They leave their queues; a running one ends by itself, or at its deadline."""
        left = []
        for call in calls:
            del self.calls[call.ref]
            call.answered = True
            connection = call.connection
            if connection is not None and connection.queue.pop(call.number, None) is not None:
                left.append(connection)
        for connection in dict.fromkeys(left):  # after all of them: none of these is to be begun or moved
            self._next(connection, now)
