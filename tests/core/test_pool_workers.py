"""Worker processes: their start, their death in every state, their end, and how many of them there are."""

from __future__ import annotations

import pytest

from actorpool.core import effects as fx
from actorpool.core.workers import State
from actorpool.errors import PermanentError, PoolDown, RestartIntensityExceeded
from tests.core.poolkit import AWAY, Kit


def states(kit):
    return {worker.id: worker.state.value for worker in kit.core.workers}


# -- the start --------------------------------------------------------------------------------------------


def test_a_pool_is_ready_once_all_base_workers_are_connected():
    kit = Kit(2, obliging=False)
    assert kit.orders == [fx.Start(1), fx.Start(2)]
    assert kit.status.state == "starting"
    kit.obey(1)
    kit.obey(1)
    assert kit.ready is None
    kit.obey(2)
    assert kit.orders[-1] == fx.Open(2)
    kit.obey(2)
    assert kit.ready == fx.Ready(degraded=False)
    assert kit.figures == ("ready", 2, 0, 0)


def test_a_pool_of_size_zero_is_ready_at_once_and_lives_on_overflow():
    kit = Kit(0, max_overflow=1)
    assert kit.ready is not None
    lease = kit.checkout()
    assert kit.figures == ("full", 0, 1, 1)
    kit.checkin(lease)
    assert kit.status.total == 0


def test_a_pool_whose_resource_is_away_starts_degraded_and_recovers_by_itself():
    kit = Kit(2, obliging=False)
    kit.error = AWAY
    kit.oblige()
    assert kit.ready == fx.Ready(degraded=True)
    assert kit.status.state == "degraded"
    kit.obliging, kit.error = True, None
    kit.later(1.0)
    assert kit.figures == ("ready", 2, 0, 0)


def test_a_pool_that_takes_too_long_to_start_is_ready_degraded_within_the_checkout_timeout():
    kit = Kit(1, obliging=False, checkout_timeout=5.0)
    kit.later(5.0)
    assert kit.ready == fx.Ready(degraded=True)


def test_a_worker_that_dies_while_the_pool_starts_is_replaced_and_the_pool_becomes_ready():
    kit = Kit(2, obliging=False)
    kit.kill(1)
    kit.oblige()
    assert kit.ready == fx.Ready(degraded=False)
    assert states(kit) == {2: "idle", 3: "idle"}


def test_a_pool_that_is_resized_to_nothing_while_it_starts_becomes_ready():
    kit = Kit(1, obliging=False)
    kit("resize", 0)
    kit.kill(1)
    assert kit.ready is not None


def test_a_failing_init_fails_the_start_once():
    kit = Kit(3, obliging=False)
    for id in (1, 2, 3):
        kit.obey(id, ValueError("size"))
    assert isinstance(kit.failed, ValueError)
    kit.later(60.0)
    assert kit.ready is None


def test_an_init_that_fails_later_is_a_crash_and_the_others_go_on():
    kit = Kit(2, max_restarts=5)
    kit.obliging = False
    kit.kill(1)
    for id in (3, 4):
        kit.obey(id, OSError("no space left"))
        assert kit.status.workers == 1
        kit.notice(kit.processes[id])
    kit.oblige()
    assert kit.failed is None
    assert kit.figures == ("ready", 2, 0, 0)


def test_a_permanent_error_fails_the_start_once():
    kit = Kit(3, obliging=False)
    for id in (1, 2, 3):
        kit.obey(id)
    for id in (1, 2, 3):
        kit.obey(id, PermanentError("wrong password"))
    assert isinstance(kit.failed, PermanentError)
    kit.later(60.0)
    assert kit.ready is None


def test_ids_begin_where_the_shell_says_and_are_never_used_twice():
    kit = Kit(1)
    for number in range(2, 6):
        kit.kill(number - 1)
        assert list(kit.core.workers.by_id) == [number]


# -- death in every state ---------------------------------------------------------------------------------


def brought_to(state):
    """A pool of one worker, which is in that state."""
    kit = Kit(1, max_overflow=0, health_interval=10.0, obliging=False)
    if state is not State.STARTING:
        kit.obey(1)
    if state not in (State.STARTING, State.OPENING):
        kit.obey(1, AWAY if state is State.DOWN else None)
    if state in (State.LEASED, State.REVOKING):
        kit.checkout()
    if state is State.REVOKING:
        kit("abandon", 1)
    if state is State.PARKED:
        kit.checkin(kit.checkout(key="key"))
    if state is State.CHECKING:
        kit.later(10.0)
    if state is State.STOPPING:
        kit("resize", 0)
        kit("resize", 1)
    assert kit.core.workers.by_id[1].state is state
    return kit


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.value)
def test_a_worker_that_dies_in_any_state_is_replaced_once(state):
    kit = brought_to(state)
    kit.kill(1)
    kit("died", 1)  # Thespian tells some deaths twice
    assert list(kit.core.workers.by_id) == [2]
    kit.oblige()
    kit.later(1.0)
    assert states(kit) == {2: "idle"}
    expected = state is State.STOPPING
    assert kit.events["worker.died"] == (0 if expected else 1)
    assert kit.status.restarts == kit.events["worker.restarted"] == (0 if expected else 1)


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.value)
def test_what_a_dead_worker_said_last_changes_nothing(state):
    kit = brought_to(state)
    kit.kill(1)
    before = states(kit)
    reports = [("worker_started",), ("opened",), ("open_failed", AWAY), ("checked",), ("lost", AWAY), ("revoked", 1)]
    reports.append(("reopened",))
    for name, *args in reports:
        kit(name, 1, *args)
    assert states(kit) == before


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.value)
def test_a_pool_that_is_stopped_with_a_worker_in_any_state_ends(state):
    kit = brought_to(state)
    kit.obliging = True
    kit("stop", "stop", 1.0)
    kit.later(1.0 + 2.0)
    assert kit.stopped == 1
    assert not kit.living()


def test_a_caller_hears_of_the_death_of_its_worker():
    kit = Kit(1)
    lease = kit.checkout()
    kit.kill(lease.worker)
    assert (lease.ended.died, lease.ended.worker) == (True, lease.worker)
    assert kit.figures == ("ready", 1, 0, 0)


def test_while_the_pool_is_full_and_someone_waits_the_first_waiter_gets_the_new_worker():
    kit = Kit(1, max_overflow=0)
    lease, first, second = kit.checkouts(3)
    kit.kill(lease.worker)
    assert first.worker == 2
    assert second.waiting


def test_an_overflow_worker_that_dies_with_nobody_waiting_is_not_replaced():
    kit = Kit(1, max_overflow=1)
    _, overflow = kit.checkouts(2)
    kit.kill(overflow.worker)
    assert kit.figures == ("overflow", 0, 0, 1)
    assert (kit.status.restarts, kit.events["worker.restarted"]) == (0, 0)


def test_an_overflow_worker_that_dies_while_somebody_waits_is_replaced():
    kit = Kit(1, max_overflow=1)
    _, overflow, waiter = kit.checkouts(3)
    kit.kill(overflow.worker)
    assert waiter.open
    assert kit.figures == ("full", 0, 1, 2)


def test_a_base_worker_that_dies_while_there_is_overflow_makes_an_overflow_worker_a_base_worker():
    kit = Kit(1, max_overflow=1)
    base, overflow = kit.checkouts(2)
    kit.kill(base.worker)
    assert kit.figures == ("overflow", 0, 0, 1)
    kit.checkin(overflow)
    assert kit.figures == ("ready", 1, 0, 0)


def test_hundred_idle_workers_killed_one_after_the_other_leave_a_full_pool():
    kit = Kit(3, max_restarts=100)
    for _ in range(100):
        kit.kill(next(iter(kit.core.workers.idle)))
    assert kit.figures == ("ready", 3, 0, 0)
    assert kit.status.restarts == 100


# -- restart intensity ------------------------------------------------------------------------------------


def test_more_crashes_than_max_restarts_fail_the_pool():
    kit = Kit(1, max_restarts=2, restart_period=10.0)
    for id in (1, 2):
        kit.kill(id)
    assert kit.failed is None
    kit.kill(3)
    assert isinstance(kit.failed, RestartIntensityExceeded)
    assert "more than 2 worker crashes within 10 s, the last: killed; find out" in str(kit.failed)


def test_crashes_that_are_far_apart_do_not_add_up():
    kit = Kit(1, max_restarts=1, restart_period=10.0)
    for id in range(1, 6):
        kit.kill(id)
        kit.later(11.1)
    assert kit.failed is None


def test_failing_to_connect_is_never_a_crash():
    kit = Kit(2, max_restarts=0, backoff_max=1.0)
    kit.error = AWAY
    kit.lose(1)
    kit.later(600.0)
    assert kit.failed is None
    assert kit.status.connect_errors > 100


def test_a_worker_that_we_end_is_no_crash():
    kit = Kit(2, max_restarts=0, kill_after=1.0)
    kit.silent = {fx.Stop}
    kit("resize", 0)
    kit.later(1.0)
    assert kit.ordered(fx.Kill) == [1, 2]
    assert kit.failed is None
    assert kit.status.total == 0


def test_a_pool_that_failed_refuses_everybody_and_does_nothing_more():
    kit = Kit(2, max_overflow=0, max_restarts=0, health_interval=1.0)
    kit.checkouts(2)
    waiter = kit.checkout("waiter")
    kit("recycle", "recycle")
    kit("drain", "drain", 60.0)
    kit.kill(1)
    kit.kill(2)
    assert isinstance(waiter.error, PoolDown)
    assert waiter.error.cause is kit.failed
    assert isinstance(kit.checkout("late").error, PoolDown)
    assert all(isinstance(kit.answers[ref], PoolDown) for ref in ("recycle", "drain"))
    orders = len(kit.orders)
    kit("resize", 5)
    kit("recycle", "again")
    kit("drain", "again too", 1.0)
    kit.later(600.0)
    assert len(kit.orders) == orders
    assert isinstance(kit.answers["again"], PoolDown)
    assert isinstance(kit.answers["again too"], PoolDown)


# -- the end of a worker ----------------------------------------------------------------------------------


def test_a_worker_that_ignores_the_request_to_end_is_killed():
    kit = Kit(2, kill_after=2.0)
    kit.silent = {fx.Stop}
    kit("resize", 1)
    assert kit.ordered(fx.Stop) == [1]
    kit.later(1.9)
    assert kit.ordered(fx.Kill) == []
    kit.later(0.1)
    assert kit.ordered(fx.Kill) == [1]
    assert kit.status.total == 1


def test_a_worker_that_ends_in_time_is_not_killed():
    kit = Kit(2)
    kit("resize", 1)
    kit.later(60.0)
    assert kit.count(fx.Kill) == 0


def test_overflow_is_told_as_what_a_worker_was_when_it_started():
    kit = Kit(1, max_overflow=1)
    kit.checkouts(2)
    infos = kit.core.worker_infos({1: 11, 2: 22}, kit.now, wall=5000.0)
    assert [(info.id, info.pid, info.overflow, info.state) for info in infos] == [
        (1, 11, False, "busy"),
        (2, 22, True, "busy"),
    ]
    assert [info.connected_at for info in infos] == [5000.0, 5000.0]


def test_leases_are_told_oldest_first():
    kit = Kit(2)
    kit.checkout("first")
    kit.later(2.0)
    kit.checkout("second")
    assert [(info.id, info.worker_id, info.age) for info in kit.core.lease_infos(kit.now)] == [(1, 2, 2.0), (2, 1, 0.0)]
