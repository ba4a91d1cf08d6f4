"""The circuit breaker: a table of stories, and Hypothesis against the definition of its window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorpool.config import Breaker
from actorpool.core.pool.breaker import Circuit

BREAKER = Breaker(failures=3, window=10.0, reset_after=30.0, half_open=2)


def opened(at=0.0, breaker=BREAKER):
    circuit = Circuit(breaker)
    assert [circuit.failure(at) for _ in range(breaker.failures)] == [False] * (breaker.failures - 1) + [True]
    return circuit


def test_without_settings_the_circuit_is_always_closed():
    circuit = Circuit(None)
    assert not any(circuit.failure(0) for _ in range(1000))
    assert (circuit.state(0), circuit.allows(0), circuit.success(0)) == ("closed", True, False)
    assert not circuit.trial_begins(0)
    assert circuit.next_change(0) is None


@pytest.mark.parametrize(
    ("times", "opens"),
    [
        ([0, 1, 2], True),
        ([0, 0, 0], True),
        ([0, 5, 10], True),
        ([0, 5, 10.1], False),
        ([0, 5, 10.1, 14], True),
        ([0, 11, 22, 33], False),
    ],
)
def test_it_opens_on_that_many_failures_within_the_window(times, opens):
    circuit = Circuit(BREAKER)
    assert [circuit.failure(now) for now in times][-1] is opens
    assert circuit.allows(times[-1]) is not opens


def test_a_success_between_failures_does_not_hide_them():
    circuit = Circuit(BREAKER)
    for now in (0, 1):
        circuit.failure(now)
        assert not circuit.success(now)
    assert circuit.failure(2)


def test_while_open_nobody_passes_and_the_wait_is_known():
    circuit = opened(at=100)
    assert (circuit.state(100), circuit.allows(129.9)) == ("open", False)
    assert circuit.retry_in(110) == 20
    assert circuit.next_change(110) == 130
    assert circuit.state(130) == "half_open"
    assert (circuit.retry_in(131), circuit.next_change(131)) == (0, None)


def test_failures_while_open_do_not_prolong_it_and_successes_do_not_close_it():
    circuit = opened(at=0)
    assert not circuit.failure(20)
    assert not circuit.success(21)
    assert circuit.state(29.9) == "open"
    assert circuit.state(30) == "half_open"


def test_half_open_lets_only_so_many_trials_out():
    circuit = opened()
    assert circuit.allows(31)
    assert circuit.trial_begins(31)
    assert circuit.allows(31)
    assert circuit.trial_begins(31)
    assert not circuit.allows(31)
    circuit.trial_ends(32)  # its caller died without a verdict
    assert circuit.allows(32)
    assert not circuit.allows(32, waiting=["one"])  # who waits for a worker will be a trial as well


def test_a_successful_trial_closes_it_and_forgets_the_failures():
    circuit = opened()
    circuit.trial_begins(31)
    assert circuit.success(32)
    circuit.trial_ends(32)
    assert circuit.state(32) == "closed"
    assert not circuit.trial_begins(33)
    assert [circuit.failure(33) for _ in range(3)] == [False, False, True]


def test_a_failed_trial_opens_it_again_for_the_whole_time():
    circuit = opened()
    circuit.trial_begins(31)
    assert circuit.failure(32)
    circuit.trial_ends(32)
    assert circuit.state(61.9) == "open"
    assert circuit.state(62) == "half_open"


def test_a_trial_that_outlives_the_next_opening_still_counts():
    circuit = opened(breaker=Breaker(failures=1, reset_after=1.0, half_open=1))
    circuit.trial_begins(2)
    circuit.failure(2)
    assert circuit.state(4) == "half_open"
    assert not circuit.allows(4)
    circuit.trial_ends(32)
    assert circuit.allows(4)


@given(st.lists(st.floats(0, 4), max_size=40), st.integers(1, 5))
def test_a_closed_circuit_opens_exactly_when_the_window_holds_enough_failures(gaps, failures):
    circuit, times, now = Circuit(Breaker(failures=failures, window=3.0)), [], 0.0
    for gap in gaps:
        now += gap
        times.append(now)
        enough = len(times) >= failures and now - times[-failures] <= 3.0
        assert circuit.failure(now) is enough
        if enough:
            assert circuit.success(now + 30)
            now, times = now + 30, []
