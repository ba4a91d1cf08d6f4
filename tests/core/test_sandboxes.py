"""Sandboxes as the pool decides about them: turns, guests, deaths; in simulated time."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actorpool.config import PoolConfig
from actorpool.core.effects import Answer, Ended, Granted, Kill, Open, Refused, Revoke, Start, Stop
from actorpool.core.pool.core import PoolCore
from actorpool.errors import CheckoutTimeout, LeaseExpired, PoolFull
from actorpool.workers import EchoWorker


class Holder(NamedTuple):
    """One of the ways by which a process holds leases."""

    caller: str
    number: int = 0


OWNER, GUEST, STRANGER = Holder("owner"), Holder("guest"), Holder("stranger")


class World:
    """A pool whose workers start, connect and reset at once, or when told."""

    def __init__(self, size: int = 2, **config: Any) -> None:
        self.now = 0.0
        self.core = PoolCore("db", PoolConfig(worker=EchoWorker, size=size, max_overflow=0, **config), size, 0.0, float)
        self.log: list[Any] = []
        self.slow: list[Revoke] = []  # what workers were told and have not answered
        self.resets = True
        self.refs = iter(range(1, 10**6))
        self.do(self.core.start(0.0))

    def do(self, effects: list[Any]) -> list[Any]:
        """Carry effects out, and say what there was to tell."""
        todo, told = list(effects), []
        while todo:
            effect = todo.pop(0)
            told.append(effect)
            if isinstance(effect, Start):
                todo += self.core.worker_started(self.now, effect.worker)
            elif isinstance(effect, Open):
                todo += self.core.opened(self.now, effect.worker)
            elif isinstance(effect, (Stop, Kill)):
                todo += self.core.died(self.now, effect.worker)
            elif isinstance(effect, Revoke):
                self.slow.append(effect)
                todo += self.reset() if self.resets else []
        self.core.check()
        self.log += told
        return told

    def allow(self, key: str, process: str) -> Exception | None:
        """Let a process in; the error, if that cannot be."""
        (answer,) = [effect for effect in self.do(self.core.allow(self.now, "allow", key, process))
                     if isinstance(effect, Answer)]  # fmt: skip
        return answer.value

    def reset(self) -> list[Any]:
        """The workers answer what they were told."""
        done, self.slow = self.slow, []
        return [effect for it in done for effect in self.core.revoked(self.now, it.worker, it.lease)]

    def ask(self, holder: Holder, sandbox: str | None = None, timeout: float = 5.0, block: bool = True) -> Any:
        """A checkout: what it was answered, or its ref while it waits."""
        ref = next(self.refs)
        told = self.do(self.core.checkout(self.now, ref, holder, timeout, block, None, sandbox))
        answers = [it for it in told if isinstance(it, (Granted, Refused)) and it.ref == ref]
        return answers[0] if answers else ref

    def answer(self, ref: int) -> Any:
        """What a checkout that waited was answered since."""
        return next(it for it in self.log if isinstance(it, (Granted, Refused)) and it.ref == ref)

    def checkin(self, grant: Granted) -> list[Any]:
        return self.do(self.core.checkin(self.now, grant.lease))

    def tick(self, seconds: float) -> list[Any]:
        self.now += seconds
        return self.do(self.core.tick(self.now))

    def open(self, key: str = "box", owner: Holder = OWNER) -> Granted:
        lease = self.ask(owner, "")
        assert self.core.enclose(key, lease.lease, owner.caller) is None
        return lease


@pytest.fixture
def world() -> World:
    return World()


# -- turns --------------------------------------------------------------------------------------------------


def test_a_turn_is_a_lease_of_the_owners_worker_with_an_id_of_its_own(world: World) -> None:
    lease = world.open()
    turn = world.ask(OWNER, "box")
    assert (turn.worker, turn.turn) == (lease.worker, True)
    assert turn.lease > lease.lease
    assert not lease.turn


def test_turns_are_taken_one_after_the_other_in_order_of_arrival(world: World) -> None:
    world.open()
    first = world.ask(OWNER, "box")
    waiting = [world.ask(Holder("owner", number), "box") for number in range(3)]
    assert all(isinstance(ref, int) for ref in waiting)
    lease = first
    for ref in waiting:
        world.checkin(lease)
        lease = world.answer(ref)
        assert isinstance(lease, Granted)
    assert [it.id for it in world.core.lease_infos(0.0)][1:] == [lease.lease]


def test_a_sandbox_takes_nothing_from_the_others(world: World) -> None:
    world.open()
    world.ask(OWNER, "box")
    others = world.ask(STRANGER)
    assert (others.turn, isinstance(others, Granted)) == (False, True)
    assert isinstance(world.ask(STRANGER), int)
    status = world.core.status(0.0)
    assert (status.monitors, status.waiting) == (2, 1)


def test_two_sandboxes_have_two_workers(world: World) -> None:
    assert world.open("a").worker != world.open("b").worker
    assert world.ask(OWNER, "a").worker != world.ask(OWNER, "b").worker


def test_who_cannot_wait_is_refused_at_once(world: World) -> None:
    world.open()
    turn = world.ask(OWNER, "box", timeout=0.0)
    assert isinstance(turn, Granted)
    full, late = world.ask(OWNER, "box", block=False), world.ask(OWNER, "box", timeout=0.0)
    assert isinstance(full.error, PoolFull)
    assert isinstance(late.error, CheckoutTimeout)


def test_who_waits_too_long_is_told_who_has_the_turn(world: World) -> None:
    world.open()
    world.ask(OWNER, "box")
    ref = world.ask(OWNER, "box", timeout=1.0)
    assert world.core.deadline() == 1.0
    world.tick(1.5)
    error = world.answer(ref).error
    assert isinstance(error, CheckoutTimeout)
    assert "1.5" in str(error)
    assert "lease or transaction that is open" in str(error)


def test_a_waiter_that_goes_is_forgotten_and_a_grant_that_crossed_its_cancel_is_given_on(world: World) -> None:
    world.open()
    first = world.ask(OWNER, "box")
    second, third = world.ask(GUEST._replace(caller="owner"), "box"), world.ask(OWNER, "box")
    world.do(world.core.cancel(0.0, second, GUEST._replace(caller="owner")))
    world.checkin(first)
    assert isinstance(world.answer(third), Granted)
    fourth = world.ask(OWNER, "box")
    world.do(world.core.cancel(0.0, third, OWNER))
    assert isinstance(world.answer(fourth), Granted)


def test_a_suspended_pool_goes_on_with_its_sandboxes(world: World) -> None:
    world.open()
    world.do(world.core.suspend(0.0))
    assert isinstance(world.ask(OWNER, "box"), Granted)


# -- who comes in -------------------------------------------------------------------------------------------


def test_a_process_that_was_not_let_in_is_refused(world: World) -> None:
    world.open()
    error = world.ask(GUEST, "box").error
    assert isinstance(error, LeaseExpired)
    assert "box.allow(pid)" in str(error)


def test_all_checkouts_of_a_guest_are_turns_until_the_sandbox_is_over(world: World) -> None:
    lease = world.open()
    assert world.allow("box", GUEST.caller) is None
    turn = world.ask(GUEST)
    assert (turn.turn, turn.worker) == (True, lease.worker)
    world.checkin(turn)
    assert world.core.sandbox_of(GUEST.caller) == "box"
    world.checkin(lease)
    assert not world.ask(GUEST).turn
    assert world.core.sandbox_of(GUEST.caller) is None


def test_a_guest_may_open_a_sandbox_of_its_own(world: World) -> None:
    lease = world.open()
    world.allow("box", GUEST.caller)
    assert world.open("other", GUEST).worker != lease.worker


def test_a_guest_of_one_sandbox_is_not_let_into_another(world: World) -> None:
    world.open("a")
    world.open("b")
    world.allow("a", GUEST.caller)
    assert isinstance(world.allow("b", GUEST.caller), ValueError)
    assert world.allow("a", GUEST.caller) is None
    assert isinstance(world.allow("c", GUEST.caller), LeaseExpired)


# -- ends -----------------------------------------------------------------------------------------------------


def test_the_end_of_a_sandbox_is_answered_when_its_worker_is_pristine(world: World) -> None:
    lease = world.open()
    world.resets = False
    told = world.do(world.core.release(0.0, "asker", "box"))
    assert Revoke(lease.worker, lease.lease) in told
    assert Answer("asker") not in told
    assert Answer("asker") in world.do(world.reset())
    assert world.core.status(0.0).workers == 2


def test_the_end_of_a_sandbox_that_is_over_is_answered_at_once(world: World) -> None:
    assert world.do(world.core.release(0.0, "asker", "box")) == [Answer("asker")]


@pytest.mark.parametrize("end", ["died", "lost"])
def test_whatever_becomes_of_the_worker_the_end_is_answered(world: World, end: str) -> None:
    lease = world.open()
    world.resets = False
    world.do(world.core.release(0.0, "asker", "box"))
    step = {"died": world.core.died, "lost": lambda now, id: world.core.lost(now, id, OSError())}[end]
    assert Answer("asker") in world.do(step(0.0, lease.worker))


def test_at_the_end_who_has_a_turn_and_who_waits_is_told(world: World) -> None:
    lease = world.open()
    world.allow("box", GUEST.caller)
    turn = world.ask(GUEST)
    ref = world.ask(OWNER, "box")
    told = world.do(world.core.release(0.0, "asker", "box"))
    assert isinstance(world.answer(ref).error, LeaseExpired)
    assert Ended(turn.lease, GUEST, turn.ref, lease.worker, False) in told
    assert isinstance(world.ask(OWNER, "box").error, LeaseExpired)
    world.checkin(turn)
    world.do(world.core.abandon(0.0, turn.lease))


def test_a_plain_checkin_of_the_owners_lease_ends_it_by_way_of_the_worker(world: World) -> None:
    lease = world.open()
    world.resets = False
    assert Revoke(lease.worker, lease.lease) in world.checkin(lease)
    assert world.core.status(0.0).workers == 1
    world.do(world.reset())
    assert world.core.status(0.0).workers == 2


def test_the_owners_death_ends_it(world: World) -> None:
    lease = world.open()
    told = world.do(world.core.caller_down(0.0, OWNER))
    assert Revoke(lease.worker, lease.lease) in told
    assert world.core.status(0.0).workers == 2
    assert not world.core.sandboxes.by_key


def test_a_guests_death_costs_only_its_turn(world: World) -> None:
    lease = world.open()
    world.allow("box", GUEST.caller)
    turn = world.ask(GUEST)
    ref = world.ask(OWNER, "box")
    gone = world.ask(GUEST)
    told = world.do(world.core.caller_down(0.0, GUEST))
    assert Revoke(lease.worker, turn.lease) in told
    assert isinstance(world.answer(ref), Granted)
    assert not [it for it in world.log if isinstance(it, (Granted, Refused)) and it.ref == gone]
    assert world.core.status(0.0).monitors == 1


def test_the_next_turn_waits_until_one_that_was_taken_back_is_undone(world: World) -> None:
    lease = world.open()
    turn, ref = world.ask(OWNER, "box"), world.ask(OWNER, "box")
    world.resets = False
    world.do(world.core.abandon(0.0, turn.lease))
    world.checkin(turn)
    with pytest.raises(StopIteration):
        world.answer(ref)
    world.do(world.reset())
    assert world.answer(ref).worker == lease.worker


def test_a_worker_that_ignores_that_is_killed_and_the_sandbox_with_it(world: World) -> None:
    lease = world.open()
    turn, ref = world.ask(OWNER, "box"), world.ask(OWNER, "box")
    world.resets = False
    world.do(world.core.abandon(0.0, turn.lease))
    told = world.tick(2.5)
    assert Kill(lease.worker) in told
    assert isinstance(world.answer(ref).error, LeaseExpired)


def test_the_end_of_the_sandbox_is_not_mistaken_for_that_of_a_turn_taken_back_just_before(world: World) -> None:
    world.open()
    turn = world.ask(OWNER, "box")
    world.resets = False
    world.do(world.core.abandon(0.0, turn.lease))
    world.do(world.core.release(0.0, "asker", "box"))
    first, second = world.slow
    assert world.do(world.core.revoked(0.0, first.worker, first.lease)) == []
    assert Answer("asker") in world.do(world.core.revoked(0.0, second.worker, second.lease))


def test_the_workers_death_ends_it_and_the_pool_replaces_it(world: World) -> None:
    lease = world.open()
    turn = world.ask(OWNER, "box")
    told = world.do(world.core.died(0.0, lease.worker))
    assert Ended(turn.lease, OWNER, turn.ref, lease.worker, True) in told
    assert isinstance(world.ask(OWNER, "box").error, LeaseExpired)
    assert world.core.status(0.0).workers == 2


def test_a_drain_waits_for_sandboxes_and_ends_them_at_its_deadline(world: World) -> None:
    world.open()
    assert Answer("drained") not in world.do(world.core.drain(0.0, "drained", 1.0))
    assert isinstance(world.ask(OWNER, "box"), Granted)
    assert Answer("drained") in world.tick(1.5)
    assert not world.core.sandboxes.by_key


def test_max_lease_bounds_the_sandbox_as_a_whole() -> None:
    world = World(max_lease=1.0)
    world.open()
    world.tick(0.9)
    world.checkin(world.ask(OWNER, "box"))
    world.tick(0.2)
    assert isinstance(world.ask(OWNER, "box").error, LeaseExpired)


def test_no_sandbox_is_opened_on_a_lease_that_is_over(world: World) -> None:
    lease = world.ask(OWNER, "")
    world.checkin(lease)
    assert isinstance(world.core.enclose("box", lease.lease, "owner"), LeaseExpired)


# -- any order of events --------------------------------------------------------------------------------------

HOLDERS = [Holder(caller, number) for caller in ("p1", "p2", "p3") for number in range(2)]


class AnyOrder(RuleBasedStateMachine):
    """Owners, guests and others come, wait, go and die in any order; `core.check` looks after every step."""

    @initialize(size=st.integers(1, 3), resets=st.booleans())
    def begin(self, size: int, resets: bool) -> None:
        self.world = World(size, max_restarts=10**6)
        self.world.resets = resets
        self.keys = 0

    def some(self, number: int, items: list[Any]) -> Any:
        return items[number % len(items)] if items else None

    @rule(holder=st.sampled_from(HOLDERS))
    def open(self, holder: Holder) -> None:
        lease = self.world.ask(holder, "", timeout=0.0)
        if isinstance(lease, Granted):
            self.keys += 1
            assert self.world.core.enclose(f"k{self.keys}", lease.lease, holder.caller) is None

    @rule(holder=st.sampled_from(HOLDERS), number=st.integers(0, 9), timeout=st.sampled_from([0.0, 1.0, 9.0]))
    def ask(self, holder: Holder, number: int, timeout: float) -> None:
        answer = self.world.ask(holder, self.some(number, [None, *self.world.core.sandboxes.by_key]), timeout)
        if isinstance(answer, Granted) and answer.turn:
            assert self.world.core.lease(answer.lease) is not None

    @rule(number=st.integers(0, 9), process=st.sampled_from(["p1", "p2", "p3"]))
    def allow(self, number: int, process: str) -> None:
        key = self.some(number, list(self.world.core.sandboxes.by_key))
        if key is not None:
            self.world.allow(key, process)

    @rule(number=st.integers(0, 9), how=st.sampled_from(["checkin", "abandon"]))
    def end(self, number: int, how: str) -> None:
        core = self.world.core
        id = self.some(number, [*core.leases, *core.sandboxes.turns])
        if id is not None:
            self.world.do(getattr(core, how)(self.world.now, id))

    @rule(number=st.integers(0, 9))
    def release(self, number: int) -> None:
        key = self.some(number, list(self.world.core.sandboxes.by_key))
        if key is not None:
            self.world.do(self.world.core.release(self.world.now, key, key))

    @rule(holder=st.sampled_from(HOLDERS))
    def holder_dies(self, holder: Holder) -> None:
        self.world.do(self.world.core.caller_down(self.world.now, holder))
        assert all(lease.holder != holder for lease in self.world.core.leases)

    @rule(number=st.integers(0, 9))
    def worker_dies(self, number: int) -> None:
        id = self.some(number, list(self.world.core.workers.by_id))
        self.world.do(self.world.core.died(self.world.now, id))

    @rule(number=st.integers(0, 9))
    def connection_is_lost(self, number: int) -> None:
        id = self.some(number, list(self.world.core.workers.by_id))
        self.world.do(self.world.core.lost(self.world.now, id, OSError()))

    @rule()
    def workers_answer(self) -> None:
        self.world.do(self.world.reset())

    @rule(seconds=st.sampled_from([0.1, 1.1, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)

    @invariant()
    def nobody_is_answered_twice(self) -> None:
        answered = [it.ref for it in getattr(self, "world", World()).log if isinstance(it, (Granted, Refused))]
        assert len(answered) == len(set(answered))

    @invariant()
    def one_turn_for_each_sandbox_and_by_those_who_may(self) -> None:
        for sandbox in getattr(self, "world", World()).core.sandboxes.by_key.values():
            if sandbox.turn is not None:
                assert sandbox.turn.holder.caller in sandbox.processes  # type: ignore[attr-defined]
                assert sandbox.turn.worker is sandbox.lease.worker

    def teardown(self) -> None:
        if hasattr(self, "world"):
            for key in list(self.world.core.sandboxes.by_key):
                self.world.do(self.world.core.release(self.world.now, key, key))
                self.world.do(self.world.reset())
                assert any(isinstance(it, Answer) and it.ref == key for it in self.world.log)
            assert not self.world.core.sandboxes.turns


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
