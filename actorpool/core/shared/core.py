"""The shared pool: every decision about it, without clock, process or Thespian. Start reading here.

Many callers share each connection through its queue; there is no lease. The shell calls one method for each thing
that happens and carries the returned effects out, in order; it asks `deadline()` when to call `tick()`. Whatever
names callers and requests is opaque; worker ids and call numbers only grow, so late news of an old one falls through.

The parts (`connections loans balancing refusals`, and `processes`, which pools of both kinds have) do not know each
other. Two mediators say what happens among them in which order: `lifecycle` (connections and their workers), and above
it `calls`. `SharedPoolCore` is above both: it has the steps of the pool. Those about connections, that users ask for,
are in `requests`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from actorpool.core.effects import Answer
from actorpool.core.machine import Backoff, StateMachine, TimerQueue, step
from actorpool.core.processes import Processes
from actorpool.core.shared.balancing import Balancing
from actorpool.core.shared.calls import Calls
from actorpool.core.shared.connections import Connections, Look, look_unbounded
from actorpool.core.shared.effects import Kept
from actorpool.core.shared.lifecycle import Lifecycle
from actorpool.core.shared.loans import Loans
from actorpool.core.shared.records import Call, Gather, Loan
from actorpool.core.shared.refusals import Refusals
from actorpool.core.shared.requests import Requests
from actorpool.core.workers import OPENING, STARTING, Workers


class SharedPoolCore(StateMachine):
    """A shared pool. All times are monotonic seconds; every public method but the figures returns effects.

    Every request carries a `ref` and ends in exactly one `Answer(ref, value)`, an exception to be raised at the
    asker's; a call may end in `Deliver(call, reply)` instead.

    Args:
        name: the pool's name, for texts.
        random: a source of numbers in [0, 1), for jitter.
        backoff: delays between attempts to open a connection.
        penalties: fixed delays in their place; of a connection that was not given others.
        kill_after: seconds a worker has to obey an interrupt or an exit request before it is killed.
        epoch: the Unix time at the monotonic time 0, for `ConnInfo`.
        look: calls a function that runs a user's code (`where`, `__eq__`, `__hash__`) and bounds what that may take.
    """

    def __init__(
        self,
        name: str,
        random: Callable[[], float],
        *,
        backoff: Backoff | None = None,
        penalties: Sequence[float] | None = None,
        kill_after: float = 2.0,
        epoch: float = 0.0,
        look: Look = look_unbounded,
    ) -> None:
        super().__init__()
        self.name = name
        self.timers = timers = TimerQueue()
        self._new_number = new_number = itertools.count(1).__next__
        self.workers = workers = Workers()
        self.connections = connections = Connections(name, epoch, look, self._do)
        self.loans = loans = Loans(connections, new_number, self._do)
        self.refusals = refusals = Refusals(name, connections)
        self.lifecycle = lifecycle = Lifecycle(
            random, backoff or Backoff(0.1, 30.0), penalties, connections, loans, refusals,
            Processes(workers, kill_after, timers, self.effects), timers, self.effects,
        )  # fmt: skip
        self.calls = Calls(lifecycle, Balancing(connections, refusals), new_number, kill_after, self.effects)
        self.requests = requests = Requests(self.calls, self.effects)
        self.info, self.extra, self.update = requests.info, requests.extra, requests.update
        self.is_empty, self.resources = requests.is_empty, requests.resources
        self.pop, self.pop_all = requests.pop, requests.pop_all
        self.infos, self.kept = connections.infos, connections.kept

    # -- calls ----------------------------------------------------------------------------------------------

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
            resource: what is called.
            method: of its worker.
            payload: what the worker needs; passed on in `Run`.
            where: see `Connections.fits`.
            timeout: seconds from now, waiting and running together, or None.
            direct: the caller could as well send such a call to the worker itself, see `Loan`.
        """
        if ref not in self.calls.by_ref:
            deadline = None if timeout is None else now + timeout
            direct = direct and deadline is None and where is None
            number = self._new_number()
            call = Call(number, ref, caller, resource, method, payload, where, now, deadline, direct=direct)
            self.calls.arrive(call, now)

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
        self.calls.map(now, ref, caller, resource, method, payload, timeout)

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
            number: what it ran.
            reply: what it answered; passed on unopened.
            failed: the method raised.
            cooldown: seconds during which the connection is to begin no call.
            close: the connection is done (so it is when `cooldown` is infinite).
            took: seconds it ran, as the worker has measured it; None: as seen from here.
        """
        running = self.calls.running(worker, number)
        if running is not None:
            self.calls.done(*running, reply, failed, cooldown, close, took, now)

    @step
    def not_run(self, now: float, worker: int, number: int, error: Exception | None) -> None:
        """The worker sends a call back that it has not begun.

        Args:
            number: of the call.
            error: what has become of its connection; None: nothing, but what was sent ahead is not begun at present.
        """
        running = self.calls.running(worker, number)
        if running is not None:
            self.calls.not_run(*running, error, now)

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
            number: of the loan.
            done: what was called in it: method to number of calls, their mean in seconds, and how many of them raised.
            last_call: when the last of them ended, monotonic seconds.
            cooldown, close: as of `done`, of the last of them.
        """
        connection = self.connections.by_worker.get(worker)
        loan = connection.running if connection is not None else None
        if connection is None or not isinstance(loan, Loan) or loan.number != number:
            return
        for method, (count, mean, errors) in done.items():
            connection.meters[method].merge(count, mean, errors)
        connection.last_call = last_call or connection.last_call
        self.loans.tell(connection, loan, now)
        self.calls.free(connection, now, cooldown, close)

    # -- callers --------------------------------------------------------------------------------------------

    @step
    def cancel(self, now: float, ref: Hashable) -> None:
        """The caller does not want the call of that `ref` any more. Not answered."""
        call = self.calls.by_ref.get(ref)
        if call is not None:
            self.calls.forget([call], now)

    @step
    def caller_down(self, now: float, caller: Hashable) -> None:
        """The caller is dead: its waiting calls are removed, what runs for it ends by itself.

        The running call is not interrupted: the connection belongs to others too, and may not survive it.
        """
        self.calls.forget([call for call in self.calls.by_ref.values() if call.caller == caller], now)
        for connection, loan in self.loans.out():
            if loan.caller == caller:
                self.loans.recall(connection)

    @step
    def observe(self, now: float, observed: bool, ref: Any = None) -> None:
        """Tell every call from now on, or no longer; then none may go past the pool.

        Args:
            observed: whether to tell.
            ref: answered (by None) once what was lent is back, so that whatever is called from then on is told. None:
                there is no asker.
        """
        self.loans.observed = observed
        lent = list(self.loans.out())
        gather = Gather(ref, [connection.id for connection, _ in lent], lambda _infos: None)
        for connection, loan in lent:
            if ref is None:
                self.loans.recall(connection)
            else:
                self.loans.ask(connection, loan, gather)
        if ref is not None and not lent:
            self._do(Answer(ref))

    # -- workers --------------------------------------------------------------------------------------------

    @step
    def worker_started(self, now: float, worker: int, pid: int | None = None, prompt: bool = True) -> None:
        """The worker's process is up and its `__init__` has run.

        Args:
            pid: of its process.
            prompt: each of its answers is safely on its way before it begins the next call, and told here before its
                death is. Otherwise nothing is sent ahead: it would be unknown which of these calls it had begun.
        """
        connection = self.connections.by_worker.get(worker)
        if connection is not None and (started := self.lifecycle.processes.started(worker)) is not None:
            connection.pid, connection.prompt = pid, prompt
            self.lifecycle.processes.open(started, now)

    @step
    def start_failed(self, now: float, worker: int, error: Exception) -> None:
        """The worker's `__init__` raised: its arguments are wrong, and a second try would be the same."""
        connection = self.lifecycle.served_by(worker, STARTING)
        if connection is not None:
            self.lifecycle.give_up(connection, error, now)

    @step
    def opened(
        self, now: float, worker: int, took: float = 0.0, resource: Hashable = None, methods: tuple[str, ...] = ()
    ) -> None:
        """The worker is connected.

        Args:
            took: seconds it took.
            resource: the worker's own `resource`, used if `add` was given none.
            methods: its `@method`s in order of definition; figures of those it had before are kept.
        """
        connection = self.lifecycle.served_by(worker, OPENING)
        if connection is not None and self.lifecycle.opened(connection, took, resource, methods, now):
            self.calls.watch_ttl(connection)

    @step
    def open_failed(
        self, now: float, worker: int, error: Exception, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        """The worker could not connect: tried again after `retry_after` seconds or a backoff; never if `permanent`."""
        connection = self.lifecycle.served_by(worker, OPENING)
        if connection is not None:
            self.lifecycle.open_failed(connection, error, permanent, retry_after, now)

    @step
    def lost(self, now: float, worker: int, error: Exception) -> None:
        """The connection is gone; its process is fine. A call that runs is still answered by the worker."""
        connection = self.connections.by_worker.get(worker)
        if connection is not None and connection.serving:
            self.lifecycle.lost(connection, error)
            self.calls.end(connection, now, failed=True)

    @step
    def died(
        self, now: float, worker: int, reason: str = "killed", *, begun: bool = True, refused: int | None = None
    ) -> None:
        """The worker's process is gone, whatever the reason. A second notice of the same death is nothing.

        All its answers have been told before, if it is `prompt`. So the calls that were sent ahead have not begun.

        Args:
            reason: in a few words.
            begun: it may have read all that it was told to run; else it has left the last of that unread.
            refused: the number of the first call that could not be sent to it any more.
        """
        connection = self.lifecycle.died(worker, reason, now)
        if connection is not None:
            self.calls.worker_died(connection, now, reason, begun, refused)

    # -- connections ----------------------------------------------------------------------------------------

    @step
    def add(
        self,
        now: float,
        ref: Any,
        spec: Any,
        *,
        resource: Hashable = None,
        extra: Any = None,
        ttl: float | None = None,
        revive: bool | str = False,
        timeout: float | None = None,
        penalties: Sequence[float] | None = None,
    ) -> None:
        """Start a worker and open it; answered by the connection's id, or by why it cannot be opened.

        "Not now" is tried again until `timeout`, then the answer is `WorkerUnavailable` and nothing is left behind;
        with `revive="force"` the id is answered after the first failure, and the attempts go on.

        Args:
            ref: the request.
            spec: whatever the shell needs to start the worker; comes back in `Start`.
            resource: what it connects to; None: what the worker says when it is open.
            extra: what the user attaches to it.
            ttl: seconds to live from connecting, or None for ever.
            revive: what becomes of it when it is over, see `lifecycle`.
            timeout: seconds for opening it, or None.
            penalties: seconds before each further attempt to open it, the last one repeated; None: as the pool's.
        """
        self.lifecycle.add(now, ref, Kept(0, spec, resource, extra, ttl, revive, penalties), timeout)

    @step
    def restore(self, now: float, last_id: int, kept: Sequence[Kept]) -> None:
        """Bring back the connections of a former life of this pool, under their ids; each opens in the background."""
        self.connections.last_id = last_id
        for one in kept:
            self.lifecycle.start(self.lifecycle.admit(one), now)

    # -- the end, and time ----------------------------------------------------------------------------------

    @step
    def stop(self, now: float, ref: Any, timeout: float) -> None:
        """End the pool: waiting calls fail at once, running ones may finish within `timeout`. `Stopped` at the end."""
        self.lifecycle.stop(ref)
        self.timers.at(now + timeout, (self._stop_over, None, None))
        for connection in list(self.connections.by_id.values()):
            self.calls.turn_away(connection)
            self.calls.wind_up(connection, now)
        self.lifecycle.check_stopped()

    def _stop_over(self, _key: None, _since: None, now: float) -> None:
        """Those that still run a call: fail it, interrupt it, and have the process end."""
        for connection in list(self.connections.by_id.values()):
            self.calls.cut_off(connection, now)

    @step
    def tick(self, now: float) -> None:
        """Do what is due; call it at `deadline()`, or whenever it is convenient."""
        self.calls.expire(now)
        for remind, key, since in self.timers.due(now):
            remind(key, since, now)

    def deadline(self) -> float | None:
        """When `tick` has to be called next; None: not before something else happens."""
        moments = [moment for moment in (self.calls.deadlines.next(), self.timers.next()) if moment is not None]
        return min(moments, default=None)
