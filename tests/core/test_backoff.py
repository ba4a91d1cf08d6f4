"""Delays grow, stay within their bounds, and start again after a success."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorpool.core.machine import Backoff, Retry
from actorpool.errors import InvalidConfig

seconds = st.floats(0.001, 1000)
chances = st.floats(0, 1, exclude_max=True)


@given(low=seconds, factor=st.floats(1, 1000), draws=st.lists(chances, min_size=1, max_size=60))
def test_every_delay_is_within_its_bounds(low, factor, draws):
    backoff = Backoff(low, low * factor)
    retry = Retry(backoff)
    for number, draw in enumerate(draws, 1):
        delay = retry.next(draw)
        assert backoff.minimum <= delay <= backoff.maximum
        assert delay <= low * 2.0**number or delay == low


def test_the_longest_possible_delay_doubles_up_to_the_maximum():
    retry = Retry(Backoff(0.1, 1.0))
    almost_one = 1 - 2**-53
    assert [round(retry.next(almost_one), 6) for _ in range(5)] == [0.2, 0.4, 0.8, 1.0, 1.0]


def test_without_luck_the_delay_is_the_minimum():
    retry = Retry(Backoff(0.1, 30))
    assert [retry.next(0.0) for _ in range(4)] == [0.1] * 4


def test_a_success_starts_the_series_again():
    retry = Retry(Backoff(1, 64))
    first = retry.next(0.5)
    assert retry.next(0.5) > first
    retry.reset()
    assert retry.next(0.5) == first


def test_a_thousand_failures_do_not_overflow():
    retry = Retry(Backoff(0.1, 30))
    for _ in range(5000):
        assert retry.next(0.999) <= 30


@pytest.mark.parametrize(
    ("bounds", "fields"),
    [
        ((0, 1), {"minimum"}),
        ((-1, float("inf")), {"minimum", "maximum"}),
        (("1", 2), {"minimum"}),
        ((True, 2), {"minimum"}),
        ((float("nan"), 2), {"minimum"}),
        ((3, 2), {"maximum"}),
    ],
)
def test_bad_bounds_are_refused_and_named(bounds, fields):
    with pytest.raises(InvalidConfig) as caught:
        Backoff(*bounds)
    assert set(caught.value.problems) == fields


def test_a_backoff_pickles():
    assert pickle.loads(pickle.dumps(Backoff(0.5, 8))) == Backoff(0.5, 8)


def test_the_state_shows_itself_in_a_line():
    retry = Retry(Backoff(0.1, 30))
    retry.next(0.5)
    assert repr(retry) == "<Retry 0.1..30 s, 1 attempt(s)>"
