"""Standing leases as the pool decides about them: who keeps a worker, who gets it back, and that figures stay true."""

from __future__ import annotations

import pytest

from actorpool.config import Breaker
from actorpool.core import effects as fx
from actorpool.core.pool.sticky import CROWDED, FIRST_LOOK, MAX_UNUSED
from actorpool.errors import CheckoutTimeout, PoolFull
from tests.core.poolkit import AWAY, Kit


def staying(size=1, **config):
    """A pool whose workers all stay with callers, who have used them once."""
    kit = Kit(size, **{"max_overflow": 0, **config})
    leases = [kit.checkout(f"caller {number}", sticky=True) for number in range(size)]
    kit.used(*leases)
    return kit, leases


def test_a_one_shot_call_may_keep_its_worker():
    kit = Kit(2)
    assert kit.checkout(sticky=True).grant.sticky
    assert not kit.checkout().grant.sticky


def test_between_two_uses_the_worker_counts_as_idle():
    kit, (lease,) = staying()
    assert kit.figures == ("ready", 1, 0, 0)
    kit.use(lease)
    assert kit.figures == ("full", 0, 0, 1)
    kit.end_use(lease)
    assert kit.figures == ("ready", 1, 0, 0)


def test_before_its_first_use_the_lease_is_out():
    kit = Kit(1, max_overflow=0)
    kit.checkout(sticky=True)
    assert kit.figures == ("full", 0, 0, 1)


def test_every_use_counts_as_a_checkout_and_a_checkin():
    kit, (lease,) = staying()
    for _ in range(6):
        kit.used(lease)
    assert (kit.status.checkouts, kit.status.checkins) == (7, 7)
    kit.checkin(lease)
    assert (kit.status.checkouts, kit.status.checkins) == (7, 7)
    assert kit.core.worker_infos({}, 0.0, 0.0)[0].calls == 7


def test_a_lease_that_was_never_used_counts_as_one_checkout_and_one_checkin():
    kit = Kit(1)
    kit.checkin(kit.checkout(sticky=True))
    assert (kit.status.checkouts, kit.status.checkins) == (1, 1)


def test_leases_and_workers_are_listed_as_they_are_used():
    kit, (lease,) = staying()
    assert kit.core.lease_infos(kit.now) == []
    assert kit.core.worker_infos({}, 0.0, 0.0)[0].state == "idle"
    kit.later(0.25)
    kit.use(lease)
    kit.later(0.5)
    (info,) = kit.core.lease_infos(kit.now)
    assert (info.id, info.age) == (lease.lease, 0.5)
    assert kit.core.worker_infos({}, 0.0, 0.0)[0].state == "busy"


# -- somebody else wants the worker --------------------------------------------------------------------------


def test_whoever_finds_no_idle_worker_gets_one_that_only_stays_with_a_caller():
    kit, (lease,) = staying()
    other = kit.checkout("other")
    assert kit.count(fx.Recall) == 1
    assert other.worker == lease.worker
    assert not lease.open


def test_one_in_use_comes_back_after_that_use_and_goes_to_the_first_who_waits():
    kit, (lease,) = staying()
    kit.use(lease)
    first, second = kit.checkout("first"), kit.checkout("second")
    assert first.waiting
    kit.end_use(lease)
    assert first.open
    assert second.waiting
    assert not kit.may_use(lease)


def test_one_that_was_just_granted_has_its_first_use_before_it_comes_back():
    kit = Kit(1, max_overflow=0)
    lease = kit.checkout("early", sticky=True)
    other = kit.checkout("other")
    assert other.waiting
    assert kit.may_use(lease)
    kit.used(lease)
    assert other.open
    assert kit.status.checkouts == 2


def test_all_are_recalled_so_that_the_first_to_come_back_serves():
    kit, leases = staying(3)
    for lease in leases:
        kit.use(lease)
    other = kit.checkout("other")
    kit.end_use(leases[2])
    assert other.worker == leases[2].worker
    assert kit.count(fx.Recall) == 3


def test_nobody_keeps_a_worker_while_others_have_to_wait_for_one():
    kit, _ = staying()
    kit.checkin(kit.checkout("other"))
    lease = kit.checkout("again", sticky=True)
    assert not lease.grant.sticky
    kit.checkin(lease)
    kit.later(CROWDED)
    assert kit.checkout("later", sticky=True).grant.sticky


@pytest.mark.parametrize("impatient", [{"block": False}, {"timeout": 0.0}])
def test_who_will_not_wait_gets_a_worker_that_nobody_uses(impatient):
    kit, _ = staying()
    kit.obliging = False
    other = kit.checkout("other", **impatient)
    kit.oblige()
    assert other.open


@pytest.mark.parametrize(("impatient", "error"), [({"block": False}, PoolFull), ({"timeout": 0.0}, CheckoutTimeout)])
def test_who_will_not_wait_is_refused_at_once_while_it_is_used(impatient, error):
    kit, (lease,) = staying()
    kit.use(lease)
    assert isinstance(kit.checkout("other", **impatient).error, error)


def test_a_use_that_began_in_the_last_moment_is_not_waited_for_by_who_will_not_wait():
    kit, (lease,) = staying()
    kit.obliging = False
    other = kit.checkout("other", timeout=0.0)
    kit.use(lease)
    kit.later(FIRST_LOOK)
    assert isinstance(other.error, CheckoutTimeout)


def test_no_overflow_worker_is_started_where_one_is_about_to_come_back():
    kit, _ = staying(max_overflow=1)
    kit.obliging = False
    kit.checkout("other")
    assert kit.count(fx.Start) == 1


def test_one_is_started_when_the_worker_was_used_once_more_instead():
    kit, (lease,) = staying(max_overflow=1)
    kit.obliging = False
    kit.checkout("other")
    kit.use(lease)
    kit.later(FIRST_LOOK)
    assert kit.count(fx.Start) == 2


def test_one_is_started_at_once_when_all_are_in_use():
    kit, (lease,) = staying(max_overflow=1)
    kit.use(lease)
    assert kit.checkout("other").open
    assert kit.count(fx.Start) == 2


# -- threads of one process ----------------------------------------------------------------------------------


def test_who_finds_nothing_but_what_its_own_process_has_is_sent_home():
    kit = Kit(2, max_overflow=0)
    first, second, third = (kit.checkout("process", sticky=True) for _ in range(3))
    assert first.stands
    assert second.stands
    assert third.sent_home
    assert kit.count(fx.Recall) == 0
    assert kit.status.waiting == 0


def test_who_has_waited_at_home_waits_like_everybody():
    kit = Kit(1, max_overflow=0)
    lease = kit.checkout("process", sticky=True)
    kit.use(lease)
    waiter = kit.checkout("process")
    assert waiter.waiting
    kit.end_use(lease)
    assert waiter.open


def test_nobody_is_sent_home_for_a_worker_of_another_process():
    kit = Kit(2, max_overflow=0)
    kit.used(kit.checkout("one", sticky=True), kit.checkout("another", sticky=True))
    assert kit.checkout("one", sticky=True).open


def test_nobody_is_sent_home_past_those_who_wait():
    kit = Kit(1, max_overflow=0)
    kit.use(kit.checkout("process", sticky=True))
    stranger = kit.checkout("stranger")
    late = kit.checkout("process", sticky=True)
    assert stranger.waiting
    assert late.waiting


@pytest.mark.parametrize("config", [{"max_waiting": 1}, {"queue_target": 1.0}], ids=["max_waiting", "queue_target"])
def test_nobody_is_sent_home_where_it_matters_who_waits(config):
    kit = Kit(1, max_overflow=0, **config)
    kit.use(kit.checkout("process", sticky=True))
    assert kit.checkout("process", sticky=True).waiting


def test_threads_that_wait_here_are_sent_home_once_a_worker_stays_with_them():
    kit = Kit(1, max_overflow=0)
    kit.checkin(kit.checkout("process"))
    lease = kit.checkout("process")
    waiters = [kit.checkout("process", sticky=True) for _ in range(3)]
    kit.later(CROWDED)
    kit.checkin(lease)
    assert waiters[0].stands
    assert waiters[1].sent_home
    assert waiters[2].sent_home


def test_they_are_not_while_a_stranger_waits_with_them():
    kit = Kit(1, max_overflow=0)
    lease = kit.checkout("process")
    waiters = [kit.checkout("process", sticky=True), kit.checkout("stranger"), kit.checkout("process", sticky=True)]
    kit.later(2 * CROWDED)
    kit.checkin(lease)
    assert waiters[0].open
    assert not waiters[0].stands
    assert waiters[1].waiting
    assert waiters[2].waiting


# -- when a lease does not stand -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [{"strategy": "fifo"}, {"max_lease": 5.0}, {"leak_threshold": 5.0}],
    ids=lambda config: next(iter(config)),
)
def test_where_each_single_lease_matters_none_stands(config):
    assert not Kit(1, **config).checkout(sticky=True).grant.sticky


def test_none_stands_while_somebody_listens_to_checkouts():
    kit, (lease,) = staying()
    kit("observe", True)
    assert not lease.open
    assert not kit.checkout(sticky=True).grant.sticky
    kit.checkin(*kit.open_tickets())
    kit("observe", False)
    kit.later(CROWDED)
    assert kit.checkout(sticky=True).grant.sticky


def test_a_worker_above_size_stays_with_nobody():
    kit = Kit(1, max_overflow=1)
    kit.checkout()
    kit.later(CROWDED)
    assert not kit.checkout(sticky=True).grant.sticky


def test_a_trial_of_the_circuit_breaker_is_a_lease_of_its_own():
    kit = Kit(1, breaker=Breaker(failures=1, window=10.0, reset_after=1.0), health_interval=None)
    kit.lose(1)
    kit.oblige()
    kit.later(1.0)
    assert not kit.checkout(sticky=True).grant.sticky


def test_an_open_circuit_is_open_for_those_too_who_keep_a_worker():
    kit, leases = staying(2, breaker=Breaker(failures=1, window=10.0, reset_after=60.0))
    kit.lose(leases[0].worker)
    assert not leases[1].open


# -- ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb", [("suspend",), ("drain", "ref", 5.0), ("resize", 1, 0), ("recycle", "ref"), ("stop", "ref", 5.0)]
)
def test_every_operation_has_all_workers_back(verb):
    kit, leases = staying(2)
    kit(*verb)
    assert not any(lease.open for lease in leases)
    assert not kit.core.sticky.by_id


def test_a_drain_is_over_when_what_runs_has_ended():
    kit, (lease,) = staying()
    kit.use(lease)
    kit("drain", "drained", 5.0)
    assert "drained" not in kit.answers
    kit.end_use(lease)
    assert "drained" in kit.answers


def test_a_worker_that_is_not_used_comes_back_by_itself():
    kit, (lease,) = staying()
    kit.later(2.5 * MAX_UNUSED)
    assert not lease.open
    assert list(kit.core.workers.idle) == [lease.worker]


def test_one_that_is_used_stays():
    kit, (lease,) = staying()
    for _ in range(20):
        kit.later(MAX_UNUSED / 2)
        kit.used(lease)
    assert lease.open
    assert kit.count(fx.Recall) == 0


def test_idleness_is_counted_from_the_last_use():
    kit, (lease,) = staying(idle_timeout=0.4)
    kit.later(0.9)
    assert kit.ordered(fx.Close) == [lease.worker]


def test_an_expired_worker_is_replaced_though_it_stays_with_a_caller():
    kit, (lease,) = staying(max_lifetime=0.5, lifetime_jitter=0.0)
    kit.later(0.3)
    kit.used(lease)
    kit.later(0.25)
    assert lease.worker in kit.ordered(fx.Stop)


def test_a_caller_that_dies_between_two_uses_is_no_reclaim():
    kit, (lease,) = staying()
    kit.caller_down(lease.holder)
    assert kit.status.reclaimed == 0
    assert kit.ordered(fx.Recall) == [lease.worker]
    assert kit.figures == ("ready", 1, 0, 0)


def test_a_use_that_the_caller_began_with_its_last_breath_is_interrupted():
    kit, (lease,) = staying()
    kit.obliging = False
    kit.caller_down(lease.holder)
    kit.use(lease)
    kit.later(FIRST_LOOK)
    kit.oblige()
    assert kit.ordered(fx.Revoke) == [lease.worker]
    assert kit.status.reclaimed == 1
    assert kit.figures == ("ready", 1, 0, 0)


def test_a_caller_that_dies_in_a_use_has_its_worker_reclaimed():
    kit, (lease,) = staying()
    kit.use(lease)
    kit.caller_down(lease.holder)
    assert kit.status.reclaimed == 1
    assert (kit.status.checkouts, kit.status.checkins) == (2, 1)
    assert kit.figures == ("ready", 1, 0, 0)


def test_a_worker_that_dies_with_its_caller_is_replaced():
    kit, (lease,) = staying()
    kit.use(lease)
    kit.kill(lease.worker)
    assert kit.figures == ("ready", 1, 0, 0)
    assert (kit.status.checkouts, kit.status.checkins) == (2, 1)


def test_a_worker_that_its_caller_has_lost_is_nobodys_before_it_is_reset():
    kit, (lease,) = staying()
    kit.obliging = False
    kit.use(lease)
    kit("checkin", lease.lease)
    lease.given_back = True
    other = kit.checkout("other")
    assert other.waiting
    kit.oblige()
    assert other.open
    assert (kit.status.checkouts, kit.status.checkins) == (3, 1)


def test_a_use_that_takes_too_long_is_interrupted():
    kit, (lease,) = staying()
    kit.use(lease)
    kit("abandon", lease.lease)
    assert kit.ordered(fx.Revoke) == [lease.worker]
    assert kit.events["call.timeout"] == 1


def test_a_loss_that_two_uses_meet_counts_once():
    kit, (lease,) = staying(breaker=Breaker(failures=2, window=10.0, reset_after=60.0))
    kit.obliging = False
    kit.lose(lease.worker)
    kit.lose(lease.worker)
    assert kit.events["breaker.opened"] == 0


def test_a_worker_that_hangs_while_nobody_uses_it_is_taken_back():
    kit, (lease,) = staying(checkout_timeout=1.0, kill_after=0.5)
    kit.processes[lease.worker].deaf = True
    kit.checkout("other")
    kit.later(1.5)
    assert kit.ordered(fx.Revoke) == [lease.worker]
    kit.later(1.0)
    assert kit.ordered(fx.Kill) == [lease.worker]


def test_one_that_runs_something_long_is_not():
    kit, (lease,) = staying(checkout_timeout=1.0, kill_after=0.5)
    kit.use(lease)
    kit.checkout("other", timeout=600.0)
    kit.later(500.0)
    assert kit.ordered(fx.Revoke) == []
    kit.end_use(lease)
    assert not kit.waiting()


def test_a_lost_connection_brings_all_back():
    kit, leases = staying(2)
    kit.lose(leases[0].worker, AWAY)
    kit.oblige()
    assert not any(lease.open for lease in leases)
    assert kit.figures[:2] == ("ready", 2)


def test_a_guest_of_a_sandbox_keeps_no_worker_of_its_own():
    kit, leases = staying(2)
    lease = kit.checkout("owner")
    kit.core.enclose("box", lease.lease, "owner")
    kit("allow", "allowed", "box", leases[0].holder)
    assert kit.answers["allowed"] is None
    assert not leases[1].open


def test_a_late_word_of_a_lease_that_is_over_is_nothing():
    kit, (lease,) = staying()
    kit.checkin(lease)
    other = kit.checkout("other")
    kit("recalled", lease.worker, lease.lease)
    assert other.open
    assert kit.figures == ("full", 0, 0, 1)
