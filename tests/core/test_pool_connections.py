"""Connections: losing and making them again, who tries for whom, checks, lifetimes, idleness, the breaker."""

from __future__ import annotations

import itertools

import pytest

from actorpool.config import Breaker
from actorpool.core import effects as fx
from actorpool.core.workers import NO_LEASE
from actorpool.errors import CheckoutTimeout, CircuitOpen, PermanentError, WorkerUnavailable
from tests.core.poolkit import AWAY, Kit

NEVER = PermanentError("wrong password")


def away(size, error=AWAY, **config):
    """A pool that had its connections and lost them all."""
    kit = Kit(size, **{"max_overflow": 0, "health_interval": None, **config})
    kit.error = error
    for id in range(1, size + 1):
        kit.lose(id)
    return kit


def attempts(kit, seconds, step=0.01):
    """When a connection was tried during that time, in seconds from now."""
    began, seen, moments = kit.now, kit.count(fx.Open), []
    for number in range(1, round(seconds / step) + 1):
        kit.later(began + number * step - kit.now)
        moments += [kit.now - began] * (kit.count(fx.Open) - seen)
        seen = kit.count(fx.Open)
    return moments


# -- losing one -------------------------------------------------------------------------------------------


def test_an_idle_worker_that_lost_its_connection_is_connected_again_before_anybody_gets_it():
    kit = Kit(1, max_overflow=0)
    kit.silent = {fx.Open}
    kit.lose(1)
    assert kit.orders[-1] == fx.Open(1)
    waiter = kit.checkout()
    assert waiter.waiting
    kit.silent.clear()
    kit.oblige()
    assert waiter.open
    assert kit.status.restarts == 0


def test_a_leased_worker_that_lost_its_connection_stays_with_its_holder_and_is_connected_when_it_comes_back():
    kit = Kit(1, max_overflow=0)
    lease = kit.checkout()
    opened = kit.count(fx.Open)
    kit.lose(1)
    kit.lose(1)
    assert lease.open
    assert kit.count(fx.Open) == opened
    kit.checkin(lease)
    assert kit.count(fx.Open) == opened + 1
    assert kit.figures == ("ready", 1, 0, 0)


def test_a_worker_that_loses_its_connection_while_it_is_reset_is_connected_again():
    kit = Kit(1, max_overflow=0)
    lease = kit.checkout()
    kit.silent = {fx.Revoke}
    kit("abandon", lease.lease)
    kit.processes[1].inbox.clear()
    kit.lose(1)
    assert kit.figures == ("ready", 1, 0, 0)


def test_after_one_loss_its_siblings_are_checked_before_their_next_use_and_only_then():
    kit = Kit(3, max_overflow=0)
    kit.lose(1)
    first = kit.checkouts(3)
    assert {ticket.worker: ticket.grant.check_first for ticket in first} == {1: False, 2: True, 3: True}
    kit.checkin(*first)
    assert not any(ticket.grant.check_first for ticket in kit.checkouts(3))


# -- making them again --------------------------------------------------------------------------------------


def test_one_worker_tries_for_all_with_growing_delays():
    kit = away(5, backoff_min=0.1, backoff_max=30.0)
    moments = attempts(kit, 20.0)
    pauses = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert pauses == sorted(pauses)
    assert len(moments) < 12
    assert len({order.worker for order in kit.orders[-len(moments) :]}) == 1


def test_the_next_outage_begins_with_short_delays_again():
    kit = away(1, backoff_min=0.1, backoff_max=30.0)
    kit.later(600.0)
    kit.error = None
    kit.later(30.0)
    kit.error = AWAY
    kit.lose(1)
    assert len(attempts(kit, 1.0)) >= 2


def test_once_it_works_the_others_follow_at_most_a_hundred_in_a_second():
    kit = away(300, backoff_max=1.0)
    kit.later(5.0)
    kit.error = None
    moments = attempts(kit, 6.0)
    assert kit.figures == ("ready", 300, 0, 0)
    assert max(sum(moment <= at < moment + 1.0 for at in moments) for moment in moments) <= 102


def test_retry_after_is_when_the_next_attempt_is():
    kit = away(3)
    kit.retry_after = 7.0
    kit.later(60.0)
    pauses = [later - earlier for earlier, later in itertools.pairwise(attempts(kit, 22.0))]
    assert pauses == pytest.approx([7.0, 7.0])


def test_when_the_worker_that_tries_for_all_dies_another_takes_over():
    kit = away(3, backoff_max=1.0)
    kit.later(3.0)
    for _ in range(3):
        kit.obliging = False
        kit.kill(kit.core.connector.probe_id)
        kit.obliging = True
        kit.oblige()
        assert attempts(kit, 2.0)
    kit.error = None
    kit.later(3.0)
    assert kit.figures == ("ready", 3, 0, 0)


def test_when_the_worker_that_tries_for_all_is_resized_away_another_takes_over():
    kit = away(3, backoff_max=1.0)
    kit("resize", 1)
    assert attempts(kit, 2.0)


def test_during_an_outage_callers_wait_and_then_hear_of_its_cause():
    kit = away(2, checkout_timeout=3.0)
    waiter = kit.checkout()
    assert isinstance(kit.checkout(block=False).error, WorkerUnavailable)
    kit.later(3.0)
    assert isinstance(waiter.error, WorkerUnavailable)
    assert waiter.error.cause is AWAY
    assert "ConnectionError: the resource is away" in str(waiter.error)
    assert kit.status.state == "degraded"


def test_while_the_others_follow_as_many_may_wait_as_are_about_to_connect():
    kit = away(3, backoff_max=1.0, max_waiting=0)
    kit.error, kit.obliging = None, False
    kit.later(1.0)
    kit.obey(kit.core.connector.probe_id)
    tickets = kit.checkouts(4, block=False)
    assert [ticket.error is None for ticket in tickets] == [True, True, True, False]
    kit.obliging = True
    kit.later(1.0)
    assert [ticket.open for ticket in tickets] == [True, True, True, False]


def test_whoever_waits_long_enough_is_served_when_the_resource_is_back():
    kit = away(2, backoff_max=1.0)
    waiter = kit.checkout(timeout=60.0)
    kit.later(30.0)
    kit.error = None
    kit.later(3.0)
    assert waiter.open


def test_workers_that_still_have_a_connection_go_on_serving_while_others_have_none():
    kit = Kit(2, max_overflow=2, backoff_max=1.0)
    kit.error = AWAY
    kit.lose(1)
    assert kit.status.state == "ready"
    lease = kit.checkout()
    assert lease.worker == 2
    assert kit.status.state == "degraded"
    waiter = kit.checkout(timeout=1.0)
    assert kit.count(fx.Start) == 2, "hiring beside those who reconnect would be a storm"
    kit.later(1.0)
    assert isinstance(waiter.error, CheckoutTimeout)
    kit.checkin(lease)
    assert kit.checkout().worker == 2


def test_who_queued_during_an_outage_gets_overflow_as_soon_as_it_is_over():
    kit = Kit(1, max_overflow=2)
    kit.error = AWAY
    kit.lose(1)
    waiters = kit.checkouts(4, timeout=60.0)
    kit.error = None
    kit.later(40.0)
    assert [waiter.open for waiter in waiters] == [True, True, True, False]


def test_overflow_is_hired_as_soon_as_nobody_is_down_any_more():
    kit = Kit(2, max_overflow=1, backoff_max=1.0)
    kit.error = AWAY
    kit.lose(1)
    kit.lose(2)
    kit.checkouts(3, timeout=60.0)
    kit.error, kit.obliging = None, False
    kit.later(1.0)
    kit.obey(1)
    kit.later(1.0)
    assert kit.orders[-2:] == [fx.Open(2), fx.Start(3)]


# -- overflow that cannot connect -----------------------------------------------------------------------------


def test_an_overflow_worker_that_cannot_connect_tries_again_for_those_who_wait():
    kit = Kit(1, max_overflow=1, backoff_max=1.0)
    kit.checkout("base")
    kit.error = AWAY
    waiter = kit.checkout("waiter", timeout=60.0)
    kit.later(10.0)
    assert kit.status.total == 2
    kit.error = None
    kit.later(2.0)
    assert waiter.open


def test_an_overflow_worker_that_cannot_connect_goes_when_nobody_waits_and_the_next_is_hired_as_ever():
    kit = Kit(1, max_overflow=1, backoff_max=1.0)
    kit.checkout("base")
    kit.error = AWAY
    kit.checkout("waiter", timeout=2.0)
    kit.later(4.0)
    assert kit.status.total == 1
    kit.error = None
    assert kit.checkout("another").open


def test_an_overflow_worker_that_cannot_connect_goes_at_once_when_a_base_worker_tries_already():
    kit = Kit(1, max_overflow=1)
    base = kit.checkout("base")
    kit.silent = {fx.Open}
    kit.checkout("waiter", timeout=60.0)
    kit.error = AWAY
    kit.lose(base.worker)
    kit.silent.clear()
    kit.processes[2].inbox.rotate()  # the base worker comes first
    kit.checkin(base)
    kit.oblige()
    assert [worker.id for worker in kit.core.workers] == [1]


# -- an open() that hangs -----------------------------------------------------------------------------------


def hanging(size=1, **config):
    """A pool whose workers are stuck in `open()`, which may take 20 seconds."""
    kit = Kit(0, **{"max_overflow": 0, "backoff_max": 20.0, "kill_after": 2.0, "max_restarts": 0, **config})
    kit.silent = {fx.Open}
    kit("resize", size)
    return kit


@pytest.mark.parametrize(
    ("limit", "config"), [(20.0, {}), (30.0, {"checkout_timeout": 30.0}), (5.0, {"backoff_max": 1.0})]
)
def test_an_open_that_outlasts_every_caller_and_every_backoff_is_interrupted(limit, config):
    kit = hanging(**config)
    kit.later(limit - 0.1)
    assert kit.count(fx.Revoke) == 0
    kit.later(0.2)
    assert kit.orders[-1] == fx.Revoke(1, NO_LEASE)
    assert kit.count(fx.Kill) == 0


def test_an_interrupted_open_is_a_failure_like_any_other_and_tried_again_with_backoff():
    kit = hanging(2)
    kit.later(20.0)
    late = TimeoutError("open() was interrupted")
    kit.obey(1, late)
    kit.obey(2, late)
    waiter = kit.checkout(timeout=1.0)
    kit.later(1.0)
    assert isinstance(waiter.error, WorkerUnavailable)
    assert waiter.error.cause is late
    assert kit.status.connect_errors == 2
    kit.later(0.1)
    assert kit.ordered(fx.Open) == [1, 2, 1], "one tries on behalf of both"
    kit.silent.clear()
    kit.oblige()
    kit.later(1.0)
    assert kit.status.workers == 2
    assert kit.count(fx.Kill) == kit.status.restarts == 0


def test_a_worker_that_connects_while_it_is_interrupted_is_leased_only_when_the_interrupt_has_arrived():
    kit = hanging()
    waiter = kit.checkout(timeout=60.0)
    kit.later(20.0)
    kit.silent = {fx.Revoke}
    kit.obey(1)
    assert kit.status.connect_errors == 0
    assert waiter.waiting
    kit.silent.clear()
    kit.oblige()
    assert waiter.open


def test_an_open_that_ignores_its_interrupt_is_killed_which_is_a_failed_connection_and_no_crash():
    kit = hanging()
    waiter = kit.checkout(timeout=22.5)
    kit.later(22.0)
    assert kit.ordered(fx.Kill) == [1]
    assert kit.failed is None
    assert kit.status.connect_errors == 1
    assert kit.ordered(fx.Open) == [1, 2]
    kit.later(1.0)
    assert isinstance(waiter.error, WorkerUnavailable)
    assert isinstance(waiter.error.cause, TimeoutError)
    kit.silent.clear()
    kit.oblige()
    assert kit.checkout().open


def test_hanging_opens_trip_the_breaker():
    kit = hanging(2, breaker=Breaker(failures=2, window=60.0))
    kit.later(22.0)
    refused = kit.checkout()
    assert isinstance(refused.error, CircuitOpen)
    assert isinstance(refused.error.cause, TimeoutError)


def test_a_worker_that_is_stopped_while_it_connects_is_interrupted():
    kit = hanging()
    kit("stop", "ref", 5.0)
    assert kit.orders[-1] == fx.Stop(1, interrupt=True)


# -- never ------------------------------------------------------------------------------------------------


def test_a_permanent_error_makes_callers_fail_at_once_with_the_cause_and_is_not_tried_again():
    kit = Kit(2, max_overflow=0)
    kit.error = AWAY
    kit.lose(1)
    kit.lose(2)
    waiter = kit.checkout(timeout=600.0)
    kit.error = NEVER
    kit.later(60.0)
    assert isinstance(waiter.error, WorkerUnavailable)
    assert waiter.error.cause is NEVER
    newcomer = kit.checkout()
    assert isinstance(newcomer.error, WorkerUnavailable)
    assert "recycle()" in str(newcomer.error)
    assert not attempts(kit, 600.0, step=1.0)
    assert kit.status.state == "degraded"


@pytest.mark.parametrize("restart", [False, True])
def test_recycling_tries_again_after_a_permanent_error(restart):
    kit = away(2, NEVER)
    kit("recycle", "too early", None, restart)
    assert isinstance(kit.answers["too early"], WorkerUnavailable)
    kit.error = None
    kit("recycle", "now", None, restart)
    kit.later(3.0)
    assert kit.answers["now"] is None
    assert kit.figures == ("ready", 2, 0, 0)


def test_a_failure_after_a_permanent_error_that_is_not_permanent_is_tried_again():
    kit = Kit(2, max_overflow=0, backoff_max=1.0)
    kit.error = NEVER
    kit.lose(1)
    kit.error = AWAY
    kit.lose(2)
    kit.later(30.0)
    kit.error = None
    kit.later(3.0)
    assert kit.figures == ("ready", 2, 0, 0)


def test_who_was_to_try_again_when_all_hope_was_lost_tries_again_when_there_is_hope():
    kit = Kit(3, max_overflow=0, backoff_max=1.0, health_interval=None)
    for id, error in ((1, AWAY), (2, NEVER)):
        kit.error = error
        kit.lose(id)
    kit.later(60.0)
    kit.error = AWAY
    kit.lose(3)
    kit.error = None
    kit.later(3.0)
    assert kit.figures == ("ready", 3, 0, 0)


def test_recycling_while_the_others_follow_makes_no_new_outage():
    kit = away(3, backoff_max=1.0)
    kit.error, kit.obliging = None, False
    kit.later(1.0)
    kit.obey(kit.core.connector.probe_id)
    kit("recycle", "ref")
    kit.obliging = True
    kit.oblige()
    kit.later(1.0)
    assert kit.answers == {"ref": None}
    assert kit.figures == ("ready", 3, 0, 0)


def test_who_waits_for_a_leased_worker_is_not_told_of_anothers_permanent_error():
    kit = Kit(2, max_overflow=0)
    lease = kit.checkout()
    waiter = kit.checkouts(2)[1]
    kit.error = NEVER
    kit.lose(1)
    kit.checkin(kit.tickets[1])
    assert waiter.waiting
    kit.checkin(lease)
    assert waiter.open


def test_recycling_after_a_permanent_error_hires_for_those_who_wait():
    kit = Kit(1, max_overflow=1, health_interval=None)
    kit.checkout()
    kit.error = NEVER
    waiter = kit.checkout("waiter", timeout=600.0)
    kit.error = None
    kit.later(60.0)
    assert waiter.waiting
    kit("recycle", "ref")
    assert waiter.open


def test_a_pool_of_size_zero_says_that_its_resource_can_never_be_reached():
    kit = Kit(0, max_overflow=1)
    kit.error = NEVER
    assert isinstance(kit.checkout().error, WorkerUnavailable)
    assert isinstance(kit.checkout().error, WorkerUnavailable)
    assert kit.status.state == "degraded"
    kit.error = None
    kit("recycle", "corrected")
    assert kit.answers["corrected"] is None
    assert kit.checkout().open


# -- checks -----------------------------------------------------------------------------------------------


def test_workers_that_nobody_has_heard_of_for_the_interval_are_checked():
    kit = Kit(2, health_interval=30.0)
    kit.later(20.0)
    kit.checkin(kit.checkout())
    kit.later(10.0)
    assert kit.ordered(fx.Check) == [1]
    kit.later(30.0)
    assert kit.ordered(fx.Check) == [1, 1, 2]


def test_checks_leave_most_of_the_idle_workers_to_callers_and_reach_all_of_them():
    for size, at_once in ((1, 1), (4, 1), (9, 2)):
        kit = Kit(size, health_interval=30.0, checkout_timeout=5.0)
        kit.silent = {fx.Check}
        kit.later(30.0)
        assert len(kit.ordered(fx.Check)) == at_once
        assert kit.core.status(kit.now).workers == size - at_once
        kit.silent.clear()
        kit.oblige()
        assert sorted(kit.ordered(fx.Check)) == list(range(1, size + 1))


def test_the_rest_is_checked_though_the_one_before_was_lost():
    kit = Kit(4, health_interval=30.0)
    kit.silent = {fx.Check}
    kit.later(30.0)
    kit.silent.clear()
    kit.lose(kit.ordered(fx.Check)[0])
    kit.oblige()
    assert sorted(kit.ordered(fx.Check)) == [1, 2, 3, 4]


def test_a_failed_check_makes_the_connection_anew():
    kit = Kit(1, health_interval=30.0)
    kit.silent = {fx.Open}
    kit.error = AWAY
    kit.later(30.0)
    kit.error = None
    kit.silent.clear()
    kit.oblige()
    assert kit.ordered(fx.Open) == [1, 1]
    assert kit.figures == ("ready", 1, 0, 0)


def test_a_worker_that_does_not_answer_its_check_is_killed_and_replaced_without_counting_as_a_crash():
    kit = Kit(1, max_overflow=0, health_interval=30.0, checkout_timeout=5.0, max_restarts=0)
    kit.silent = {fx.Check}
    kit.later(30.0)
    waiter = kit.checkout(timeout=60.0)
    kit.later(4.9)
    assert kit.count(fx.Kill) == 0
    kit.later(0.2)
    assert kit.ordered(fx.Kill) == [1]
    assert waiter.worker == 2
    assert kit.failed is None


def test_a_pool_whose_callers_never_wait_still_lets_a_check_take_its_time():
    kit = Kit(1, health_interval=30.0, checkout_timeout=0.0, kill_after=2.0)
    kit.silent = {fx.Check}
    kit.later(31.0)
    kit.silent.clear()
    kit.oblige()
    assert kit.count(fx.Kill) == 0


def test_being_checked_is_no_use_the_worker_keeps_its_turn_and_its_idle_time():
    kit = Kit(2, strategy="lifo", health_interval=10.0, idle_timeout=25.0)
    kit.later(5.0)
    used = kit.checkout()
    kit.checkin(used)
    kit.later(6.0)
    assert kit.ordered(fx.Check) == [1]
    assert list(kit.core.workers.idle) == [1, 2]
    kit.later(14.0)
    assert kit.ordered(fx.Close) == [1]


def test_no_interval_no_checks():
    kit = Kit(2, health_interval=None)
    kit.later(3600.0)
    assert kit.count(fx.Check) == 0


# -- lifetimes and idleness -------------------------------------------------------------------------------


def test_a_worker_is_replaced_at_the_end_of_its_lifetime_which_use_does_not_prolong():
    kit = Kit(1, max_lifetime=100.0, lifetime_jitter=0.1, chance=0.5, health_interval=None)
    for _ in range(9):
        kit.later(10.0)
        kit.checkin(kit.checkout())
    assert list(kit.core.workers.by_id) == [1]
    kit.later(5.1)
    assert list(kit.core.workers.by_id) == [2]
    assert kit.figures == ("ready", 1, 0, 0)
    assert kit.events["worker.died"] == 0


def test_a_worker_in_use_at_the_end_of_its_lifetime_is_replaced_when_it_comes_back():
    kit = Kit(1, max_overflow=0, max_lifetime=10.0)
    lease, waiter = kit.checkouts(2, timeout=600.0)
    kit.later(60.0)
    assert lease.open
    kit.checkin(lease)
    assert waiter.worker == 2


def test_lifetimes_differ_by_their_jitter():
    early, late = (Kit(1, max_lifetime=100.0, lifetime_jitter=0.5, chance=chance) for chance in (0.999, 0.0))
    for kit in (early, late):
        kit.later(60.0)
    assert [list(kit.core.workers.by_id) for kit in (early, late)] == [[2], [1]]


def test_a_reminder_of_an_earlier_connections_lifetime_falls_through():
    kit = Kit(1, max_lifetime=100.0, lifetime_jitter=0.0, health_interval=None)
    kit.later(60.0)
    kit.lose(1)
    kit.later(60.0)
    assert list(kit.core.workers.by_id) == [1]
    kit.later(40.0)
    assert list(kit.core.workers.by_id) == [2]


def test_a_worker_idle_for_too_long_is_disconnected_and_connects_when_it_is_called():
    kit = Kit(1, idle_timeout=60.0, health_interval=10.0, max_lifetime=1000.0)
    kit.later(60.0)
    assert kit.ordered(fx.Close) == [1]
    checks = kit.count(fx.Check)
    kit.later(600.0)
    assert (kit.count(fx.Check), kit.count(fx.Close)) == (checks, 1)
    lease = kit.checkout()
    kit("reopened", 1)
    kit.checkin(lease)
    kit.later(15.0)
    assert kit.count(fx.Check) == checks + 1
    kit.later(60.0)
    assert kit.count(fx.Close) == 2


def test_news_of_a_connection_that_comes_when_the_worker_is_idle_again_counts_from_its_use():
    kit = Kit(1, idle_timeout=60.0)
    kit.later(60.0)
    kit.checkin(kit.checkout())
    kit.later(10.0)
    kit("reopened", 1)
    kit.later(49.0)
    assert kit.count(fx.Close) == 1
    kit.later(1.0)
    assert kit.count(fx.Close) == 2


def test_a_worker_that_is_used_is_not_idle():
    kit = Kit(1, idle_timeout=60.0)
    for _ in range(20):
        kit.later(30.0)
        kit.checkin(kit.checkout())
    assert kit.count(fx.Close) == 0


def test_an_overflow_worker_is_kept_for_its_ttl_and_then_stopped():
    kit = Kit(1, max_overflow=1, overflow_ttl=10.0)
    for _ in range(3):
        leases = kit.checkouts(2)
        kit.later(6.0)
        kit.checkin(*leases)
        kit.later(6.0)
    assert kit.figures == ("ready", 2, 1, 0)
    kit.later(5.0)
    assert kit.figures == ("ready", 1, 0, 0)


def test_a_worker_that_was_watched_for_its_idle_timeout_is_stopped_after_its_ttl_once_it_is_above_size():
    kit = Kit(1, max_overflow=1, overflow_ttl=5.0, idle_timeout=60.0)
    kit.checkin(kit.checkout())
    base, overflow = kit.checkouts(2)
    kit.checkin(base)
    kit.later(5.0)
    assert kit.figures == ("overflow", 0, 0, 1)
    assert overflow.open


def test_a_worker_above_size_that_is_idle_for_too_long_is_stopped():
    kit = Kit(1, max_overflow=1, overflow_ttl=600.0, idle_timeout=30.0)
    kit.checkin(*kit.checkouts(2))
    kit.later(31.0)
    assert kit.status.total == 1


def test_an_overflow_worker_that_comes_back_when_the_last_waiters_time_is_up_is_not_kept():
    kit = Kit(1, max_overflow=1)
    base, overflow = kit.checkouts(2)
    late = kit.checkout("late", timeout=1.0)
    kit.now += 5.0  # the shell was busy and has not ticked
    kit.checkin(overflow)
    kit.later(0.0)
    assert isinstance(late.error, CheckoutTimeout)
    assert kit.figures == ("overflow", 0, 0, 1)
    assert base.open


# -- the breaker ------------------------------------------------------------------------------------------


def broken():
    """A pool whose circuit has just opened, with nobody there; its one worker is connected again."""
    breaker = Breaker(failures=3, window=10.0, reset_after=30.0)
    kit = Kit(1, max_overflow=0, health_interval=None, breaker=breaker)
    for _ in range(3):
        kit.lose(1)
    assert kit.events["breaker.opened"] == 1
    return kit


def test_connection_failures_open_the_circuit_also_with_no_caller_there():
    kit = broken()
    assert kit.status.state == "circuit_open"
    refused = kit.checkout()
    assert isinstance(refused.error, CircuitOpen)
    assert "next try in 30.0 s" in str(refused.error)


def test_failed_attempts_to_connect_open_the_circuit_and_callers_hear_of_the_cause():
    kit = away(1, breaker=Breaker(failures=3, window=10.0, reset_after=30.0), backoff_max=1.0)
    kit.later(5.0)
    refused = kit.checkout()
    assert isinstance(refused.error, CircuitOpen)
    assert refused.error.cause is AWAY


def test_a_half_open_circuit_lets_trials_through_and_a_success_closes_it():
    kit = broken()
    kit.later(30.0)
    trial = kit.checkout()
    assert trial.open
    assert isinstance(kit.checkout().error, CircuitOpen)
    kit.checkin(trial)
    assert kit.events["breaker.closed"] == 1
    assert all(ticket.open or ticket.waiting for ticket in kit.checkouts(3))


def test_a_trial_that_fails_opens_the_circuit_again():
    kit = broken()
    kit.later(30.0)
    trial = kit.checkout()
    kit.lose(1)
    kit.checkin(trial)
    assert kit.events["breaker.opened"] == 2
    assert isinstance(kit.checkout().error, CircuitOpen)


def test_a_trial_whose_caller_dies_makes_room_for_another():
    kit = broken()
    kit.later(30.0)
    kit.checkout("dying")
    kit.caller_down("dying")
    assert kit.checkout("another").open


def test_an_error_that_is_no_connection_failure_never_opens_the_circuit():
    kit = Kit(1, breaker=Breaker(failures=1), max_restarts=100)
    for _ in range(10):
        lease = kit.checkout()
        kit("abandon", lease.lease)
        kit.kill(next(iter(kit.core.workers.by_id)))
    assert kit.checkout().open


def test_an_open_circuit_tells_what_opened_it_although_a_connection_works_again():
    kit = Kit(1, max_overflow=0, breaker=Breaker(failures=1, window=10.0, reset_after=30.0))
    kit.lose(1)
    assert kit.status.workers == 1, "it has connected again"
    refused = kit.checkout()
    assert isinstance(refused.error, CircuitOpen)
    assert refused.error.cause is AWAY
    assert "last: ConnectionError" in str(refused.error)
