"""Overload, outage and change, simulated on the pure core: the promises of docs/operations.md as bounds."""

from __future__ import annotations

import itertools
import time
import timeit

import pytest

from actorpool.benchmarks.simulations import scenarios
from actorpool.benchmarks.simulations.chart import Line, draw, ticks
from actorpool.config import Breaker
from actorpool.core.machine import Quantiles


def settled(run):
    """The run, after the core's own invariants were looked at."""
    run.world.core.check()
    return run


def during(moments, start, end):
    return [moment for moment in moments if start <= moment < end]


# -- overload -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def overloads():
    """The same overload, 2 s to 22 s, without and with a target of 0.1 s."""
    return [settled(scenarios.overload(target, calm=2, storm=20, rest=8)) for target in (None, 0.1)]


def test_without_codel_an_overload_makes_everybody_wait_until_the_timeout(overloads):
    plain, _ = overloads
    assert plain.waits(19, 22).quantile(0.5) > 4.5
    assert set(plain.refusals()) == {"CheckoutTimeout"}


def test_with_codel_those_who_are_served_wait_no_longer_than_twice_the_target(overloads):
    _, shedding = overloads
    assert shedding.waits(5, 22).quantile(1.0) <= 0.2
    assert set(shedding.refusals()) == {"QueueShed"}


def test_codel_costs_no_throughput(overloads):
    plain, shedding = overloads
    assert len(shedding.waits(5, 22)) >= 0.98 * len(plain.waits(5, 22))


def test_codel_sheds_nobody_before_the_overload_and_nobody_once_it_is_over(overloads):
    _, shedding = overloads
    assert not shedding.refusals(0, 2)
    assert not shedding.refusals(23.5)
    assert shedding.waits(24, 30).quantile(0.5) == 0.0


# -- outage ---------------------------------------------------------------------------------------------------

OUTAGE = {"length": 30.0, "rest": 30.0, "backoff_max": 5.0}
BACK = 50.0


@pytest.fixture(scope="module")
def plain_outage():
    return settled(scenarios.outage(**OUTAGE))


def test_an_outage_costs_one_attempt_for_each_worker_and_then_one_prober_with_backoff(plain_outage):
    attempts = plain_outage.world.attempts
    assert len(during(attempts, 20, 21)) <= 20 + 5
    assert scenarios.busiest(during(attempts, 22, BACK), window=5.0) <= 10


def test_recovery_is_no_connect_storm_but_one_after_the_other_with_jitter(plain_outage):
    attempts = during(plain_outage.world.attempts, BACK, BACK + 10)
    base = attempts[:20]
    assert scenarios.busiest(base, window=0.1) <= 12
    assert len(set(base)) == 20  # no two in the same moment
    assert len({round(later - sooner, 6) for sooner, later in itertools.pairwise(base)}) > 10
    # Then overflow workers for the 200 callers who queue up, and some of them twice.
    assert scenarios.busiest(attempts, window=1.0) <= 20 + 2 * 10


def test_the_pool_recovers_by_itself_within_the_longest_backoff(plain_outage):
    first = min(at for at, _ in plain_outage.served if at > BACK)
    assert first - BACK <= 5.0 + 0.1
    status = plain_outage.world.core.status(plain_outage.world.now)
    assert (status.total, status.restarts, status.waiting) == (20, 0, 0)
    assert not plain_outage.refusals(BACK + 10)


def test_in_an_outage_callers_hear_of_the_cause(plain_outage):
    refusals = plain_outage.refusals(26, BACK)
    assert set(refusals) == {"WorkerUnavailable"}


def test_in_an_outage_codel_too_tells_the_cause():
    run = settled(scenarios.outage(**OUTAGE, queue_target=0.1))
    assert set(run.refusals(26, BACK)) == {"WorkerUnavailable"}


def test_behind_a_breaker_nobody_waits_for_a_resource_that_is_away():
    run = settled(scenarios.outage(**OUTAGE, breaker=Breaker(reset_after=2.0)))
    lost = Quantiles(100_000)
    for at, waited, _ in run.refused:
        if 22 <= at < BACK:
            lost.add(waited)
    assert lost.quantile(0.95) == 0.0
    refusals = run.refusals(22, BACK)
    assert refusals["CircuitOpen"] > 0.95 * refusals.total()
    assert run.world.events["breaker.closed"] >= 1
    assert not run.refusals(BACK + 10)


# -- change ---------------------------------------------------------------------------------------------------


def test_a_resize_under_load_fails_no_call_and_is_exact_at_the_end():
    run = settled(scenarios.resizing(pace=2.0))
    assert not run.refused
    assert not run.world.ended  # no lease was taken back
    curves = {name: dict(points) for name, points in run.curves.items()}
    for at, expected in ((1.98, 8), (3.96, 2), (5.96, 16), (7.96, 8)):
        moment = min(curves["size"], key=lambda time, at=at: abs(time - at))
        assert [curves[name][moment] for name in ("size", "workers", "leases")] == [expected] * 3
    drained, answer = run.world.answers["drain"]
    assert answer is None
    assert drained - 8.0 < 1.0
    assert len(run.served) > 3000


def test_an_autoscaled_pool_follows_the_load_without_fluttering():
    run = settled(scenarios.day(hours=3.0))
    assert run.world.core.life.size == 5  # the quiet hours need no more than the minimum
    assert run.world.events["pool.resized"] == 0


@pytest.mark.slow
def test_a_day_of_autoscaling_covers_the_noon_and_returns_in_the_evening():
    run = settled(scenarios.day())
    sizes = [size for _, size in run.curves["size"]]
    assert 34 <= max(sizes) <= 42
    assert sizes[-1] <= 8
    assert not run.refused
    assert run.world.events["pool.resized"] < 60


# -- cost -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", [scenarios.cost_of_pairs, scenarios.cost_of_handovers, scenarios.cost_of_deaths])
@pytest.mark.slow
def test_an_operation_costs_the_same_on_ten_workers_and_on_ten_thousand(cost):
    small, large = (min(cost(workers, 3000) for _ in range(3)) for workers in (10, 10_000))
    assert large < 4 * small  # caches explain less than a factor of 2; a scan would be a factor of 1000


@pytest.mark.slow
def test_a_million_pairs_cost_what_the_first_ones_do_and_less_than_600_plain_calls_each():
    first = min(scenarios.cost_of_pairs(10, 20_000) for _ in range(5))
    taken = min(scenarios.cost_of_pairs(10, 1_000_000) for _ in range(2))
    plain = timeit.Timer("f(1)", "def f(x): return x", timer=time.process_time)
    call = min(plain.repeat(number=1_000_000, repeat=5))  # in microseconds: what this machine takes for one
    print(f"a checkout and checkin on the core: {taken:.2f} us, as {taken / call:.0f} calls; first {first:.2f}")
    assert taken < 2 * first
    assert taken < 600 * call


# -- pictures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("high", "expected"), [(10, [0, 2, 4, 6, 8, 10]), (0.9, [0, 0.2, 0.4, 0.6, 0.8]), (5400, 6)])
def test_ticks_are_round_numbers(high, expected):
    found = ticks(0, high)
    assert len(found) == expected if isinstance(expected, int) else found == pytest.approx(expected)


def test_a_chart_is_wellformed_and_names_what_it_shows():
    import xml.etree.ElementTree as Xml

    picture = draw("A < B", "x & y", "y", [Line("one", [(0, 1), (1, 2)]), Line("two", [(0, 0), (1, 1)], step=True)])
    words = {element.text for element in Xml.fromstring(picture).iter() if element.text}
    assert {"A < B", "x & y", "y", "one", "two"} <= words
