"""Callers: checkout, waiting, checkin, cancel, and taking back what a caller does not give back."""

from __future__ import annotations

import pytest

from actorpool.core import effects as fx
from actorpool.errors import CheckoutTimeout, PoolFull, QueueShed, TooManyWaiting
from tests.core.poolkit import Kit


def full(size=1, waiting=0, **config):
    """A pool whose base workers are all out, no overflow allowed, and its leases, then its waiters."""
    kit = Kit(size, **{"max_overflow": 0, **config})
    return kit, kit.checkouts(size), kit.checkouts(waiting)


class Holder:
    """What a shell tells of a caller."""

    pid = 4242
    host = "db-host"


# -- what poolboy's own tests ask of a pool ---------------------------------------------------------------


def test_workers_are_checked_out_and_come_back():
    kit = Kit(5, max_overflow=0)
    leases = kit.checkouts(3)
    assert len({lease.worker for lease in leases}) == 3
    assert kit.figures == ("ready", 2, 0, 3)
    kit.checkin(*leases)
    assert kit.figures == ("ready", 5, 0, 0)


def test_overflow_workers_are_started_while_demand_lasts_and_stopped_when_they_come_back():
    kit = Kit(2, max_overflow=2)
    leases = kit.checkouts(4)
    assert kit.figures == ("full", 0, 2, 4)
    kit.checkin(*leases[:2])
    assert kit.figures == ("overflow", 0, 0, 2)
    assert kit.status.total == 2
    kit.checkin(*leases[2:])
    assert kit.figures == ("ready", 2, 0, 0)


@pytest.mark.parametrize(
    ("size", "max_overflow", "out", "state"),
    [
        (1, 1, 0, "ready"),
        (1, 1, 1, "overflow"),
        (1, 1, 2, "full"),
        (1, 0, 1, "full"),
        (0, 0, 0, "full"),
        (0, 1, 0, "overflow"),
        (0, 1, 1, "full"),
        (0, 2, 1, "overflow"),
    ],
)
def test_the_state_is_named_as_poolboy_names_it(size, max_overflow, out, state):
    kit = Kit(size, max_overflow=max_overflow)
    kit.checkouts(out)
    assert kit.status.state == state
    assert kit.status.overflow == max(0, out - size)


def test_a_full_pool_lets_callers_wait_and_serves_them_in_the_order_they_came():
    kit, (lease,), waiters = full(waiting=3)
    for waiter in waiters:
        assert waiter.waiting
        kit.checkin(lease)
        assert waiter.worker == 1
        lease = waiter
    assert kit.status.waiting == 0


def test_whichever_worker_comes_back_while_there_is_overflow_is_the_one_that_is_stopped():
    kit = Kit(1, max_overflow=1)
    base, overflow = kit.checkouts(2)
    kit.checkin(base)
    assert list(kit.core.workers.by_id) == [overflow.worker]
    assert kit.figures == ("overflow", 0, 0, 1)


def test_an_overflow_worker_that_comes_back_while_somebody_waits_goes_on():
    kit = Kit(1, max_overflow=1)
    _, overflow, waiter = kit.checkouts(3)
    kit.checkin(overflow)
    assert waiter.worker == overflow.worker
    assert kit.status.overflow == 1


def test_a_waiter_is_served_before_a_newcomer():
    kit, (lease,), (waiter,) = full(waiting=1)
    kit.checkin(lease)
    newcomer = kit.checkout("newcomer")
    assert waiter.open
    assert newcomer.waiting


@pytest.mark.parametrize(("strategy", "order"), [("lifo", [3, 2, 1]), ("fifo", [1, 2, 3])])
def test_idle_workers_go_out_by_the_strategy(strategy, order):
    kit = Kit(3, strategy=strategy)
    assert [lease.worker for lease in kit.checkouts(3)] == order


def test_a_checkin_of_a_lease_that_is_over_changes_nothing():
    kit = Kit(1)
    first = kit.checkout()
    kit.checkin(first)
    second = kit.checkout("another")
    kit("checkin", first.lease)
    kit("checkin", 99)
    assert second.open
    assert kit.status.checkins == 1


# -- not waiting, waiting too long ------------------------------------------------------------------------


def test_a_checkout_that_must_not_wait_is_refused_at_once_by_a_full_pool_and_changes_nothing():
    kit, *_ = full()
    before = kit.status
    refused = kit.checkout(block=False)
    assert isinstance(refused.error, PoolFull)
    assert refused.error.status == before == kit.status
    assert "size 1, overflow 0 of 0, 1 busy, 0 waiting" in str(refused.error)


def test_a_checkout_that_must_not_wait_takes_an_overflow_worker_that_may_still_be_started():
    kit = Kit(1, max_overflow=1)
    kit.checkout()
    assert kit.checkout(block=False).open
    assert isinstance(kit.checkout(block=False).error, PoolFull)


def test_those_who_must_not_wait_are_no_more_than_the_workers_on_their_way():
    kit = Kit(1, max_overflow=2)
    kit.checkout()
    kit.silent = {fx.Start}
    tickets = kit.checkouts(4, block=False)
    assert [ticket.waiting for ticket in tickets] == [True, True, False, False]
    kit.silent.clear()
    kit.oblige()
    assert [ticket.open for ticket in tickets] == [True, True, False, False]


def test_a_timeout_of_zero_takes_an_idle_worker_or_fails():
    kit = Kit(1, max_overflow=5)
    assert kit.checkout(timeout=0).open
    refused = kit.checkout(timeout=0)
    assert isinstance(refused.error, CheckoutTimeout)
    assert kit.status.total == 1
    assert (kit.status.timeouts, kit.events["pool.timeout"]) == (1, 1)


def test_a_waiter_gives_up_after_its_own_timeout_and_is_gone_from_the_queue():
    kit, (lease,), _ = full(checkout_timeout=5.0)
    short, usual = kit.checkout("short", timeout=1.0), kit.checkout("usual")
    kit.later(1.0)
    assert isinstance(short.error, CheckoutTimeout)
    assert short.error.waited == pytest.approx(1.0)
    assert usual.waiting
    kit.later(4.0)
    assert isinstance(usual.error, CheckoutTimeout)
    assert kit.status.timeouts == 2
    kit.checkin(lease)
    assert kit.figures == ("ready", 1, 0, 0)


def test_a_timeout_explains_itself():
    kit = Kit(2, max_overflow=1)
    kit.checkout(Holder())
    kit.later(3.0)
    kit.checkouts(3)
    kit.later(5.0)
    refused = kit.tickets[3].error
    assert "no worker within 5.00 s (size 2, overflow 1 of 1, 3 busy, 0 waiting" in str(refused)
    assert "the oldest lease is 1, held for 8.0 s by pid 4242 on db-host" in str(refused)
    assert (refused.pool, refused.waited) == ("kit", pytest.approx(5.0))
    assert (refused.status.state, refused.status.monitors) == ("full", 3)


def test_a_waiter_whose_time_is_up_is_not_served_even_if_nobody_has_told_it_yet():
    kit, (lease,), _ = full()
    late, patient = kit.checkout("late", timeout=1.0), kit.checkout("patient", timeout=9.0)
    kit.now += 2.0  # the shell was busy and has not ticked
    kit.checkin(lease)
    assert patient.open
    kit("tick")
    assert isinstance(late.error, CheckoutTimeout)


def test_cancelling_takes_a_waiter_out_of_the_queue():
    kit, (lease,), (first, second) = full(waiting=2)
    kit.cancel(first)
    kit.checkin(lease)
    assert first.grant is None
    assert second.open


def test_a_grant_that_crosses_its_cancel_goes_to_the_next_waiter():
    kit, (lease,), (first, second) = full(waiting=2)
    kit.checkin(lease)
    assert first.open
    kit.cancel(first)
    assert second.open
    assert kit.status.monitors == 1


def test_a_cancel_of_what_was_never_asked_changes_nothing():
    kit = Kit(1)
    kit("cancel", "unknown", "nobody")
    assert kit.figures == ("ready", 1, 0, 0)


# -- queue control ----------------------------------------------------------------------------------------


def test_more_waiters_than_max_waiting_are_refused_at_once():
    kit, _, _ = full(waiting=2, max_waiting=2)
    refused = kit.checkout()
    assert isinstance(refused.error, TooManyWaiting)
    assert "2 callers are waiting, max_waiting is 2" in str(refused.error)
    assert (kit.status.waiting, kit.status.shed, kit.events["pool.shed"]) == (2, 1, 1)


def test_max_waiting_zero_lets_nobody_queue_but_hands_out_idle_workers():
    kit = Kit(2, max_overflow=0, max_waiting=0)
    assert all(ticket.open for ticket in kit.checkouts(2))
    assert isinstance(kit.checkout().error, TooManyWaiting)


def test_who_waits_for_a_worker_that_is_being_started_does_not_count_as_waiting_too_many():
    kit = Kit(1, max_overflow=2, max_waiting=0)
    kit.silent = {fx.Start}
    tickets = kit.checkouts(4)
    assert [ticket.waiting or ticket.open for ticket in tickets] == [True, True, True, False]


def test_codel_sheds_old_waiters_of_a_queue_that_stays_slow_and_says_the_numbers():
    kit, (lease,), _ = full(queue_target=0.1, queue_interval=1.0, checkout_timeout=60.0)
    waiters = []
    for step in range(60):  # one comes every 0.1 s, one is served every 0.2 s
        waiters.append(kit.checkout())
        kit.later(0.1)
        if step % 2:
            kit.checkin(lease)
            lease = kit.open_tickets()[0]
    shed = [waiter for waiter in waiters if isinstance(waiter.error, QueueShed)]
    assert shed
    assert all(waiter.error.waited > 0.2 for waiter in shed)
    assert "queue_target is 100 ms" in str(shed[0].error)
    assert kit.status.shed == len(shed) == kit.events["pool.shed"]


def test_without_a_target_nobody_is_shed_however_long_it_takes():
    kit, _, waiters = full(waiting=5, checkout_timeout=3600.0)
    kit.later(3000.0)
    assert all(waiter.waiting for waiter in waiters)


# -- callers that die -------------------------------------------------------------------------------------


def test_the_leases_of_a_caller_that_dies_are_reclaimed_and_its_worker_reset_before_it_serves_again():
    kit = Kit(1, max_overflow=0)
    lease = kit.checkout("dying")
    waiter = kit.checkout("next")
    kit.silent = {fx.Revoke}
    kit.caller_down("dying")
    assert kit.orders[-1] == fx.Revoke(lease.worker, lease.lease)
    assert waiter.waiting
    kit.silent.clear()
    kit.oblige()
    assert waiter.worker == lease.worker
    assert (kit.status.reclaimed, kit.events["pool.reclaimed"], kit.status.restarts) == (1, 1, 0)


def test_a_waiter_that_dies_is_never_served():
    kit, (lease,), _ = full()
    kit.checkout("dying")
    survivor = kit.checkout("survivor")
    kit.caller_down("dying")
    kit.checkin(lease)
    assert survivor.open
    assert kit.status.waiting == 0


def test_a_caller_that_dies_with_several_leases_and_waiters_leaves_nothing_behind():
    kit = Kit(3, max_overflow=0)
    kit.checkouts(5, "dying")
    other = kit.checkout("other")
    kit.caller_down("dying")
    assert other.open
    assert kit.figures == ("ready", 2, 0, 1)
    assert list(kit.core.leases.by_holder) == ["other"]


def test_a_holder_that_gave_everything_back_is_forgotten():
    kit = Kit(2)
    for number in range(5):
        kit.checkin(kit.checkout(number))
    assert not kit.core.leases.by_holder


def test_on_caller_death_restart_replaces_the_worker():
    kit = Kit(1, max_overflow=0, on_caller_death="restart")
    lease = kit.checkout("dying")
    kit.caller_down("dying")
    assert fx.Stop(lease.worker, interrupt=True) in kit.orders
    assert lease.worker not in kit.core.workers
    assert kit.figures == ("ready", 1, 0, 0)
    assert kit.core.worker_infos({}, kit.now, 0.0)[0].restarts == 1


# -- calls that take too long -----------------------------------------------------------------------------


def test_a_worker_whose_call_was_abandoned_is_suspect_until_it_says_that_it_is_reset():
    kit = Kit(1, max_overflow=0)
    lease = kit.checkout()
    kit.silent = {fx.Revoke}
    kit("abandon", lease.lease)
    assert (lease.ended.died, lease.ended.why) == (False, "timeout")
    waiter = kit.checkout("next")
    assert waiter.waiting
    kit.silent.clear()
    kit.oblige()
    assert waiter.worker == lease.worker
    assert kit.events["call.timeout"] == 1


def test_a_worker_that_does_not_answer_an_interrupt_is_killed_and_replaced_without_counting_as_a_crash():
    kit = Kit(1, max_overflow=0, kill_after=2.0, max_restarts=0)
    lease = kit.checkout()
    kit.silent = {fx.Revoke}
    kit("abandon", lease.lease)
    kit.later(1.9)
    assert kit.count(fx.Kill) == 0
    kit.later(0.2)
    assert kit.ordered(fx.Kill) == [lease.worker]
    assert kit.figures == ("ready", 1, 0, 0)
    assert kit.failed is None
    assert kit.status.restarts == 1


def test_what_a_worker_still_says_after_it_is_to_be_killed_does_not_count():
    kit = Kit(1, max_overflow=0, kill_after=2.0)
    lease = kit.checkout()
    kit.obliging = False
    kit("abandon", lease.lease)
    kit.later(2.0)
    kit("revoked", lease.worker, lease.lease)
    assert kit.checkout("next").waiting


def test_a_late_confirmation_of_an_older_lease_does_not_free_the_worker():
    kit = Kit(1, max_overflow=0)
    first = kit.checkout()
    kit("abandon", first.lease)
    second = kit.checkout()
    kit.silent = {fx.Revoke}
    kit("abandon", second.lease)
    kit("revoked", second.worker, first.lease)
    assert kit.checkout("next").waiting


def test_a_limit_bounds_what_runs_under_a_lease_and_forgets_leases_that_ended():
    kit = Kit(1, max_overflow=0)
    quick, slow = kit.checkout(), kit.checkout("slow")
    kit("limit", quick.lease, 1.0)
    kit.checkin(quick)
    kit("limit", slow.lease, 3.0)
    kit("limit", 99, 1.0)
    kit.later(2.9)
    assert slow.open
    kit.later(0.2)
    assert slow.ended.why == "timeout"


def test_a_lease_older_than_max_lease_is_taken_back():
    kit = Kit(1, max_overflow=0, max_lease=10.0)
    lease = kit.checkout()
    kit.later(9.9)
    assert lease.open
    kit.later(0.2)
    assert (lease.ended.died, lease.ended.why) == (False, "max_lease")
    assert kit.status.reclaimed == 1
    assert kit.checkout("next").open


def test_a_leak_is_told_once_with_the_borrowers_stack_and_its_return_by_another_name():
    kit = Kit(1, leak_threshold=5.0)
    lease = kit.checkout(stack="File app.py, line 7")
    kit.later(60.0)
    kit.checkin(lease)
    leaks = [event for event in kit.told if event.name.startswith("pool.leak")]
    assert [(event.name, event.metadata.get("stack")) for event in leaks] == [
        ("pool.leak", "File app.py, line 7"),
        ("pool.leak_returned", None),
    ]
    assert leaks[0].measurements["age"] == pytest.approx(5.0)
    assert leaks[1].measurements["age"] == pytest.approx(60.0)


def test_reminders_of_leases_that_ended_do_not_pile_up():
    kit = Kit(1, max_lease=3600.0, leak_threshold=600.0, idle_timeout=600.0)
    for _ in range(1000):
        lease = kit.checkout()
        kit("limit", lease.lease, 3600.0)
        kit.checkin(lease)
    assert len(kit.core.leases.timers) + len(kit.core.timers) < 250


# -- figures ----------------------------------------------------------------------------------------------


def test_counters_and_waits_are_those_of_what_happened():
    kit, (lease,), _ = full()
    waiter = kit.checkout("waiter")
    kit.later(0.5)
    kit.checkin(lease)
    kit.later(0.25)
    kit.checkin(waiter)
    status = kit.status
    assert (status.checkouts, status.checkins, status.total, status.waiting) == (2, 2, 1, 0)
    assert status.wait_ms_p99 == pytest.approx(500.0)
    assert status.hold_ms_p50 == pytest.approx(250.0)
    assert status.since == pytest.approx(0.75)


def test_checkouts_are_told_only_while_somebody_listens():
    kit = Kit(1)
    kit.checkin(kit.checkout())
    assert kit.events["pool.checkout"] == kit.events["pool.checkin"] == 0
    kit.core.leasing.recalls.observed = True
    kit.checkin(kit.checkout())
    assert kit.events["pool.checkout"] == kit.events["pool.checkin"] == 1


def test_a_request_sent_again_while_it_waits_is_dropped():
    kit = Kit(1, max_overflow=0)
    held, waiting = kit.checkouts(2)
    kit("checkout", waiting.ref, "caller", 5.0)
    assert len(kit.core.queue) == 1
    kit.checkin(held)
    assert waiting.open
    kit.checkin(waiting)
    assert len(kit.core.leases) == 0
