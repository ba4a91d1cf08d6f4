"""A shared pool under everything that can happen to it, in any order: every call is answered exactly once, rightly.

The world below stands for callers, workers and processes. It believes nothing: each effect is checked against what
it knows itself, and after every step the dispatcher's records are compared with it. The clock is driven.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorpool.core import machine
from actorpool.core.effects import Answer, Emit, Kill, Open, Recall, Start, Stop, Stopped
from actorpool.core.machine import Backoff, Effects
from actorpool.core.shared import records
from actorpool.core.shared.calls import AHEAD
from actorpool.core.shared.core import SharedPoolCore
from actorpool.core.shared.effects import Deliver, Interrupt, Log, Run
from actorpool.core.shared.loans import ALONE
from actorpool.core.shared.records import CLOSED, DRAINING, ENDING, LIVE, Call, Connection, Loan
from actorpool.core.workers import DOWN, IDLE, OPENING, STARTING, STOPPING
from actorpool.errors import CallTimeout, MethodNotFound, NoMatch, NoResource, PoolStopped, WorkerDied

RESOURCES = ("a", "b")
METHODS = (("get",), ("get", "put"), ("put",))
ZONES = ({"zone": 0}, {"zone": 1}, None)


# What the process of a worker may be doing, by what the pool believes of it and of its connection.
STATES = {
    (STARTING, CLOSED): ("starting",),
    (OPENING, CLOSED): ("opening",),
    (DOWN, CLOSED): ("open", "lost"),
    (IDLE, LIVE): ("open",),
    (IDLE, DRAINING): ("open",),
    (IDLE, ENDING): ("open", "lost"),
}


def in_zone_1(info: Any) -> bool:
    return bool(info.extra["zone"] == 1)  # raises where extra is None


WHERE: tuple[Any, ...] = (None, None, {"zone": 0}, in_zone_1)


def matches(where: Any, extra: Any) -> bool:
    if where is None:
        return True
    return extra is not None and extra["zone"] == (0 if isinstance(where, dict) else 1)


class Watched(Effects):
    """Order is checked in the moment of the decision: one step may let many calls begin, wait and move."""

    pool: SharedPoolCore

    def do(self, effect: Any) -> None:
        if isinstance(effect, Run):
            queue = self.pool.connections.by_worker[effect.worker].queue
            assert all(effect.call.number < number for number in queue), "overtook an older call"
        super().do(effect)


def watched() -> SharedPoolCore:
    """A pool of which each decision is looked at."""
    with mock.patch.object(machine, "Effects", Watched):
        pool = SharedPoolCore("p", lambda: 0.5, backoff=Backoff(0.5, 4.0), kill_after=1.0)
    assert isinstance(pool.effects, Watched)
    pool.effects.pool = pool
    return pool


class Process:
    """One worker process as the world sees it."""

    def __init__(self, connection: int) -> None:
        self.connection = connection
        self.state = "starting"  # -> opening -> open -> lost -> opening ... -> stopping
        self.calls: deque[Call] = deque()
        """What it has got: the first one runs, unless it sends it back."""
        self.refuses = ""
        """Why it sends back what it has got: "lost" or "pauses"."""
        self.loan: Loan | None = None
        """Under which its caller may send calls itself."""
        self.straight = 0
        """How many of these it has answered."""
        self.silent = ""
        """"stuck": it reads nothing more; "closed": it is dead, which the pool is still to hear of."""
        self.unread: list[Call] = []
        """What it has got since."""

    @property
    def call(self) -> Call | None:
        return self.calls[0] if self.calls else None


class SharedPool(RuleBasedStateMachine):
    """The rules are what callers, workers, operators and time do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 50.0
        self.core = watched()
        self.processes: dict[int, Process] = {}
        self.pending: dict[Any, Call | None] = {}
        """Calls that were made and are not answered; the Call once the world has met it."""
        self.failed: dict[Any, type[Exception]] = {}
        self.requests: set[Any] = set()
        self.begun: set[int] = set()
        """Calls that a worker has begun: they may never be begun again."""
        self.dead: set[str] = set()
        self.stopped = 0
        self.refs = 0
        self.event = ""
        self.sure, records.SURE = records.SURE, 1
        self.cut_off: Call | None = None
        """What the worker ran that died last."""

    # -- the world ------------------------------------------------------------------------------------------

    def step(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.event = name
        for effect in getattr(self.core, name)(self.now, *args, **kwargs):
            self.carry_out(effect)

    def carry_out(self, effect: Any) -> None:
        if isinstance(effect, Start):
            assert effect.worker not in self.processes
            assert effect.spec == "spec"
            connection = self.core.workers.by_id[effect.worker].connection  # which may be dropped by now
            assert connection is not None
            self.processes[effect.worker] = Process(connection)
        elif isinstance(effect, Open):
            process = self.processes[effect.worker]
            assert process.call is None, "opened again under a running call"
            assert process.state in ("starting", "open", "lost")
            process.state, process.refuses = "opening", ""
        elif isinstance(effect, Run):
            self.begins(effect)
        elif isinstance(effect, Deliver):
            assert self.pending.pop(effect.call.ref) is effect.call
            assert effect.reply == ("reply", effect.call.number)
            if effect.loan is not None:
                self.lends(effect.call, effect.loan)
        elif isinstance(effect, Recall):
            loan = self.processes[effect.worker].loan
            assert loan is not None
            assert loan.number == effect.lease
            assert loan.recalled
        elif isinstance(effect, Answer):
            self.answered(effect.ref, effect.value)
        elif isinstance(effect, Interrupt):
            call = self.processes[effect.worker].call
            assert call is not None
            assert call.number == effect.number
            assert call.deadline is not None
            assert call.deadline <= self.now
        elif isinstance(effect, Stop):
            process = self.processes[effect.worker]
            assert (process.call is None and process.loan is None) or effect.interrupt
            process.state, process.loan = "stopping", None
            process.calls.clear()
        elif isinstance(effect, Kill):
            assert effect.worker in self.processes, "killed something that is dead"
        elif isinstance(effect, Stopped):
            assert not self.processes
            self.stopped += 1
        else:
            assert isinstance(effect, (Emit, Log))

    def lends(self, call: Call, loan: Loan) -> None:
        connection = call.connection
        assert connection is not None
        assert connection.worker is not None
        assert connection.running is loan
        assert connection.state is LIVE
        assert connection.ttl is None
        assert not connection.queue, "lent while others wait"
        assert call.direct
        assert loan.caller == call.caller
        assert not self.core.loans.observed, "lent while every call is to be told"
        process = self.processes[connection.worker.id]
        assert process.call is process.loan is None
        process.loan, process.straight = loan, 0

    def begins(self, run: Run) -> None:
        process, call = self.processes[run.worker], run.call
        connection = self.core.connections.by_id[process.connection]
        assert process.state == "open", "runs on a connection that is not open"
        assert run.ahead == bool(process.calls)
        if run.ahead:
            assert len(process.calls) <= AHEAD
            assert call.deadline is None, "it could not be taken back in time"
            assert all(before.deadline is None for before in process.calls)
        elif process.refuses == "pauses":
            process.refuses = ""
        assert process.loan is None, "it is lent"
        assert call.number not in self.begun, "begun twice"
        assert call.gather or call.ref in self.pending, "begun for a caller that has its answer or is gone"
        assert call.caller not in self.dead
        assert call.deadline is None or self.now < call.deadline, "begun after its time was over"
        assert connection.resource == call.resource
        assert call.method in connection.meters
        assert not connection.expired(self.now)
        assert self.now >= connection.free_at, "did not wait for the cooldown"
        process.calls.append(call)
        if process.silent:
            process.unread.append(call)
        self.begins_next(process)

    def begins_next(self, process: Process) -> None:
        if process.call is not None and not process.refuses and process.call not in process.unread:
            self.begun.add(process.call.number)

    def answered(self, ref: Any, value: Any) -> None:
        if ref in self.requests:
            self.requests.remove(ref)
            if ref[0] == "map":
                assert all(isinstance(outcome, Exception) or outcome[0] == "reply" for outcome in value.values())
            return
        call = self.pending.pop(ref)
        assert isinstance(value, Exception), "a call is answered by its worker or by an error"
        self.failed[ref] = type(value)
        if isinstance(value, CallTimeout):
            assert call is not None
            assert call.deadline is not None
            assert call.deadline <= self.now
        elif isinstance(value, WorkerDied):
            assert self.event == "died"
            assert call is self.cut_off
        elif isinstance(value, PoolStopped):
            assert self.core.lifecycle.stopping
        elif call is not None and call.connection is not None:
            assert isinstance(value, NoResource), "a call that has waited fails because nobody is left"
            assert call.number not in self.begun
            assert not self.able(call.resource, call.method, call.where)

    def live(self, resource: Any) -> list[Connection]:
        return [
            connection
            for connection in self.core.connections.by_id.values()
            if connection.resource == resource and connection.state is LIVE and not connection.expired(self.now)
        ]

    def able(self, resource: Any, method: str, where: Any) -> list[Connection]:
        able = [connection for connection in self.live(resource) if method in connection.meters]
        return [connection for connection in able if matches(where, connection.extra)]

    def ref(self, kind: str) -> Any:
        self.refs += 1
        return (kind, self.refs)

    def request(self, kind: str) -> Any:
        ref = self.ref(kind)
        self.requests.add(ref)
        return ref

    def some(self, *states: str, busy: bool | None = None) -> list[int]:
        return [
            worker
            for worker, process in self.processes.items()
            if process.state in states and (busy is None or busy == (process.call is not None))
        ]

    def busy(self) -> list[int]:
        """Those that may answer. What was answered before a death is heard before it."""
        busy = self.some("open", "lost", busy=True)
        return [worker for worker in busy if self.processes[worker].call not in self.processes[worker].unread]

    def pick(self, data: Any, among: list[Any]) -> Any:
        return data.draw(st.sampled_from(sorted(among, key=repr)))

    # -- connections ----------------------------------------------------------------------------------------

    @initialize()
    def two_connections_are_there(self) -> None:
        for methods in METHODS[:2]:
            self.open_one("a", methods=methods)

    def open_one(self, resource: str, methods: tuple[str, ...], **options: Any) -> None:
        self.step("add", self.request("add"), "spec", resource=resource, **options)
        worker = max(self.processes)
        self.step("worker_started", worker, 1)
        self.opened(worker, methods)

    @rule(
        resource=st.sampled_from((*RESOURCES, None)),
        zone=st.sampled_from(ZONES),
        ttl=st.sampled_from((None, 0.7, 5.0)),
        revive=st.sampled_from((False, True, "force")),
        timeout=st.sampled_from((None, 1.0, 10.0)),
    )
    def add(self, resource: Any, zone: Any, ttl: Any, revive: Any, timeout: Any) -> None:
        ref = self.request("add")
        self.step("add", ref, "spec", resource=resource, extra=zone, ttl=ttl, revive=revive, timeout=timeout)

    @rule(methods=st.sampled_from(METHODS), zone=st.sampled_from(ZONES), revive=st.booleans())
    def add_and_open(self, methods: Any, zone: Any, revive: bool) -> None:
        if not self.core.lifecycle.stopping:
            self.open_one("a", methods=methods, extra=zone, revive=revive, ttl=5.0 if revive else None)

    @precondition(lambda self: self.some("starting"))
    @rule(data=st.data())
    def start_up(self, data: Any) -> None:
        self.step("worker_started", self.pick(data, self.some("starting")), 1)

    @precondition(lambda self: self.some("starting"))
    @rule(data=st.data())
    def fail_to_start(self, data: Any) -> None:
        self.step("start_failed", self.pick(data, self.some("starting")), TypeError())

    @precondition(lambda self: self.some("opening"))
    @rule(data=st.data(), methods=st.sampled_from(METHODS))
    def open(self, data: Any, methods: Any) -> None:
        self.opened(self.pick(data, self.some("opening")), methods)

    def opened(self, worker: int, methods: Any) -> None:
        self.processes[worker].state = "open"
        self.step("opened", worker, resource="b", methods=methods)

    @precondition(lambda self: self.some("opening"))
    @rule(data=st.data(), permanent=st.booleans(), retry_after=st.sampled_from((None, None, 0.0, 3.0)))
    def fail_to_open(self, data: Any, permanent: bool, retry_after: Any) -> None:
        worker = self.pick(data, self.some("opening"))
        self.processes[worker].state = "lost"
        self.step("open_failed", worker, OSError("down"), permanent, retry_after)

    @precondition(lambda self: self.some("open"))
    @rule(data=st.data())
    def lose(self, data: Any) -> None:
        self.loses(self.pick(data, self.some("open")))

    def loses(self, worker: int) -> None:
        """The call that runs is still answered, those behind it come back."""
        process = self.processes[worker]
        process.state = "lost"
        process.refuses = process.refuses or "lost" * (process.call is None)
        self.step("lost", worker, ConnectionError())

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def die(self, data: Any) -> None:
        worker = self.pick(data, list(self.processes))
        self.kill(worker)

    def kill(self, worker: int) -> None:
        process = self.processes.pop(worker)
        unread = process.unread
        refused = unread[0].number if unread and process.silent == "closed" else None
        self.cut_off = process.call
        if self.cut_off in unread and (refused or len(process.calls) == 1):
            self.cut_off = None  # that it had not begun can be known, and has to be
        self.step("died", worker, begun=not unread, refused=refused)
        if self.core.lifecycle.stopping and not self.processes:
            assert self.stopped, "nobody is left, and nobody was told"

    @precondition(lambda self: self.some("open"))
    @rule(data=st.data(), how=st.sampled_from(("stuck", "closed")), calls=st.integers(0, 4))
    def fall_silent(self, data: Any, how: str, calls: int) -> None:
        """It will die; until then it may be sent more, which it does not read."""
        process = self.processes[self.pick(data, self.some("open"))]
        if process.loan is None:
            process.silent = process.silent or how
            for _ in range(calls):
                self.call("a", "get", None, None, "c0")

    # -- calls ----------------------------------------------------------------------------------------------

    @rule(
        resource=st.sampled_from((*RESOURCES, "nothing")),
        method=st.sampled_from(("get", "put", "nonsense")),
        where=st.sampled_from(WHERE),
        timeout=st.sampled_from((None, 0.3, 2.0)),
    )
    def any_call(self, resource: str, method: str, where: Any, timeout: Any) -> None:
        self.call(resource, method, where, timeout, "c0")

    @rule(caller=st.sampled_from(("c0", "c1", "c2")))
    def one_caller_calls_again_and_again(self, caller: str) -> None:
        """Alone, it is lent what it calls; with others about, it is not."""
        for _ in range(ALONE + 1):
            number = self.refs
            self.call("a", "get", None, None, caller)
            for worker in self.busy():
                call = self.processes[worker].call
                if call is not None and call.ref == ("call", number + 1):
                    self.finish(worker, took=0.0)

    @rule(
        wishes=st.lists(st.sampled_from((0.0, 0.0, 0.0, 0.02, 0.5, "full", "stuck", "closed")), max_size=12),
        seconds=st.sampled_from((0.0, 0.0, 6.0)),
    )
    def many_quick_calls_at_once(self, wishes: list[Any], seconds: float) -> None:
        """So many wait that some are sent ahead. A worker may ask for a pause, be full of answers, or fall silent."""
        for number in range(24):
            self.call("a", "get", None, None, f"c{number % 3}")
        self.now += seconds
        for wish in wishes:
            for worker in self.busy():
                process = self.processes[worker]
                if wish in ("stuck", "closed"):
                    process.silent = process.silent or wish
                else:
                    self.finish(worker, wish == "full", took=0.0, cooldown=0.0 if wish == "full" else wish)

    @precondition(lambda self: self.lent())
    @rule(data=st.data())
    def call_straight(self, data: Any) -> None:
        """The caller that has a connection calls, and the pool hears nothing of it."""
        process = self.processes[self.pick(data, self.lent())]
        assert process.loan is not None
        if process.state == "open" and process.loan.caller not in self.dead:
            process.straight += 1

    @precondition(lambda self: self.lent())
    @rule(data=st.data(), cooldown=st.sampled_from((0.0, 0.02, 0.5)), close=st.booleans())
    def give_back(self, data: Any, cooldown: float, close: bool) -> None:
        """The worker was told to, or something came up."""
        self.returned(self.pick(data, self.lent()), cooldown=cooldown, close=close)

    def returned(self, worker: int, **options: Any) -> None:
        process = self.processes[worker]
        loan, process.loan = process.loan, None
        assert loan is not None
        done = {"get": (process.straight, 0.01, 0)} if process.straight else {}
        counted = self.core.connections.by_id[process.connection].meters["get"]
        before = counted.count
        self.step("returned", worker, loan.number, done, self.now, **options)
        assert counted.count == before + process.straight
        self.step("returned", worker, loan.number, done, self.now)  # late news of it are nothing
        assert counted.count == before + process.straight

    def lent(self) -> list[int]:
        """Those whose loans are used or given back."""
        return [worker for worker, process in self.processes.items() if process.loan is not None and not process.silent]

    @precondition(lambda self: self.lent())
    @rule(data=st.data(), what=st.sampled_from(("pop", "close", "lose", "ttl", "call", "map", "info")))
    def somebody_wants_what_is_lent(self, data: Any, what: str) -> None:
        worker = self.pick(data, self.lent())
        connection = self.core.connections.by_worker.get(worker)
        if connection is None:
            return
        if what == "pop":
            self.step("pop", self.request("pop"), connection.id)
        elif what == "close":
            self.returned(worker, close=True)
        elif what == "lose":
            self.loses(worker)
        elif what == "ttl":
            self.step("update", self.request("update"), connection.resource, None, {"ttl": 1.0})
        elif what == "call":
            self.call(str(connection.resource), "get", None, 2.0, "c1")
        elif what == "map":
            self.step("map", self.request("map"), "mapper", connection.resource, "get")
        else:
            self.step("info", self.request("info"), connection.id)

    @rule(observed=st.sampled_from((False, False, False, True)))
    def somebody_listens(self, observed: bool) -> None:
        self.step("observe", observed)

    @precondition(lambda self: self.core.connections.by_id)
    @rule(data=st.data())
    def info(self, data: Any) -> None:
        self.step("info", self.request("info"), self.pick(data, list(self.core.connections.by_id)))

    @rule(timeouts=st.lists(st.sampled_from((None, 0.3, 2.0)), min_size=2, max_size=6))
    def several_callers_call(self, timeouts: list[Any]) -> None:
        for number, timeout in enumerate(timeouts):
            self.call("a", "get", None, timeout, f"c{number % 3}")

    def call(self, resource: str, method: str, where: Any, timeout: Any, caller: str) -> None:
        if caller in self.dead:
            return
        live = self.live(resource)
        expected: type[Exception] | None = None
        if self.core.lifecycle.stopping:
            expected = PoolStopped
        elif not live:
            expected = NoResource
        elif not any(method in connection.meters for connection in live):
            expected = MethodNotFound
        elif not self.able(resource, method, where):
            expected = NoMatch
        ref = self.ref("call")
        self.pending[ref] = None
        self.event = "call"
        effects = self.core.call(
            self.now, ref, caller, resource, method, ref, where=where, timeout=timeout, direct=True
        )
        self.pending[ref] = self.core.calls.by_ref.get(ref)
        for effect in effects:
            self.carry_out(effect)
        assert self.failed.get(ref) is expected
        for connection in self.core.connections.by_resource.get(resource, ()):
            assert self.core.lifecycle.stopping or connection.state is not LIVE or not connection.expired(self.now), (
                "not met"
            )

    @rule(method=st.sampled_from(("get", "put", "nonsense")), timeout=st.sampled_from((None, 0.3, 2.0)))
    def map(self, method: str, timeout: Any) -> None:
        ref = self.request("map")
        self.step("map", ref, "mapper", "a", method, timeout=timeout)

    def finish(self, worker: int, full: bool = False, **options: Any) -> None:
        """Have a worker answer, or refuse, what it has got. `full`: there is no room for more answers just now."""
        process = self.processes[worker]
        if process.refuses:
            self.send_back(worker)
            return
        call = process.calls.popleft()
        if process.state == "lost" or options.get("close") or options.get("cooldown") == float("inf"):
            process.refuses = "lost"
        elif full or options.get("cooldown"):
            process.refuses = "pauses"
        self.begins_next(process)
        self.step("done", worker, call.number, ("reply", call.number), **options)

    def send_back(self, worker: int) -> None:
        process = self.processes[worker]
        call = process.calls.popleft()
        assert call.number not in self.begun
        self.step("not_run", worker, call.number, ConnectionError() if process.refuses == "lost" else None)

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def finish_plainly(self, data: Any) -> None:
        self.now += 0.05
        self.finish(self.pick(data, self.busy()), took=0.05)

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def finish_quickly(self, data: Any) -> None:
        self.finish(self.pick(data, self.busy()), took=0.0)

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), cooldown=st.sampled_from((0.0, 0.02, 0.5, float("inf"))), close=st.booleans())
    def finish_with_a_wish(self, data: Any, cooldown: float, close: bool) -> None:
        self.finish(self.pick(data, self.busy()), cooldown=cooldown, close=close, failed=close)

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def find_no_connection(self, data: Any) -> None:
        worker = self.pick(data, self.busy())
        process = self.processes[worker]
        assert process.call is not None
        process.state = process.refuses = "lost"
        self.begun.discard(process.call.number)
        self.send_back(worker)

    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        if self.pending:
            ref = self.pick(data, list(self.pending))
            del self.pending[ref]
            self.step("cancel", ref)

    @rule(caller=st.sampled_from(("c1", "c2")))
    def a_caller_dies(self, caller: str) -> None:
        self.dead.add(caller)
        self.pending = {ref: call for ref, call in self.pending.items() if call is None or call.caller != caller}
        self.step("caller_down", caller)

    # -- operators and time ---------------------------------------------------------------------------------

    @precondition(lambda self: self.core.connections.by_id)
    @rule(data=st.data())
    def pop(self, data: Any) -> None:
        self.step("pop", self.request("pop"), self.pick(data, list(self.core.connections.by_id)))

    @rule(where=st.sampled_from(({"zone": 0}, {"zone": 1})))
    def pop_all(self, where: Any) -> None:
        self.step("pop_all", self.request("pop_all"), "a", where)

    @rule(
        resource=st.sampled_from(RESOURCES),
        change=st.sampled_from(({"ttl": 1.0}, {"ttl": None}, {"revive": True}, {"revive": False}, {"extra": ZONES[1]})),
    )
    def update(self, resource: str, change: Any) -> None:
        self.step("update", self.request("update"), resource, None, change)

    @precondition(lambda self: self.core.connections.by_id)
    @rule(data=st.data(), zone=st.sampled_from(ZONES))
    def tag(self, data: Any, zone: Any) -> None:
        self.step("extra", self.request("extra"), self.pick(data, list(self.core.connections.by_id)), zone)

    @rule(seconds=st.sampled_from((0.01, 0.3, 1.0, 6.0)), ticking=st.booleans())
    def time_passes(self, seconds: float, ticking: bool) -> None:
        """With a shell that ticks in time, or one that was busy elsewhere."""
        end = self.now + seconds
        while ticking and (moment := self.core.deadline()) is not None and moment <= end:
            self.now = max(self.now, moment)
            self.step("tick")
        self.now = end

    @precondition(lambda self: self.refs > 25)
    @rule(timeout=st.sampled_from((0.0, 1.0)))
    def stop(self, timeout: float) -> None:
        self.step("stop", self.request("stop"), timeout)

    # -- what always holds ----------------------------------------------------------------------------------

    @invariant()
    def every_pending_call_is_in_exactly_one_place(self) -> None:
        places: dict[Any, int] = {}
        for connection in self.core.connections.by_id.values():
            running = [connection.running] if isinstance(connection.running, Call) else []
            for call in [*connection.queue.values(), *running, *connection.sent]:
                assert call.connection is connection
                if not call.answered:
                    places[call.ref] = places.get(call.ref, 0) + 1
            assert list(connection.queue) == sorted(connection.queue), "out of order"
            assert not any(call.answered for call in connection.queue.values())
        assert places == dict.fromkeys(self.core.calls.by_ref, 1)
        assert set(self.pending) == {ref for ref, call in self.core.calls.by_ref.items() if call.gather is None}

    @invariant()
    def nobody_waits_for_an_idle_connection(self) -> None:
        for connection in self.core.connections.by_id.values():
            if connection.running is None and connection.queue:
                assert connection.serving
                assert connection.free_at > self.now or self.overdue(), "idle, and calls wait"
            if isinstance(connection.running, Loan):
                wanted = connection.queue or connection.state is not LIVE or connection.ttl is not None
                assert connection.running.recalled or not wanted, "others wait, and it is not called back"
            if connection.state is DRAINING:
                assert connection.running is not None or connection.queue, "popped, done, and still there"
            if connection.state is ENDING:
                assert connection.running is not None
                assert not connection.queue

    def overdue(self) -> bool:
        moment = self.core.deadline()
        return moment is not None and moment <= self.now

    @invariant()
    def the_records_agree_with_the_world(self) -> None:
        core = self.core
        core.workers.check()
        assert set(core.workers.by_id) == set(self.processes)
        assert set(core.workers.by_state[STOPPING]) == set(self.some("stopping"))
        assert set(core.connections.by_worker) == set(self.processes) - set(self.some("stopping"))
        for worker, connection in core.connections.by_worker.items():
            process = self.processes[worker]
            assert core.connections.by_id[connection.id] is connection
            assert connection.worker is core.workers.by_id[worker]
            assert connection.running is (process.call if process.loan is None else process.loan)
            assert list(connection.sent) == list(process.calls)[1:]
            assert process.state in STATES[connection.worker.state, connection.state]
        for connection in core.connections.by_id.values():
            assert connection.worker is not None or connection.rests
            assert connection.adding is None or connection.state is CLOSED
        filed = [connection for group in core.connections.by_resource.values() for connection in group]
        assert all(group for group in core.connections.by_resource.values())
        known = core.connections.by_id.values()
        assert {one.id for one in filed} == {one.id for one in known if one.resource is not None}

    def teardown(self) -> None:
        """Nothing is lost: once workers do what they are told and time passes, everything is answered."""
        try:
            self.wind_up()
        finally:
            records.SURE = self.sure

    def wind_up(self) -> None:
        for _ in range(300 + 4 * len(self.pending)):  # each round ends one call of each worker at most
            if not self.pending and not self.requests:
                break
            for worker in [worker for worker, process in self.processes.items() if process.silent]:
                self.kill(worker)
            doings: list[tuple[list[int], Callable[[int], Any]]] = [
                (self.some("stopping"), self.kill),
                (self.some("starting"), lambda worker: self.step("worker_started", worker, 1)),
                (self.some("opening"), lambda worker: self.opened(worker, ("get", "put"))),
                (self.busy(), self.finish),
                (self.lent(), self.returned),
            ]
            for workers, do in doings:
                for worker in workers:
                    do(worker)
            self.time_passes(0.5, True)
        assert not self.pending
        assert not self.requests


TestSharedPool = SharedPool.TestCase
TestSharedPool.settings = settings(max_examples=100, stateful_step_count=50)
