"""A pool core in the hands of a test: imaginary worker processes, a driven clock, and every answer written down.

Each process is a small machine of its own: orders go into its inbox, reports come out of its outbox, its death is
noticed separately. An obliging kit lets all of that happen at once; otherwise the test says what happens when.
Whatever the core does that no caller, worker or supervisor should ever see is an AssertionError here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable
from typing import Any

from actorpool.config import PoolConfig
from actorpool.core import effects as fx
from actorpool.core.pool.core import PoolCore
from actorpool.core.pool.durations import BUCKETS
from actorpool.core.pool.sticky_lease import Uses
from actorpool.errors import PermanentError
from actorpool.workers.base import Worker

AWAY = ConnectionError("the resource is away")
PATIENCE = 1000
"""Ticks at one moment after which the core is taken to be in a loop."""


class Ticket:
    """One checkout and what became of it."""

    def __init__(self, ref: Any, holder: Hashable, deadline: float, key: Hashable = None) -> None:
        self.ref = ref
        self.key = key
        self.holder = holder
        self.deadline = deadline
        self.grant: fx.Granted | None = None
        self.error: Exception | None = None
        self.ended: fx.Ended | None = None
        self.given_back = False
        self.cancelled = False
        self.sent_home = False
        self.uses = 0

    @property
    def waiting(self) -> bool:
        """Neither served nor refused yet, and still interested."""
        return self.grant is None and self.error is None and not self.cancelled and not self.sent_home

    @property
    def open(self) -> bool:
        """A lease that its holder still has."""
        return self.grant is not None and self.ended is None and not self.given_back

    @property
    def stands(self) -> bool:
        """A lease that its holder may keep and use again."""
        return self.open and self.grant is not None and self.grant.sticky

    @property
    def lease(self) -> int:
        assert self.grant is not None, f"{self} has no lease"
        return self.grant.lease

    @property
    def worker(self) -> int:
        assert self.grant is not None, f"{self} has no worker"
        return self.grant.worker

    def __repr__(self) -> str:
        what = self.grant or self.error or ("cancelled" if self.cancelled else "waiting")
        return f"<ticket {self.ref} of {self.holder}: {what}>"


class Count:
    """What a process has counted, as the pool reads it."""

    def __init__(self) -> None:
        self.begun = self.ended = self.other_calls = 0
        self.since = self.until = 0.0

    def read(self) -> Uses:
        return Uses(self.begun, self.ended, self.since, self.until)

    def holds(self, count: int) -> list[float]:
        return [self.until - self.since] * min(count, 10)

    def calls(self) -> int:
        return self.begun + self.other_calls

    def spent(self) -> list[float]:
        """Each took as long as the last one, or nothing: the simulations look at counts."""
        return [0.0, float(self.ended), *[0.0] * (BUCKETS - 1)]


class Process:
    """An imaginary worker process. `alive`: it runs; `noticed`: the pool has been told of its death."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.inbox: deque[fx.Effect] = deque()
        self.outbox: deque[tuple[Any, ...]] = deque()
        self.alive = True
        self.noticed = False
        self.connected = False
        self.deaf = False
        """Starting may take for ever; asked for anything else, it reacts to nothing but SIGKILL."""
        self.said: list[tuple[Any, ...]] = []
        self.count = Count()
        self.holds: Hashable = None
        """The key of which it has the state."""
        self.using = 0
        """The standing lease under which it runs something; 0: none."""
        self.leaving = 0
        """The standing lease that ends with its first use."""
        self.confusing = False
        """It said something again that tells nothing of its time: what the pool believes of it may be wrong now."""

    def __repr__(self) -> str:
        return f"<process {self.id} {'alive' if self.alive else 'dead'} in {list(self.inbox)} out {list(self.outbox)}>"


class Kit:
    """A pool core with everything around it.

    Args:
        size: workers of the pool.
        obliging: whether workers answer at once.
        chance: what the core's source of randomness always says.
        kept: what a predecessor of the pool has kept.
        **config: fields of the `PoolConfig`.
    """

    def __init__(
        self,
        size: int = 1,
        *,
        obliging: bool = True,
        chance: float = 0.5,
        kept: fx.Keep | None = None,
        **config: Any,
    ) -> None:
        self.now = 1000.0
        self.obliging = obliging
        self.error: Exception | None = None
        """What connecting and checking raise; None: the resource is there."""
        self.retry_after: float | None = None
        self.idle_holders = False
        """Callers with a key call nothing; else each of their leases is used at once."""
        self.silent: set[type] = set()
        """Kinds of orders on which processes get stuck."""
        self.processes: dict[int, Process] = {}
        self.tickets: dict[Any, Ticket] = {}
        self.orders: list[fx.Effect] = []
        self.events: Counter[str] = Counter()
        self.told: list[fx.Emit] = []
        self.answers: dict[Any, Any] = {}
        self.ready: fx.Ready | None = None
        self.failed: Exception | None = None
        self.stopped = 0
        self.kept: fx.Keep | None = None
        self.gone: set[Hashable] = set()
        self.sent_home: list[Ticket] = []
        self.counted = 0
        """Checkouts there have been, uses of standing leases included."""
        self.core = PoolCore(
            "kit", PoolConfig(worker=Worker, **config), size, self.now, lambda: chance, kept=kept,
            counter=lambda id: self.processes[id].count,
        )  # fmt: skip
        self("start")

    def __call__(self, step: str, *args: Any, **kwargs: Any) -> list[fx.Effect]:
        """Take one step of the core, carry it out, and look whether everything is as it must be."""
        decided: list[fx.Effect] = getattr(self.core, step)(self.now, *args, **kwargs)
        self.carry(decided)
        self.core.check()
        if self.obliging:
            self.oblige()
        return decided

    # -- callers --------------------------------------------------------------------------------------------

    def checkout(self, holder: Hashable = "caller", timeout: float | None = None, **options: Any) -> Ticket:
        """Ask for a worker."""
        patience = self.core.config.checkout_timeout if timeout is None else timeout
        ticket = self.tickets[len(self.tickets)] = Ticket(
            len(self.tickets), holder, self.now + patience, options.get("key")
        )
        self("checkout", ticket.ref, holder, timeout, **options)
        return ticket

    def checkouts(self, count: int, holder: Hashable = "caller", **options: Any) -> list[Ticket]:
        """Ask for several, one after the other."""
        return [self.checkout(holder, **options) for _ in range(count)]

    def checkin(self, *tickets: Ticket) -> None:
        """Give leases back."""
        for ticket in tickets:
            if self.is_used(ticket):
                self.end_use(ticket)
            if not ticket.grant or not ticket.grant.sticky or ticket.open:
                ticket.given_back = True
            self("checkin", ticket.lease)

    def give_back_empty(self, ticket: Ticket, told: bool = False) -> None:
        """Give a lease back under which nothing has run."""
        self._is_empty(ticket)
        ticket.given_back = True
        self("checkin", ticket.lease, True, told)

    def _is_empty(self, ticket: Ticket) -> None:
        keyed = ticket.grant.keyed if ticket.grant is not None and ticket.open else None
        if keyed is not None and keyed.fresh:
            self.processes[ticket.worker].holds = None

    def cancel(self, ticket: Ticket) -> None:
        """Lose interest, before anything has run."""
        self._is_empty(ticket)
        ticket.cancelled = ticket.given_back = True
        self("cancel", ticket.ref, ticket.holder)

    def caller_down(self, holder: Hashable) -> None:
        """The holder's process dies."""
        self.gone.add(holder)
        self("caller_down", holder)

    def open_tickets(self) -> list[Ticket]:
        """Leases that are out, as callers see it."""
        return [ticket for ticket in self.tickets.values() if ticket.open]

    def waiting(self) -> list[Ticket]:
        """Who waits, as callers see it, in order of arrival."""
        return [ticket for ticket in self.tickets.values() if ticket.waiting and ticket.holder not in self.gone]

    # -- standing leases ------------------------------------------------------------------------------------

    def is_used(self, ticket: Ticket) -> bool:
        """Whether something runs under it at this moment."""
        return ticket.grant is not None and self.processes[ticket.worker].using == ticket.lease

    def may_use(self, ticket: Ticket) -> bool:
        """Whether the worker would let a use of this lease in: orders go before calls."""
        process = self.processes[ticket.worker] if ticket.stands else None
        called = process is not None and any(isinstance(order, (fx.Recall, fx.Revoke)) for order in process.inbox)
        free = process is not None and process.alive and not process.using and not process.leaving
        first = ticket.uses == 0 and process is not None and process.leaving == ticket.lease
        return (free and not called) or first

    def use(self, ticket: Ticket) -> None:
        """The holder of a standing lease uses it, without a word to the pool."""
        process = self.processes[ticket.worker]
        process.using = ticket.lease
        process.count.begun += 1
        process.count.since = self.now
        self.counted += ticket.uses > 0  # the first was counted with the grant
        ticket.uses += 1

    def end_use(self, ticket: Ticket) -> None:
        """What ran under a standing lease is over."""
        process = self.processes[ticket.worker]
        process.using = 0
        process.count.ended += 1
        process.count.until = self.now
        if process.leaving == ticket.lease:
            process.leaving = 0
            process.outbox.append(("recalled", ticket.lease))
        if self.obliging:
            self.oblige()

    def used(self, *tickets: Ticket) -> None:
        """Use standing leases once."""
        for ticket in tickets:
            assert self.may_use(ticket), f"the worker lets nobody in with {ticket}"
            self.use(ticket)
            self.end_use(ticket)

    def out(self) -> list[Ticket]:
        """Leases that are out and not just kept."""
        return [
            ticket for ticket in self.open_tickets() if not ticket.stands or not ticket.uses or self.is_used(ticket)
        ]

    # -- processes ------------------------------------------------------------------------------------------

    def work(self, process: Process, error: Exception | None = None, retry_after: float | None = None) -> None:
        """Let a process carry out the first order of its inbox; `error` is what happens to it meanwhile."""
        order = process.inbox.popleft()
        if process.using and not isinstance(order, fx.Stop):  # interrupted: a signal comes before its order
            process.count.ended += 1
            process.using = 0
        if isinstance(order, fx.Open) or (isinstance(order, fx.Revoke) and not order.keep):
            process.holds = None
        if isinstance(order, fx.Start):
            report: tuple[Any, ...] = ("start_failed", error) if error else ("worker_started",)
            process.alive = error is None
        elif isinstance(order, fx.Open):
            process.connected = error is None
            permanent = isinstance(error, PermanentError)
            report = ("open_failed", error, permanent, retry_after) if error else ("opened",)
        elif isinstance(order, fx.Check):
            process.connected = process.connected and error is None
            report = ("checked",) if process.connected else ("lost", error or AWAY)
        elif isinstance(order, fx.Recall):
            if process.count.begun < order.first:
                process.leaving = order.lease
                return
            report = ("recalled", order.lease)
        elif isinstance(order, fx.Revoke):
            process.leaving = 0
            process.connected = process.connected and error is None
            report = ("lost", error) if error else ("revoked", order.lease)
        elif isinstance(order, fx.Close):
            return
        else:
            assert isinstance(order, fx.Stop), f"no order for a worker: {order}"
            process.alive = False
            process.inbox.clear()
            return
        process.outbox.append(report)

    def can_work(self, process: Process) -> bool:
        """Whether the process has an order, and is not stuck on it, or busy."""
        if process.using and not any(isinstance(order, fx.Revoke) for order in process.inbox):
            return bool(process.inbox) and isinstance(process.inbox[0], fx.Stop) and not process.deaf
        if not process.inbox or type(process.inbox[0]) in self.silent:
            return False
        return not process.deaf or any(isinstance(order, fx.Start) for order in process.inbox)

    def deliver(self, process: Process) -> None:
        """Hand the first report of a process to the pool."""
        report = process.outbox.popleft()
        process.said.append(report)
        self._left(report)
        self(report[0], process.id, *report[1:])

    def deliver_again(self, process: Process, report: tuple[Any, ...]) -> None:
        """Hand an old report of a process to the pool."""
        process.confusing = process.confusing or report[0] not in ("revoked", "reopened")
        self(report[0], process.id, *report[1:])

    def _left(self, report: tuple[Any, ...]) -> None:
        """A worker that has come back is its caller's no more."""
        if report[0] == "recalled":
            for ticket in self.tickets.values():
                if ticket.grant is not None and ticket.lease == report[1]:
                    ticket.given_back = True

    def obey(self, id: int, error: Exception | None = None, retry_after: float | None = None) -> None:
        """A process carries out its next order, and the pool hears of it."""
        self.work(self.processes[id], error, retry_after)
        self.deliver(self.processes[id])

    def notice(self, process: Process) -> None:
        """Tell the pool that a process is gone."""
        process.noticed = True
        self("died", process.id)

    def kill(self, id: int) -> None:
        """A process dies out of the blue, and the pool is told."""
        process = self.processes[id]
        process.alive = False
        process.inbox.clear()
        self.notice(process)

    def lose(self, id: int, error: Exception = AWAY) -> None:
        """The connection of a worker breaks, and it says so."""
        self.processes[id].connected = False
        self("lost", id, error)

    def oblige(self) -> None:
        """Let every process do and say all it can, until nothing moves."""
        moved = True
        while moved:
            moved = False
            for process in list(self.processes.values()):
                while self.can_work(process):
                    moved = True
                    self.work(process, self._trouble(process.inbox[0]), self.retry_after)
                while process.outbox:
                    moved = True
                    self._left(process.outbox[0])
                    name, *args = process.outbox.popleft()
                    self.carry(getattr(self.core, name)(self.now, process.id, *args))
                    self.core.check()
                if not process.alive and not process.noticed:
                    moved = process.noticed = True
                    self.carry(self.core.died(self.now, process.id))
                    self.core.check()

    def _trouble(self, order: fx.Effect) -> Exception | None:
        return self.error if isinstance(order, (fx.Open, fx.Check)) else None

    def living(self) -> list[Process]:
        """The processes that the pool has not been told to be dead."""
        return [process for process in self.processes.values() if not process.noticed]

    # -- time -----------------------------------------------------------------------------------------------

    def later(self, seconds: float) -> None:
        """Let time pass; the core is called whenever it wants to be."""
        end, ticks = self.now + seconds, 0
        while (moment := self.core.deadline()) is not None and moment <= end:
            ticks = 0 if moment > self.now else ticks + 1
            assert ticks < PATIENCE, f"the core wants to be called again and again at {self.now}"
            self.now = max(self.now, moment)
            self("tick")
        self.now = end

    # -- what the core decided ------------------------------------------------------------------------------

    def carry(self, decided: Iterable[fx.Effect]) -> None:
        """Carry effects out, in order."""
        self.sent_home = []
        for effect in decided:
            self._carry(effect)
        for ticket in self.sent_home:
            kept = any(other.stands and other.holder == ticket.holder for other in self.tickets.values())
            assert kept, f"there is nothing for {ticket} at home"

    def _carry(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.Granted):
            self._granted(effect)
        elif isinstance(effect, fx.UseLocal):
            ticket = self.tickets[effect.ref]
            assert ticket.waiting or ticket.cancelled, f"{ticket} is answered again: {effect}"
            ticket.sent_home = True
            self.sent_home.append(ticket)
        elif isinstance(effect, fx.Refused):
            ticket = self.tickets[effect.ref]
            assert ticket.waiting or ticket.cancelled, f"{ticket} is answered again: {effect.error!r}"
            ticket.error = effect.error
        elif isinstance(effect, fx.Ended):
            ticket = self.tickets[effect.ref]
            assert ticket.ended is None, f"the end of {ticket} is told twice"
            ticket.ended = effect
        elif isinstance(effect, fx.Emit):
            self.events[effect.name] += 1
            self.told.append(effect)
        elif isinstance(effect, fx.Answer):
            assert effect.ref not in self.answers, f"{effect.ref} is answered twice"
            self.answers[effect.ref] = effect.value
        elif isinstance(effect, fx.Ready):
            assert self.ready is None, "the pool becomes ready twice"
            assert self.failed is None, "the pool becomes ready after it failed"
            self.ready = effect
        elif isinstance(effect, fx.Fail):
            assert self.failed is None, "the pool fails twice"
            self.failed = effect.error
        elif isinstance(effect, fx.Stopped):
            assert not self.living(), "the pool has stopped while it has processes"
            self.stopped += 1
        elif isinstance(effect, fx.Keep):
            self.kept = effect
        else:
            self._order(effect)

    def _granted(self, grant: fx.Granted) -> None:
        ticket = self.tickets[grant.ref]
        assert ticket.waiting, f"{ticket} is answered again: {grant}"
        assert ticket.holder not in self.gone, f"a lease for the dead: {grant}"
        assert all(other.worker != grant.worker for other in self.open_tickets()), f"leased twice: {grant}"
        process = self.processes[grant.worker]
        self._session(ticket, grant, process)
        resumed = ticket.key is not None and self.core.sessions.by_key[ticket.key].leases > 1  # also an empty one
        first = next(other for other in self.waiting() if other is ticket or self._is_servable(other))
        assert resumed or first is ticket, f"{ticket} is served before {first}"
        assert not process.noticed, f"a dead worker is leased: {grant}"
        busy = [order for order in process.inbox if not isinstance(order, (fx.Close, fx.Recall))]
        assert process.confusing or not busy, f"a worker that has other orders is leased: {process}"
        assert not self.core.life.ending, f"the pool has ended, and still: {grant}"
        ticket.grant = grant
        self.counted += 1
        process.count.other_calls += grant.keyed is not None and not self.idle_holders

    def _is_servable(self, ticket: Ticket) -> bool:
        """Whether it would have to be served first: it is in time, and its key is in no other hands."""
        return ticket.deadline > self.now and not self.core.sessions.is_busy(ticket.key)

    def _session(self, ticket: Ticket, grant: fx.Granted, process: Process) -> None:
        """The state of a key is met by its own callers, and by no others."""
        assert (grant.keyed is not None) == (ticket.key is not None), f"{ticket} has {grant}"
        if grant.keyed is None or grant.keyed.fresh:
            assert process.holds is None, f"{ticket} meets the state of {process.holds!r}"
        else:
            assert process.holds == ticket.key, f"{ticket} was promised its state, and meets {process.holds!r}"
        same = [other for other in self.open_tickets() if other.key is not None and other.key == ticket.key]
        assert not same, f"{ticket} and {same[0]} have the same key"
        process.holds = ticket.key

    def _order(self, order: Any) -> None:
        self.orders.append(order)
        if isinstance(order, fx.Start):
            assert order.worker not in self.processes, f"an id is used twice: {order}"
            self.processes[order.worker] = Process(order.worker)
        process = self.processes[order.worker]
        assert not process.noticed, f"an order for the dead: {order}"
        if isinstance(order, (fx.Start, fx.Open, fx.Check)):
            assert not self.core.life.ending, f"the pool has ended, and still: {order}"
        if isinstance(order, fx.Kill):
            process.alive = False
            process.inbox.clear()
        elif process.alive:
            process.inbox.append(order)

    # -- looking --------------------------------------------------------------------------------------------

    @property
    def status(self) -> Any:
        """The pool's own figures now."""
        return self.core.status(self.now)

    @property
    def figures(self) -> tuple[str, int, int, int]:
        """state, idle workers, overflow, leases: what poolboy's `status` tells."""
        status = self.status
        return status.state, status.workers, status.overflow, status.monitors

    def count(self, order: type) -> int:
        """How many orders of that kind the pool has given."""
        return sum(isinstance(given, order) for given in self.orders)

    def ordered(self, order: type) -> list[int]:
        """The workers that were given orders of that kind."""
        return [given.worker for given in self.orders if isinstance(given, order)]  # type: ignore[union-attr]
