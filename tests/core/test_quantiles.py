"""Quantiles of the last numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorpool.core.machine import Quantiles


def filled(numbers, size=1000):
    meter = Quantiles(size)
    for number in numbers:
        meter.add(number)
    return meter


def test_without_numbers_every_quantile_is_zero():
    assert Quantiles().quantile(0.99) == 0.0


@pytest.mark.parametrize(("q", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.995, 100), (1.0, 100)])
def test_a_quantile_is_the_nearest_rank(q, expected):
    assert filled(range(100, 0, -1)).quantile(q) == expected


def test_only_the_last_numbers_count():
    meter = filled([1000.0] * 50 + [1.0] * 10, size=10)
    assert len(meter) == 10
    assert meter.quantile(1.0) == 1.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_at_least_the_share_asked_for_does_not_exceed_the_quantile(numbers, q):
    value = filled(numbers).quantile(q)
    assert value in numbers
    assert sum(number <= value for number in numbers) >= q * len(numbers)
