"""What operators do to a pool: resize, suspend, resume, drain, stop, recycle; and autoscaling."""

from __future__ import annotations

import pytest

from actorpool.config import Autoscale
from actorpool.core import effects as fx
from actorpool.errors import (
    ActorPoolError,
    CallTimeout,
    CheckoutTimeout,
    PermanentError,
    PoolFull,
    PoolStopped,
    WorkerUnavailable,
)
from tests.core.poolkit import AWAY, Kit

NEVER = PermanentError("wrong password")


def ids(kit):
    return sorted(kit.core.workers.by_id)


# -- resize -------------------------------------------------------------------------------------------------


def test_resizing_up_starts_workers_and_serves_who_waits():
    kit = Kit(1, max_overflow=0)
    _, *waiters = kit.checkouts(3)
    kit("resize", 3)
    assert all(waiter.open for waiter in waiters)
    assert kit.figures == ("full", 0, 0, 3)
    assert kit.events["pool.resized"] == 1


def test_resizing_down_stops_idle_workers_at_once_and_leased_ones_when_they_come_back():
    kit = Kit(4, max_overflow=0)
    leases = kit.checkouts(3)
    kit("resize", 1)
    assert kit.figures == ("full", 0, 2, 3)
    assert all(lease.open for lease in leases)
    kit.checkin(*leases)
    assert kit.figures == ("ready", 1, 0, 0)


def test_resizing_below_the_leases_that_are_out_stops_workers_that_come_back_even_while_somebody_waits():
    kit = Kit(3, max_overflow=0)
    leases = kit.checkouts(3)
    waiter = kit.checkout("waiter")
    kit("resize", 1)
    kit.checkin(leases[0], leases[1])
    assert waiter.waiting
    kit.checkin(leases[2])
    assert waiter.open
    assert kit.status.total == 1


def test_a_worker_that_is_resized_away_while_it_starts_ends_as_soon_as_it_is_connected():
    kit = Kit(1)
    kit.silent = {fx.Start}
    kit("resize", 4)
    kit("resize", 1)
    kit.silent.clear()
    kit.oblige()
    assert kit.figures == ("ready", 1, 0, 0)


def test_raising_max_overflow_hires_for_those_who_wait():
    kit = Kit(1, max_overflow=0)
    _, waiter = kit.checkouts(2)
    kit("resize", None, 1)
    assert waiter.open
    assert (kit.status.size, kit.status.max_overflow) == (1, 1)


def test_lowering_max_overflow_stops_overflow_workers_as_they_come_back():
    kit = Kit(1, max_overflow=2)
    leases = kit.checkouts(3)
    kit.checkouts(3, "waiter")
    kit("resize", None, 0)
    kit.checkin(*leases[:2])
    assert kit.figures == ("full", 0, 0, 1)
    assert kit.status.waiting == 3


# -- suspend and resume -------------------------------------------------------------------------------------


def test_a_suspended_pool_serves_nobody_new_and_lets_leases_go_on():
    kit = Kit(2, max_overflow=2)
    lease = kit.checkout()
    kit("suspend")
    waiter = kit.checkout("waiter", timeout=60.0)
    assert waiter.waiting
    assert lease.open
    assert kit.status.state == "suspended"
    assert isinstance(kit.checkout(block=False).error, PoolFull)
    assert isinstance(kit.checkout(timeout=0).error, CheckoutTimeout)
    kit.checkin(lease)
    assert waiter.waiting
    assert kit.status.total == 2, "nobody is hired for those who are not to be served"
    kit("resume")
    assert waiter.open


def test_waiters_of_a_suspended_pool_keep_their_timeouts():
    kit = Kit(1)
    kit("suspend")
    waiter = kit.checkout(timeout=2.0)
    kit.later(2.0)
    assert isinstance(waiter.error, CheckoutTimeout)


def test_nobody_is_shed_while_a_pool_is_suspended():
    kit = Kit(1, queue_target=0.1, queue_interval=0.5)
    kit("suspend")
    waiters = kit.checkouts(3, timeout=600.0)
    kit.later(60.0)
    assert all(waiter.waiting for waiter in waiters)


def test_resuming_hires_for_those_who_do_not_get_an_idle_worker():
    kit = Kit(1, max_overflow=1)
    kit("suspend")
    waiters = kit.checkouts(3)
    kit("resume")
    assert [waiter.open for waiter in waiters] == [True, True, False]


def test_overflow_workers_that_come_back_to_a_suspended_pool_are_stopped():
    kit = Kit(1, max_overflow=1)
    leases = kit.checkouts(2)
    kit("suspend")
    waiter = kit.checkout("waiter")
    kit.checkin(*leases)
    assert kit.status.total == 1
    kit("resume")
    assert waiter.open


def test_a_worker_that_dies_in_a_suspended_pool_is_replaced():
    kit = Kit(2)
    kit("suspend")
    kit.kill(1)
    assert kit.status.workers == 2


# -- what outlives a crash of the pool ------------------------------------------------------------------------


def test_what_operators_change_is_kept_for_a_successor_and_nothing_else_is():
    kit = Kit(2, max_overflow=1)
    kit("resize", 2, 1)
    kit("resume")
    assert kit.kept is None, "nothing has changed"
    kit("resize", 3)
    assert kit.kept == fx.Keep(3, 1, suspended=False, draining=False)
    kit("suspend")
    kit("drain", "ref", 1.0)
    kit("resize", None, 0)
    assert kit.kept == fx.Keep(3, 0, suspended=True, draining=True)
    kit("resume")
    assert kit.kept == fx.Keep(3, 0, suspended=False, draining=False)


def test_a_pool_that_was_scaled_by_itself_keeps_that_size():
    kit = Kit(5, autoscale=Autoscale(interval=10.0, minimum=1, threshold=0))
    kit.later(10.0)
    kit("sampled", [2, 2])
    assert kit.kept == fx.Keep(2, 10, suspended=False, draining=False)


def test_a_successor_begins_with_what_was_kept():
    kit = Kit(8, max_overflow=9, kept=fx.Keep(2, 1, suspended=False, draining=False))
    assert kit.status.total == kit.status.size == 2
    assert [lease.open for lease in kit.checkouts(4)] == [True, True, True, False]


@pytest.mark.parametrize(("suspended", "draining"), [(True, False), (False, True)])
def test_the_successor_of_a_pool_that_serves_nobody_serves_nobody_until_it_is_told_to(suspended, draining):
    kit = Kit(1, queue_target=0.1, kept=fx.Keep(1, 0, suspended, draining))
    assert kit.status.state == ("suspended" if suspended else "draining")
    waiter = kit.checkout(timeout=60.0)
    kit.later(30.0)
    assert waiter.waiting, "neither served nor shed"
    kit("resume")
    assert waiter.open


# -- drain --------------------------------------------------------------------------------------------------


def test_draining_an_unused_pool_is_answered_at_once():
    kit = Kit(2)
    kit("drain", "ref", 10.0)
    assert kit.answers == {"ref": None}
    assert kit.status.state == "draining"
    assert kit.checkout(timeout=60.0).waiting


def test_a_drain_is_answered_when_every_lease_is_back_and_ended_by_resume():
    kit = Kit(2, max_overflow=0)
    first, second = kit.checkouts(2)
    waiter = kit.checkout("waiter", timeout=60.0)
    kit("drain", "ref", 10.0)
    kit.checkin(first)
    assert not kit.answers
    kit.checkin(second)
    assert kit.answers == {"ref": None}
    assert waiter.waiting
    kit("resume")
    assert waiter.open


def test_at_the_deadline_of_a_drain_what_still_runs_is_interrupted():
    kit = Kit(1, max_overflow=0)
    lease = kit.checkout()
    kit("drain", "ref", 10.0)
    kit.silent = {fx.Revoke}
    kit.later(10.0)
    assert lease.ended.why == "drain"
    assert not kit.answers, "the call has not stopped yet"
    kit.silent.clear()
    kit.oblige()
    assert kit.answers == {"ref": None}


@pytest.mark.parametrize("end", ["lost", "died", "deaf"])
def test_a_drain_is_answered_however_its_last_worker_ends_its_call(end):
    kit = Kit(1, max_overflow=0, kill_after=2.0)
    kit.checkout()
    kit.silent = {fx.Revoke, fx.Open}
    kit("drain", "ref", 1.0)
    kit.later(1.0)
    assert not kit.answers
    if end == "lost":
        kit.lose(1)
    elif end == "died":
        kit.kill(1)
    else:
        kit.later(2.0)
    assert kit.answers == {"ref": None}


def test_a_drain_waits_for_workers_that_are_restarted_because_their_callers_died():
    kit = Kit(1, max_overflow=0, on_caller_death="restart")
    kit.checkout("dying")
    kit("drain", "ref", 10.0)
    kit.silent = {fx.Stop}
    kit.caller_down("dying")
    assert not kit.answers
    kit.silent.clear()
    kit.oblige()
    assert kit.answers == {"ref": None}


def test_a_drain_that_is_ended_by_resume_says_so_and_interrupts_nobody_later():
    kit = Kit(1)
    lease = kit.checkout()
    kit("drain", "ref", 10.0)
    kit("resume")
    assert isinstance(kit.answers["ref"], ActorPoolError)
    assert "1 lease(s) were out" in str(kit.answers["ref"])
    kit.later(60.0)
    assert lease.open


def test_two_drains_are_both_answered():
    kit = Kit(1)
    lease = kit.checkout()
    kit("drain", "first", 10.0)
    kit("drain", "second", 60.0)
    kit.checkin(lease)
    assert kit.answers == {"first": None, "second": None}


# -- stop ---------------------------------------------------------------------------------------------------


def test_stopping_refuses_waiters_at_once_and_lets_running_calls_finish():
    kit = Kit(2, max_overflow=0)
    lease, _ = kit.checkouts(2)
    waiter = kit.checkout("waiter")
    kit("stop", "ref", 5.0)
    assert isinstance(waiter.error, PoolStopped)
    assert isinstance(kit.checkout().error, PoolStopped)
    assert lease.open
    kit.checkin(*kit.open_tickets())
    assert kit.stopped == 1
    assert not kit.living()


def test_a_stop_interrupts_what_still_runs_at_its_deadline_and_tells_its_holder():
    kit = Kit(1)
    lease = kit.checkout()
    kit("stop", "ref", 5.0)
    kit.later(4.9)
    assert lease.open
    kit.later(0.2)
    assert fx.Stop(lease.worker, interrupt=True) in kit.orders
    assert (lease.ended.died, lease.ended.why) == (False, "stop")
    assert kit.stopped == 1


def test_a_worker_that_ignores_the_end_of_its_pool_is_killed():
    kit = Kit(1, kill_after=2.0)
    kit.checkout()
    kit.silent = {fx.Stop}
    kit("stop", "ref", 5.0)
    kit.later(7.0)
    assert kit.ordered(fx.Kill) == [1]
    assert kit.stopped == 1


def test_stopping_an_empty_pool_is_over_at_once():
    kit = Kit(0)
    kit("stop", "ref", 5.0)
    assert kit.stopped == 1


def test_a_pool_that_is_stopped_while_it_starts_never_becomes_ready():
    kit = Kit(2, obliging=False)
    kit.obey(1)
    kit("stop", "ref", 5.0)
    kit.oblige()
    kit.later(60.0)
    assert kit.ready is None
    assert kit.stopped == 1


def test_a_pool_that_stops_hires_connects_and_checks_nobody():
    kit = Kit(3, health_interval=1.0, max_restarts=0)
    leases = kit.checkouts(2)
    kit.lose(leases[0].worker)
    kit("stop", "ref", 60.0)
    kit.kill(leases[1].worker)
    kit.checkin(leases[0])
    kit.later(60.0)
    assert (kit.count(fx.Start), kit.count(fx.Open), kit.count(fx.Check)) == (3, 3, 0)
    assert kit.failed is None


def test_stopping_answers_those_who_drain_and_those_who_recycle():
    kit = Kit(1)
    lease = kit.checkout()
    kit("drain", "drain", 60.0)
    kit("recycle", "recycle")
    kit("stop", "stop", 5.0)
    assert isinstance(kit.answers["recycle"], PoolStopped)
    kit.checkin(lease)
    assert kit.answers["drain"] is None
    kit("recycle", "late")
    assert isinstance(kit.answers["late"], PoolStopped)


# -- recycling connections ----------------------------------------------------------------------------------


def test_recycling_connects_every_worker_anew_one_at_a_time():
    kit = Kit(3, obliging=False)
    kit.oblige()
    kit("recycle", "ref")
    for number in (1, 2, 3):
        assert kit.ordered(fx.Open)[3:] == [1, 2, 3][:number]
        assert kit.status.workers == 2
        kit.obey(number)
    assert kit.answers == {"ref": None}
    assert ids(kit) == [1, 2, 3]


def test_workers_in_use_are_connected_anew_when_they_come_back():
    kit = Kit(2, max_overflow=0)
    leases = kit.checkouts(2)
    waiter = kit.checkout("waiter")
    kit("recycle", "ref")
    assert kit.count(fx.Open) == 2
    kit.checkin(leases[0])
    assert kit.count(fx.Open) == 3
    assert waiter.open
    assert not kit.answers
    kit.checkin(leases[1])
    assert kit.answers == {"ref": None}
    kit.checkin(waiter)
    assert kit.count(fx.Open) == 4


def test_a_worker_that_comes_back_while_another_is_connected_anew_serves_until_its_turn():
    kit = Kit(2, max_overflow=0)
    leases = kit.checkouts(2)
    kit("recycle", "ref")
    kit.silent = {fx.Open}
    kit.checkin(*leases)
    assert kit.status.workers == 1
    busy = kit.checkout()
    kit.silent.clear()
    kit.oblige()
    assert not kit.answers
    kit.checkin(busy)
    assert kit.answers == {"ref": None}


def test_workers_that_connect_for_another_reason_are_new_enough():
    kit = Kit(2, obliging=False)
    kit.oblige()
    kit("recycle", "ref")
    kit.lose(2)
    kit.obey(2)
    kit.obey(1)
    assert kit.answers == {"ref": None}
    assert kit.count(fx.Open) == 4


def test_recycling_that_runs_out_of_time_says_how_many_are_left_and_goes_on():
    kit = Kit(2, max_overflow=0)
    lease = kit.checkout()
    kit("recycle", "ref", 10.0)
    kit.later(10.0)
    assert isinstance(kit.answers["ref"], CallTimeout)
    assert "1 worker(s) are not yet replaced" in str(kit.answers["ref"])
    kit.checkin(lease)
    assert kit.count(fx.Open) == 4


def test_an_outage_halts_recycling_and_what_has_a_connection_keeps_it():
    kit = Kit(3, backoff_max=1.0, health_interval=None)
    kit.error = AWAY
    kit("recycle", "ref")
    kit.later(30.0)
    assert kit.status.workers == 2
    assert not kit.answers
    kit.error = None
    kit.later(2.0)
    assert kit.answers == {"ref": None}
    assert kit.figures == ("ready", 3, 0, 0)


def test_who_waits_while_the_last_worker_that_was_down_is_recycled_gets_an_overflow_worker():
    kit = Kit(2, max_overflow=1, health_interval=None)
    kit.error = AWAY
    kit.lose(1)
    kit.lose(2)
    kit("recycle", "ref")
    waiters = kit.checkouts(3, timeout=60.0)
    kit.error = None
    kit.later(30.0)
    assert all(waiter.open for waiter in waiters)


@pytest.mark.parametrize("restart", [False, True])
def test_a_permanent_error_ends_recycling_with_its_cause_and_spares_the_others(restart):
    kit = Kit(3, health_interval=None)
    kit.error = NEVER
    kit("recycle", "ref", None, restart)
    assert isinstance(kit.answers["ref"], WorkerUnavailable)
    assert kit.answers["ref"].cause is NEVER
    kit.later(60.0)
    assert kit.status.workers == (3 if restart else 2)


@pytest.mark.parametrize("restart", [False, True])
def test_recycling_an_empty_pool_is_answered_at_once(restart):
    kit = Kit(0)
    kit("recycle", "ref", None, restart)
    assert kit.answers == {"ref": None}


@pytest.mark.parametrize("restart", [False, True])
def test_the_death_of_the_last_old_worker_ends_recycling(restart):
    kit = Kit(1, max_overflow=0)
    lease = kit.checkout()
    kit("recycle", "ref", None, restart)
    kit.kill(lease.worker)
    assert kit.answers == {"ref": None}
    assert kit.figures == ("ready", 1, 0, 0)


# -- recycling processes ------------------------------------------------------------------------------------


def test_recycling_processes_replaces_every_worker_and_never_has_fewer_connected_than_size():
    kit = Kit(3, obliging=False)
    kit.oblige()
    kit("recycle", "ref", None, True)
    totals = set()
    while any(map(kit.can_work, kit.living())):
        assert kit.status.workers >= 3
        totals.add(kit.core.workers.staying)
        process = next(process for process in kit.living() if kit.can_work(process))
        kit.work(process)
        if process.outbox:
            kit.deliver(process)
        else:
            kit.notice(process)
    assert totals == {3, 4}
    assert kit.answers == {"ref": None}
    assert ids(kit) == [4, 5, 6]


def test_a_process_in_use_is_replaced_when_it_comes_back_and_is_not_leased_again_then():
    kit = Kit(1, max_overflow=0)
    lease = kit.checkout()
    waiter, another = kit.checkouts(2, "waiter")
    kit("recycle", "ref", None, True)
    assert waiter.worker == 2, "the spare serves at once"
    kit.checkin(lease)
    assert ids(kit) == [2]
    assert another.waiting
    assert kit.answers == {"ref": None}


def test_an_old_process_that_is_leased_and_comes_back_before_the_spare_is_there_starts_no_second_spare():
    kit = Kit(1, max_overflow=0)
    kit.silent = {fx.Start}
    kit("recycle", "ref", None, True)
    for _ in range(3):
        kit.checkin(kit.checkout())
    assert ids(kit) == [1, 2]
    kit.silent.clear()
    kit.oblige()
    assert ids(kit) == [2]
    assert kit.answers == {"ref": None}


@pytest.mark.parametrize("order", [fx.Start, fx.Open])
def test_a_spare_that_dies_before_it_is_connected_is_replaced_and_the_old_one_goes_on(order):
    kit = Kit(1, max_overflow=0)
    kit.silent = {order}
    kit("recycle", "ref", None, True)
    kit.kill(2)
    assert kit.checkout().worker == 1
    kit.checkin(kit.tickets[0])
    kit.silent.clear()
    kit.oblige()
    assert ids(kit) == [3]
    assert kit.answers == {"ref": None}


def test_an_old_process_that_dies_while_its_replacement_starts_is_replaced_once():
    kit = Kit(2, max_overflow=0)
    kit.silent = {fx.Start}
    kit("recycle", "ref", None, True)
    kit.kill(1)
    kit.kill(2)
    kit.silent.clear()
    kit.oblige()
    kit.later(1.0)
    assert len(ids(kit)) == 2
    assert min(ids(kit)) > 2
    assert kit.answers == {"ref": None}


def test_recycling_processes_during_a_resize_ends_with_the_new_size():
    for size in (0, 1, 5):
        kit = Kit(3)
        kit.silent = {fx.Start}
        kit("recycle", "ref", None, True)
        kit("resize", size)
        kit.silent.clear()
        kit.oblige()
        kit.later(1.0)
        assert kit.answers == {"ref": None}
        assert kit.figures == ("ready" if size else "overflow", size, 0, 0)
        assert not {1, 2, 3} & set(ids(kit))


def test_an_outage_during_the_replacement_of_processes_costs_no_capacity():
    kit = Kit(2, backoff_max=1.0, health_interval=None)
    kit.error = AWAY
    kit("recycle", "ref", None, True)
    kit.later(30.0)
    assert {1, 2} <= set(kit.core.workers.idle)
    kit.error = None
    kit.later(3.0)
    assert kit.answers == {"ref": None}
    assert kit.figures == ("ready", 2, 0, 0)
    assert not {1, 2} & set(ids(kit))


def test_processes_that_are_down_are_replaced_once_the_resource_is_back():
    kit = Kit(3, max_overflow=0, backoff_max=1.0)
    kit.error = AWAY
    for id in (1, 2, 3):
        kit.lose(id)
    kit("recycle", "ref", None, True)
    kit.later(10.0)
    assert not kit.answers
    kit.error = None
    kit.later(3.0)
    assert kit.answers == {"ref": None}
    assert kit.figures == ("ready", 3, 0, 0)
    assert not {1, 2, 3} & set(ids(kit))


def test_recycling_processes_while_connections_are_recycled_replaces_the_processes_too():
    kit = Kit(2, max_overflow=0)
    leases = kit.checkouts(2)
    kit("recycle", "connections")
    kit("recycle", "processes", None, True)
    kit("recycle", "connections again")
    kit.checkin(*leases)
    assert set(kit.answers) == {"connections", "processes", "connections again"}
    assert not {1, 2} & set(ids(kit))


# -- autoscale ----------------------------------------------------------------------------------------------


def test_a_pool_follows_its_usage_and_carries_each_decision_out_once():
    kit = Kit(2, autoscale=Autoscale(interval=60.0, headroom=1.5, minimum=1, maximum=8, threshold=0))
    kit("sampled", [8] * 10)
    assert kit.core.life.size == 2, "not before the interval is over"
    kit.later(60.0)
    kit("sampled", [4] * 10)
    assert kit.core.life.size == 6
    assert kit.ordered(fx.Start) == [1, 2, 3, 4, 5, 6]
    assert kit.events["pool.resized"] == 1
    kit.later(60.0)
    kit("sampled", [0] * 10)
    assert kit.figures == ("ready", 1, 0, 0)


def test_a_pool_that_ends_is_not_scaled():
    kit = Kit(1, autoscale=Autoscale(interval=60.0, threshold=0))
    kit("stop", "ref", 5.0)
    kit.later(60.0)
    kit("sampled", [50] * 10)
    assert kit.count(fx.Start) == 1
    assert kit.core.life.size == 1


def test_who_waits_while_the_last_old_process_goes_gets_an_overflow_worker():
    kit = Kit(1, max_overflow=0)
    kit.obliging = False
    kit("recycle", "recycled", None, True)
    kit.checkout("dies")
    kit.oblige()
    kit("resize", 0, 1)
    kit.caller_down("dies")
    waiter = kit.checkout("waits")
    kit.oblige()
    assert waiter.open


# -- a pool without workers -----------------------------------------------------------------------------------


def test_who_waits_for_a_worker_that_cannot_come_is_refused_at_once_and_told_what_to_do():
    kit = Kit(0, max_overflow=0)
    waiting, nonblocking = kit.checkout(timeout=5), kit.checkout(block=False)
    assert isinstance(waiting.error, CheckoutTimeout)
    assert isinstance(nonblocking.error, PoolFull)
    for ticket in (waiting, nonblocking):
        assert "resize() the pool" in str(ticket.error)
    kit("resize", 1)
    assert kit.checkout().open


def test_where_one_may_come_it_is_waited_for():
    kit = Kit(1, max_overflow=0)
    kit.checkout()
    kit("resize", 0)  # the worker is out, and stops when it comes back
    assert kit.checkout(timeout=5).waiting
    assert Kit(0, max_overflow=0, autoscale=Autoscale(minimum=0)).checkout(timeout=5).waiting


@pytest.mark.parametrize(("operation", "state"), [("suspend", "suspended"), ("drain", "draining")])
def test_a_pool_that_does_not_serve_says_so_once(operation, state):
    kit = Kit(1, max_overflow=0)
    kit.checkout()
    kit(operation, *["ref", 1.0] * (operation == "drain"))
    assert str(kit.checkout(block=False).error).count(state) == 1
