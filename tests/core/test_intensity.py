"""The restart window counts as OTP counts: whole seconds, inclusive, one more than the limit is too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorpool.core.machine import Intensity


def test_intensity_zero_refuses_the_first_restart():
    assert not Intensity(0, 5).add(100.0)


def test_the_restart_after_the_last_tolerated_one_is_refused():
    intensity = Intensity(2, 5)
    assert [intensity.add(100.0 + number) for number in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (100.0, 105.0, False),  # exactly the period old: it still counts
        (100.0, 105.99, False),  # the same whole second
        (100.9, 105.0, False),  # 4.1 s apart, 5 whole seconds
        (100.9, 106.0, True),  # 5.1 s apart, 6 whole seconds
        (100.0, 106.0, True),
    ],
)
def test_the_window_is_inclusive_and_in_whole_seconds(first, second, kept):
    intensity = Intensity(1, 5)
    intensity.add(first)
    assert intensity.add(second) is kept


def test_restarts_leave_the_window_one_by_one():
    intensity = Intensity(3, 10)
    for moment in (0, 4, 8):
        intensity.add(moment)
    assert [intensity.count(moment) for moment in (8, 10, 11, 15, 19)] == [3, 3, 2, 1, 0]


@pytest.mark.parametrize(("given_seconds", "still_counts"), [(0.5, 0), (1.9, 1), (60.0, 60)])
def test_a_fraction_of_the_period_is_dropped(given_seconds, still_counts):
    intensity = Intensity(5, given_seconds)
    intensity.add(1000)
    assert intensity.count(1000 + still_counts) == 1
    assert intensity.count(1000 + still_counts + 1) == 0


def test_cleared_it_starts_anew():
    intensity = Intensity(1, 5)
    assert intensity.add(1)
    intensity.clear()
    assert intensity.add(1)
    assert repr(intensity) == "<Intensity 1 of 1 restart(s) in 5 s>"


@given(
    limit=st.integers(0, 5),
    period=st.integers(1, 20),
    steps=st.lists(st.floats(0, 10, allow_nan=False), min_size=1, max_size=60),
)
def test_it_agrees_with_a_plain_list_of_all_restarts(limit, period, steps):
    intensity, moments, now = Intensity(limit, period), [], 0.0
    for step in steps:
        now += step
        moments.append(int(now))
        inside = [moment for moment in moments if moment >= int(now) - period]
        assert intensity.add(now) is (len(inside) <= limit)
        assert intensity.count(now) == len(inside)
