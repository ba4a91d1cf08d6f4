"""Everything that can happen to a pool, in any order, against what must be true whatever happens.

Callers come, go, die and change their minds; processes answer late, twice, wrongly or never; operators turn every
knob; time passes. At the end everybody behaves, and the pool must be exactly what it was configured to be.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorpool.config import Autoscale, Breaker
from actorpool.core import effects as fx
from actorpool.core.workers import DOWN, IDLE, OPENING, PARKED
from actorpool.errors import PermanentError
from tests.core.poolkit import AWAY, Kit, Process

NEVER = PermanentError("wrong password")
LONG = 300.0

configs = st.fixed_dictionaries(
    {
        "max_overflow": st.integers(0, 2),
        "overflow_ttl": st.sampled_from([0.0, 0.0, 1.0]),
        "strategy": st.sampled_from(["lifo", "fifo"]),
        "checkout_timeout": st.sampled_from([5.0, 5.0, 0.0]),
        "max_waiting": st.sampled_from([None, None, 0, 2]),
        "queue_target": st.sampled_from([None, None, 0.3]),
        "max_lifetime": st.sampled_from([None, 20.0]),
        "idle_timeout": st.sampled_from([None, 7.0]),
        "health_interval": st.sampled_from([None, 5.0]),
        "max_lease": st.sampled_from([None, 4.0]),
        "leak_threshold": st.sampled_from([None, 2.0]),
        "on_caller_death": st.sampled_from(["reset", "restart"]),
        "max_restarts": st.sampled_from([1000, 1000, 1]),
        "backoff_max": st.just(10.0),
        "breaker": st.sampled_from([None, None, Breaker(failures=2, window=30.0, reset_after=3.0)]),
        "autoscale": st.sampled_from([None, Autoscale(interval=10.0, minimum=1, maximum=3, threshold=0)]),
    }
)
troubles = st.sampled_from([None, None, None, None, AWAY, AWAY, NEVER])


class PoolMachine(RuleBasedStateMachine):
    """The kit's pool, with all the choices that an obliging world would not leave open."""

    @initialize(
        size=st.integers(0, 3), config=configs, chance=st.sampled_from([0.0, 0.5, 0.999]), started=st.booleans()
    )
    def build(self, size: int, config: dict[str, Any], chance: float, started: bool) -> None:
        self.kit = Kit(size, obliging=False, chance=chance, **config)
        self.lives = {"a": 0, "b": 0, "c": 0}
        self.asked: list[Any] = []
        if started:
            self.kit.oblige()

    def ask(self, step: str, *args: Any) -> None:
        """An administrative request that is to be answered."""
        self.asked.append((step, len(self.asked)))
        self.kit(step, self.asked[-1], *args)

    # -- callers --------------------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from("abc"),
        block=st.sampled_from([True, True, False]),
        timeout=st.sampled_from([None, None, 0.0, 0.5, 3.0]),
        sticky=st.booleans(),
    )
    def checkout(self, name: str, block: bool, timeout: float | None, sticky: bool) -> None:
        ticket = self.kit.checkout((name, self.lives[name]), block=block, timeout=timeout, sticky=sticky)
        assert timeout != 0.0 or not ticket.waiting or self.kit.core.figures.prompt

    @rule(name=st.sampled_from("abc"), count=st.integers(2, 5))
    def rush(self, name: str, count: int) -> None:
        self.kit.checkouts(count, (name, self.lives[name]))

    @precondition(lambda self: self.kit.open_tickets())
    @rule(data=st.data())
    def checkin(self, data: st.DataObject) -> None:
        self.kit.checkin(data.draw(st.sampled_from(self.kit.open_tickets())))

    @precondition(lambda self: any(map(self.kit.may_use, self.kit.open_tickets())))
    @rule(data=st.data(), more=st.integers(0, 3))
    def use(self, data: st.DataObject, more: int) -> None:
        ticket = data.draw(st.sampled_from(list(filter(self.kit.may_use, self.kit.open_tickets()))))
        self.kit.use(ticket)
        for _ in range(more):
            self.kit.end_use(ticket)
            if not self.kit.may_use(ticket):
                break
            self.kit.use(ticket)

    @precondition(lambda self: any(map(self.kit.is_used, self.kit.open_tickets())))
    @rule(data=st.data())
    def end_use(self, data: st.DataObject) -> None:
        self.kit.end_use(data.draw(st.sampled_from(list(filter(self.kit.is_used, self.kit.open_tickets())))))

    @rule(observed=st.sampled_from([True, False, False]))
    def observe(self, observed: bool) -> None:
        self.kit("observe", observed)

    @precondition(lambda self: any(ticket.grant for ticket in self.kit.tickets.values()))
    @rule(data=st.data())
    def checkin_again(self, data: st.DataObject) -> None:
        granted = [ticket for ticket in self.kit.tickets.values() if ticket.grant]
        self.kit.checkin(data.draw(st.sampled_from(granted)))

    @precondition(lambda self: self.kit.tickets)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.kit.cancel(data.draw(st.sampled_from(list(self.kit.tickets.values()))))

    @precondition(lambda self: self.kit.open_tickets())
    @rule(data=st.data(), seconds=st.sampled_from([None, 0.5, 3.0]))
    def abandon_or_limit(self, data: st.DataObject, seconds: float | None) -> None:
        lease = data.draw(st.sampled_from(self.kit.open_tickets())).lease
        if seconds is None:
            self.kit("abandon", lease)
        else:
            self.kit("limit", lease, seconds)

    @rule(name=st.sampled_from("abc"))
    def caller_dies(self, name: str) -> None:
        self.kit.caller_down((name, self.lives[name]))
        self.lives[name] += 1

    # -- worker processes -----------------------------------------------------------------------------------

    def some(self, data: st.DataObject, what: Any) -> Process:
        return data.draw(st.sampled_from([process for process in self.kit.living() if what(process)]))

    @precondition(lambda self: any(map(self.kit.can_work, self.kit.living())))
    @rule(data=st.data(), trouble=troubles, retry_after=st.sampled_from([None, None, 2.0]))
    def work(self, data: st.DataObject, trouble: Exception | None, retry_after: float | None) -> None:
        process = self.some(data, self.kit.can_work)
        if isinstance(process.inbox[0], fx.Start):
            trouble = trouble if data.draw(st.integers(0, 9)) == 9 else None
        self.kit.work(process, trouble, retry_after)

    @precondition(lambda self: any(process.outbox for process in self.kit.processes.values()))
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """Also of the dead: what they said last may arrive late."""
        saying = [process for process in self.kit.processes.values() if process.outbox]
        self.kit.deliver(data.draw(st.sampled_from(saying)))

    @precondition(lambda self: any(process.said for process in self.kit.processes.values()))
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from([process for process in self.kit.processes.values() if process.said]))
        self.kit.deliver_again(process, data.draw(st.sampled_from(process.said)))

    @rule(error=st.sampled_from([None, None, AWAY, NEVER]))
    def everybody_answers(self, error: Exception | None) -> None:
        """What they answer depends on the resource."""
        self.kit.error = error
        self.kit.oblige()

    @precondition(lambda self: any(process.connected and process.alive for process in self.kit.living()))
    @rule(data=st.data())
    def complain(self, data: st.DataObject) -> None:
        process = self.some(data, lambda process: process.connected and process.alive)
        process.connected = False
        process.outbox.append(("lost", AWAY))

    @precondition(lambda self: any(process.alive for process in self.kit.living()))
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        process = self.some(data, lambda process: process.alive)
        process.connected = True
        process.outbox.append(("reopened",))

    @precondition(lambda self: any(process.alive for process in self.kit.living()))
    @rule(data=st.data())
    def go_deaf(self, data: st.DataObject) -> None:
        self.some(data, lambda process: process.alive).deaf = True

    @precondition(lambda self: any(process.alive for process in self.kit.living()))
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        process = self.some(data, lambda process: process.alive)
        process.alive = False
        process.inbox.clear()

    @precondition(lambda self: any(not process.alive for process in self.kit.living()))
    @rule(data=st.data(), twice=st.booleans())
    def notice(self, data: st.DataObject, twice: bool) -> None:
        process = self.some(data, lambda process: not process.alive)
        self.kit.notice(process)
        if twice:
            self.kit.notice(process)

    # -- time and operators ---------------------------------------------------------------------------------

    @precondition(lambda self: self.kit.core.deadline() is not None)
    @rule()
    def tick(self) -> None:
        self.kit.now = max(self.kit.now, self.kit.core.deadline() or 0.0)
        self.kit("tick")

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 2.0, 6.0, 40.0]), late=st.booleans())
    def time_passes(self, seconds: float, late: bool) -> None:
        """`late`: the shell was busy, and ticks only afterwards."""
        if late:
            self.kit.now += seconds
        else:
            self.kit.later(seconds)

    @rule(size=st.sampled_from([None, 0, 1, 2, 4]), max_overflow=st.sampled_from([None, 0, 1, 2]))
    def resize(self, size: int | None, max_overflow: int | None) -> None:
        self.kit("resize", size, max_overflow)

    @rule(usage=st.lists(st.integers(0, 4), max_size=5))
    def sample(self, usage: list[int]) -> None:
        self.kit("sampled", usage)

    @rule(verb=st.sampled_from(["suspend", "resume", "resume"]))
    def suspend_or_resume(self, verb: str) -> None:
        self.kit(verb)

    @rule(timeout=st.sampled_from([0.0, 1.0, 20.0]))
    def drain(self, timeout: float) -> None:
        self.ask("drain", timeout)

    @rule(timeout=st.sampled_from([None, None, 0.0, 3.0]), restart=st.booleans())
    def recycle(self, timeout: float | None, restart: bool) -> None:
        self.ask("recycle", timeout, restart)

    @precondition(lambda self: len(self.kit.tickets) > 5)
    @rule(timeout=st.sampled_from([0.0, 1.0, 20.0]))
    def stop(self, timeout: float) -> None:
        self.kit("stop", "stop", timeout)

    # -- always ---------------------------------------------------------------------------------------------

    @invariant()
    def leases_are_what_callers_hold(self) -> None:
        if hasattr(self, "kit"):
            leases = [lease for lease in self.kit.core.leases if lease.holder not in self.kit.gone]
            orphans = [lease for lease in self.kit.core.leases if lease.holder in self.kit.gone]
            held = {ticket.lease for ticket in self.kit.open_tickets() if ticket.holder not in self.kit.gone}
            assert held == {lease.id for lease in leases}
            assert all(lease.sticky and lease.sticky.recalled for lease in orphans), "a lease of the dead"

    @invariant()
    def figures_are_those_of_checkouts_whoever_keeps_a_lease(self) -> None:
        if hasattr(self, "kit"):
            status = self.kit.core.status(self.kit.now)
            leases = self.kit.core.leases
            out = [ticket for ticket in self.kit.out() if ticket.lease in leases]
            assert status.checkouts == self.kit.counted
            assert status.monitors == len(out)
            kept = len(leases) - len(out)
            assert status.workers == self.kit.core.workers.count(IDLE, PARKED) + kept
            assert status.checkins <= status.checkouts

    @invariant()
    def who_waits_is_in_the_queue(self) -> None:
        if hasattr(self, "kit"):
            queue = self.kit.core.queue
            queued = {waiter.ref[1] for waiter in [*queue, *queue._late]}
            assert {ticket.ref for ticket in self.kit.waiting()} <= queued

    @invariant()
    def a_process_is_in_the_pool_until_its_death_is_noticed(self) -> None:
        if hasattr(self, "kit"):
            assert {process.id for process in self.kit.living()} == set(self.kit.core.workers.by_id)

    @invariant()
    def while_some_are_down_somebody_will_try_again(self) -> None:
        if hasattr(self, "kit"):
            core = self.kit.core
            if core.workers.count(DOWN) and not (core.connector.permanently_failed or core.life.ending):
                assert core.workers.count(OPENING) or core.deadline() is not None

    # -- at the end -----------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if hasattr(self, "kit"):
            self.settle()

    def settle(self) -> None:
        """Everybody behaves from now on; what must come, comes."""
        kit, core = self.kit, self.kit.core
        kit.obliging, kit.error = True, None
        kit.oblige()
        self.return_leases()
        if not core.life.ending:
            drained = {ask for ask in self.asked if ask[0] == "drain"}
            assert drained <= set(kit.answers), "a drain was never answered"
            kit("resume")
            if core.connector.permanently_failed:
                self.ask("recycle")
            self.return_leases()
        assert not kit.waiting()
        assert not core.leases
        assert not core.leases.by_holder
        if core.life.stopping:
            assert kit.stopped
            assert not kit.living()
        elif core.life.failed is None:
            assert set(self.asked) <= set(kit.answers), "an operator was never answered"
            assert kit.ready is not None
            assert len(core.workers) == core.workers.count(*core.workers.by_state) == core.life.size
            assert core.workers.count(IDLE, PARKED) == core.life.size, f"not all came back: {list(core.workers)}"
            assert core.state(kit.now) in ("ready", "overflow") or core.life.size == 0
            assert kit.checkout("the last").open or core.life.size == 0

    def return_leases(self) -> None:
        for _ in range(3):
            self.kit.checkin(*self.kit.open_tickets())
            self.kit.later(LONG)


standing_configs = st.fixed_dictionaries(
    {
        "max_overflow": st.integers(0, 1),
        "checkout_timeout": st.sampled_from([5.0, 5.0, 0.0]),
        "max_lifetime": st.sampled_from([None, None, 20.0]),
        "idle_timeout": st.sampled_from([None, None, 0.5]),
        "health_interval": st.sampled_from([None, 5.0]),
        "on_caller_death": st.sampled_from(["reset", "restart"]),
        "max_restarts": st.just(1000),
    }
)


class StandingMachine(PoolMachine):
    """The same with settings under which leases stand, and callers who make use of it."""

    @initialize(size=st.integers(1, 3), config=standing_configs)
    def build(self, size: int, config: dict[str, Any]) -> None:
        super().build(size, config, 0.5, True)

    @rule(name=st.sampled_from("abc"), uses=st.integers(0, 3))
    def stay(self, name: str, uses: int) -> None:
        ticket = self.kit.checkout((name, self.lives[name]), sticky=True)
        for _ in range(uses):
            if self.kit.may_use(ticket):
                self.kit.used(ticket)

    @rule()
    def nobody_wants_more(self) -> None:
        """Workers come back, and the crowd disperses."""
        self.kit.checkin(*(ticket for ticket in self.kit.open_tickets() if not ticket.stands))
        self.kit.oblige()
        self.kit.later(0.2)


keyed_configs = st.fixed_dictionaries(
    {
        "max_overflow": st.integers(0, 2),
        "checkout_timeout": st.sampled_from([5.0, 5.0, 0.0]),
        "session_idle": st.sampled_from([300.0, 3.0]),
        "max_lifetime": st.sampled_from([None, 20.0]),
        "idle_timeout": st.sampled_from([None, 2.0]),
        "health_interval": st.sampled_from([None, 5.0]),
        "max_lease": st.sampled_from([None, 4.0]),
        "on_caller_death": st.sampled_from(["reset", "restart"]),
        "max_restarts": st.sampled_from([1000, 1000, 1]),
    }
)


class KeyedMachine(PoolMachine):
    """The same with callers that ask for keys, beside those that do not."""

    @initialize(size=st.integers(0, 3), config=keyed_configs, started=st.booleans())
    def build(self, size: int, config: dict[str, Any], started: bool) -> None:
        super().build(size, config, 0.5, started)

    @rule(
        name=st.sampled_from("abc"),
        key=st.sampled_from("xyz"),
        block=st.sampled_from([True, True, False]),
        timeout=st.sampled_from([None, None, 0.0, 3.0]),
    )
    def ask_for_a_key(self, name: str, key: str, block: bool, timeout: float | None) -> None:
        self.kit.checkout((name, self.lives[name]), block=block, timeout=timeout, key=key)

    @rule(name=st.sampled_from("abc"), key=st.sampled_from("xyz"))
    def use_a_key_once(self, name: str, key: str) -> None:
        ticket = self.kit.checkout((name, self.lives[name]), key=key)
        if ticket.open:
            self.kit.checkin(ticket)

    @rule(name=st.sampled_from("abc"), key=st.sampled_from("xyz"), told=st.booleans())
    def use_a_key_for_nothing(self, name: str, key: str, told: bool) -> None:
        ticket = self.kit.checkout((name, self.lives[name]), key=key)
        if ticket.open:
            self.kit.give_back_empty(ticket, told)

    @rule(key=st.sampled_from("xyz"))
    def end_session(self, key: str) -> None:
        self.ask("end_session", key)

    @invariant()
    def a_session_is_where_its_state_is(self) -> None:
        if hasattr(self, "kit"):
            for session in self.kit.core.sessions.by_key.values():
                process = self.kit.processes[session.worker.id]
                assert process.noticed or not process.alive or process.holds == (None if session.empty else session.key)


_EXAMPLES = settings(max_examples=50, stateful_step_count=50)  # many more in `test_histories`

TestPool = pytest.mark.timeout(300)(PoolMachine.TestCase)
TestPool.settings = _EXAMPLES
TestKeyed = pytest.mark.timeout(300)(KeyedMachine.TestCase)
TestKeyed.settings = _EXAMPLES
TestStanding = pytest.mark.timeout(300)(StandingMachine.TestCase)
TestStanding.settings = _EXAMPLES
