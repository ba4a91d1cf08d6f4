"""Keyed leases as the pool decides about them: who meets which state, who waits for whom, what ends a session."""

from __future__ import annotations

import pytest

from actorpool.core import effects as fx
from actorpool.core.workers import IDLE, PARKED, REVOKING
from actorpool.errors import CheckoutTimeout, PoolFull
from tests.core.poolkit import Kit


def used(kit, key, holder="caller"):
    """A lease of that key, given back."""
    ticket = kit.checkout(holder, key=key)
    kit.checkin(ticket)
    return ticket


def fresh(ticket):
    return ticket.grant.keyed.fresh


def test_the_first_lease_of_a_key_is_fresh_and_the_next_meets_the_same_worker():
    kit = Kit(3)
    first = used(kit, "a")
    second = kit.checkout("another", key="a")
    assert (fresh(first), fresh(second)) == (True, False)
    assert first.worker == second.worker


def test_a_parked_worker_counts_as_idle():
    kit = Kit(1)
    used(kit, "a")
    assert kit.figures == ("ready", 1, 0, 0)
    assert (kit.status.parked, kit.status.total) == (1, 1)


def test_two_keys_have_two_workers_while_there_are_two():
    kit = Kit(2)
    assert used(kit, "a").worker != used(kit, "b").worker
    assert kit.status.parked == 2


def test_who_asks_for_a_key_that_is_in_use_waits_for_it_though_others_are_idle():
    kit = Kit(2)
    holder = kit.checkout(key="a")
    waiter = kit.checkout("another", key="a")
    assert waiter.waiting
    kit.checkin(holder)
    assert waiter.worker == holder.worker
    assert not fresh(waiter)


def test_callers_of_one_key_are_served_in_their_order():
    kit = Kit(1)
    first = kit.checkout(key="a")
    others = [kit.checkout(name, key="a") for name in "bcd"]
    served = []
    while any(ticket.waiting for ticket in others):
        kit.checkin(first)
        first = next(ticket for ticket in others if ticket.open)
        served.append(first.holder)
    assert served == ["b", "c", "d"]


def test_who_waits_for_a_busy_key_is_passed_over():
    kit = Kit(2, max_overflow=0)
    first, second = kit.checkout(key="a"), kit.checkout()
    waiter, unkeyed = kit.checkout("b", key="a"), kit.checkout("c")
    kit.checkin(second)
    assert unkeyed.open
    assert waiter.waiting
    kit.checkin(first)
    assert waiter.open


def test_an_unkeyed_caller_takes_an_idle_worker_at_once_though_others_wait_for_a_busy_key():
    kit = Kit(2, max_overflow=0)
    kit.checkout(key="a")
    assert kit.checkout("b", key="a").waiting
    assert kit.checkout("c").open


def test_an_unkeyed_caller_who_came_first_gets_the_worker_of_a_key_that_others_wait_for():
    kit = Kit(1, max_overflow=0)
    holder = kit.checkout(key="a")
    unkeyed, waiter = kit.checkout("b"), kit.checkout("c", key="a")
    kit.checkin(holder)
    assert unkeyed.open
    assert waiter.waiting
    kit.checkin(unkeyed)
    assert fresh(waiter)
    assert waiter.grant.keyed.lost == "evicted"


def test_the_worker_parked_longest_is_evicted_and_reset_before_another_caller_has_it():
    kit = Kit(3, max_overflow=0, obliging=True)
    workers = [used(kit, key).worker for key in "abc"]
    used(kit, "a")  # now b is parked longest
    kit.obliging = False
    ticket = kit.checkout()
    assert ticket.waiting
    assert kit.ordered(fx.Revoke) == [workers[1]]
    kit.oblige()
    assert ticket.worker == workers[1]
    assert not fresh(kit.checkout(key="a"))


def test_parked_workers_are_evicted_before_overflow_starts():
    kit = Kit(1, max_overflow=2)
    used(kit, "a")
    assert kit.checkout().open
    assert kit.status.overflow == 0


def test_an_overflow_worker_never_parks():
    kit = Kit(1, max_overflow=1)
    base = kit.checkout()
    keyed = used(kit, "a")
    assert kit.status.parked == 0
    kit.checkin(base)
    assert kit.status.total == 1
    assert (keyed.grant.keyed.fresh, fresh(kit.checkout(key="a"))) == (True, True)


@pytest.mark.parametrize(
    ("options", "error"), [({"block": False}, PoolFull), ({"timeout": 0.0}, CheckoutTimeout)], ids=["block", "timeout"]
)
def test_a_busy_key_is_refused_at_once_to_a_caller_who_does_not_wait(options, error):
    kit = Kit(2)
    kit.checkout(key="a")
    ticket = kit.checkout(key="a", **options)
    assert isinstance(ticket.error, error)
    assert kit.figures == ("ready", 1, 0, 1)


def test_a_caller_who_waited_for_a_key_in_vain_is_told_of_the_key():
    kit = Kit(2)
    kit.checkout(key="a")
    ticket = kit.checkout(key="a", timeout=0.5)
    kit.later(1.0)
    assert "the worker of key 'a' was in use for all of 0.50 s" in str(ticket.error)


@pytest.mark.parametrize("options", [{"block": False}, {"timeout": 0.0}], ids=["block", "timeout"])
def test_a_caller_who_does_not_wait_gets_a_worker_that_is_parked_under_another_key(options):
    kit = Kit(1, max_overflow=0)
    used(kit, "a")
    assert kit.checkout(**options).open


def test_a_session_is_over_after_session_idle():
    kit = Kit(1, session_idle=10.0)
    used(kit, "a")
    kit.later(9.0)
    assert kit.status.parked == 1
    kit.later(2.0)
    assert (kit.status.parked, kit.figures) == (0, ("ready", 1, 0, 0))
    lost = kit.checkout(key="a").grant.keyed
    assert lost == fx.Keyed(True, "expired")


def test_using_a_session_begins_its_idle_time_anew():
    kit = Kit(1, session_idle=10.0)
    for _ in range(5):
        used(kit, "a")
        kit.later(8.0)
    assert not fresh(kit.checkout(key="a"))


def test_lifetimes_and_idle_timeouts_leave_parked_workers_alone():
    kit = Kit(1, max_lifetime=5.0, idle_timeout=3.0, health_interval=None)
    used(kit, "a")
    kit.later(60.0)
    assert not fresh(kit.checkout(key="a"))


def test_an_interrupt_that_the_worker_answers_keeps_the_session():
    kit = Kit(1)
    ticket = kit.checkout(key="a")
    kit("abandon", ticket.lease)
    assert ticket.ended is not None
    assert not fresh(kit.checkout(key="a"))


def test_while_a_worker_is_interrupted_its_key_is_in_use():
    kit = Kit(2, obliging=True)
    ticket = kit.checkout(key="a")
    kit.obliging = False
    kit("abandon", ticket.lease)
    waiter = kit.checkout(key="a")
    assert waiter.waiting
    kit.oblige()
    assert not fresh(waiter)


def test_a_worker_that_does_not_answer_the_interrupt_takes_its_session_along():
    kit = Kit(1, kill_after=2.0)
    ticket = kit.checkout(key="a")
    kit.silent = {fx.Revoke}
    kit("abandon", ticket.lease)
    kit.silent = set()
    kit.processes[1].deaf = True
    kit.later(3.0)
    assert kit.checkout(key="a").grant.keyed.fresh


def test_the_death_of_a_caller_keeps_its_session():
    kit = Kit(1)
    kit.checkout("agent", key="a")
    kit.caller_down("agent")
    assert not fresh(kit.checkout("its successor", key="a"))


def test_the_death_of_a_parked_worker_ends_its_session():
    kit = Kit(2)
    kit.kill(used(kit, "a").worker)
    assert kit.checkout(key="a").grant.keyed == fx.Keyed(True, "died")


def test_a_lost_connection_ends_its_session():
    kit = Kit(1)
    ticket = kit.checkout(key="a")
    kit.lose(ticket.worker)
    kit.checkin(ticket)
    assert kit.checkout(key="a").grant.keyed == fx.Keyed(True, "reconnected")


def test_end_session_ends_a_parked_one_at_once_and_one_in_use_when_it_is_given_back():
    kit = Kit(2)
    used(kit, "a")
    kit("end_session", 1, "a")
    busy = kit.checkout(key="b")
    kit("end_session", 2, "b")
    kit("end_session", 3, "c")
    assert kit.answers == {1: True, 2: True, 3: False}
    assert busy.open
    kit.checkin(busy)
    assert kit.status.parked == 0
    assert kit.checkout(key="a").grant.keyed == kit.checkout(key="b").grant.keyed == fx.Keyed(True, None)


def test_a_smaller_pool_gives_up_idle_workers_before_parked_ones():
    kit = Kit(2)
    used(kit, "a")
    kit("resize", 1)
    assert kit.status.total == 1
    assert not fresh(kit.checkout(key="a"))


def test_a_pool_of_size_zero_keeps_no_session():
    kit = Kit(1)
    used(kit, "a")
    kit("resize", 0)
    assert (kit.status.total, kit.status.parked) == (0, 0)


@pytest.mark.parametrize("restart", [False, True])
def test_a_recycle_replaces_parked_workers_too(restart):
    kit = Kit(2)
    used(kit, "a")
    kit("recycle", "ref", None, restart)
    kit.later(1.0)
    assert kit.answers == {"ref": None}
    assert fresh(kit.checkout(key="a"))


def test_a_suspended_pool_keeps_its_sessions_and_grants_none():
    kit = Kit(1)
    used(kit, "a")
    kit("suspend")
    ticket = kit.checkout(key="a")
    assert ticket.waiting
    kit("resume")
    assert not fresh(ticket)


def test_a_drained_pool_keeps_its_sessions():
    kit = Kit(1)
    used(kit, "a")
    kit("drain", "drained", 1.0)
    assert kit.answers == {"drained": None}
    kit("resume")
    assert not fresh(kit.checkout(key="a"))


def test_sessions_are_told():
    kit = Kit(2)
    used(kit, "a")
    used(kit, "a")
    kit.later(3.0)
    kit.checkout(key="b")
    kit.later(2.0)
    a, b = kit.core.sessions.infos({1: 11, 2: 22}, kit.now)
    assert (a.key, a.busy, a.calls, a.age, a.idle) == ("a", False, 2, 5.0, 5.0)
    assert (b.key, b.busy, b.calls, b.age, b.idle) == ("b", True, 1, 2.0, 0.0)
    assert {a.pid, b.pid} == {11, 22}


def test_a_worker_is_parked_evicted_and_idle_in_this_order():
    kit = Kit(1, obliging=True)
    used(kit, "a")
    worker = kit.core.workers.by_id[1]
    assert worker.state is PARKED
    kit.obliging = False
    kit("end_session", 1, "a")
    assert worker.state is REVOKING
    kit.oblige()
    assert worker.state is IDLE


def test_lost_keys_are_remembered_up_to_a_bound(monkeypatch):
    monkeypatch.setattr("actorpool.core.pool.sessions.REMEMBERED", 100)
    kit = Kit(1)
    for number in range(110):
        used(kit, number)
    assert len(kit.core.sessions._lost) == 100
    assert kit.checkout(key=0).grant.keyed == fx.Keyed(True, None)


def test_a_lease_under_which_nothing_has_run_parks_its_worker_and_leaves_its_key_fresh():
    kit = Kit(2)
    first, second = kit.checkout(key="a"), kit.checkout(key="b")
    kit.give_back_empty(first)
    kit.give_back_empty(second)
    assert kit.status.parked == 2
    again = used(kit, "a")
    assert (again.worker, fresh(again)) == (first.worker, True)
    kit.give_back_empty(again := kit.checkout(key="a"))
    assert not fresh(again)
    assert not fresh(kit.checkout(key="a"))


def test_a_loss_is_told_again_until_a_caller_knows_of_it():
    kit = Kit(1)
    used(kit, "a")
    used(kit, "b")
    told = []
    for know in (False, True, True):
        ticket = kit.checkout(key="a")
        told.append(ticket.grant.keyed.lost)
        kit.give_back_empty(ticket, told=know)
    assert told == ["evicted", "evicted", None]


def test_a_grant_that_crossed_its_cancel_leaves_nothing_and_its_loss_is_told_again():
    kit = Kit(1)
    used(kit, "a")
    used(kit, "b")
    kit.cancel(kit.checkout(key="a"))
    ticket = kit.checkout("another", key="a")
    assert (fresh(ticket), ticket.grant.keyed.lost) == (True, "evicted")


def test_a_worker_parked_empty_that_is_evicted_is_no_loss():
    kit = Kit(1, max_overflow=0)
    kit.give_back_empty(kit.checkout(key="a"))
    used(kit, "b")
    assert kit.checkout(key="a").grant.keyed == fx.Keyed(True, None)


def test_who_waits_behind_a_lease_that_leaves_nothing_is_served_and_fresh():
    kit = Kit(2)
    first = kit.checkout(key="a")
    waiter = kit.checkout("another", key="a")
    kit.give_back_empty(first)
    assert waiter.open
    assert fresh(waiter)


def test_a_death_under_a_lease_that_has_run_nothing_is_no_loss():
    kit = Kit(1, max_overflow=0)
    used(kit, "a")
    used(kit, "b")
    kit.idle_holders = True
    ticket = kit.checkout(key="a")
    assert ticket.grant.keyed.lost == "evicted"
    kit.kill(ticket.worker)
    again = kit.checkout(key="a")
    assert (fresh(again), again.grant.keyed.lost) == (True, None)


def test_a_death_under_a_first_lease_that_has_run_something_is_a_loss():
    kit = Kit(1, max_overflow=0)
    ticket = kit.checkout(key="a")
    kit.kill(ticket.worker)
    assert kit.checkout(key="a").grant.keyed.lost == "died"


def test_a_caller_that_dies_before_its_first_call_leaves_nothing_and_the_loss_is_told_to_the_next():
    kit = Kit(1, max_overflow=0)
    used(kit, "a")
    used(kit, "b")
    kit.idle_holders = True
    kit.checkout("mortal", key="a")
    kit.processes[1].holds = None
    kit.caller_down("mortal")
    ticket = kit.checkout(key="a")
    assert (fresh(ticket), ticket.grant.keyed.lost) == (True, "evicted")


def test_a_session_that_is_to_end_is_no_loss_when_its_worker_dies_before():
    kit = Kit(1, max_overflow=0)
    ticket = kit.checkout(key="a")
    kit("end_session", "asker", "a")
    kit.kill(ticket.worker)
    assert kit.checkout(key="a").grant.keyed.lost is None


def test_of_two_workers_that_come_back_together_only_the_one_above_size_loses_its_state():
    kit = Kit(1, max_overflow=1, obliging=False)
    kit.oblige()
    first, second = kit.checkout(key="a"), kit.checkout(key="b")
    kit.oblige()
    kit.checkin(first, second)
    kit.oblige()
    assert (kit.status.total, kit.status.parked) == (1, 1)
    assert not fresh(kit.checkout(key="b"))
