"""Histograms of waits and holds, and what the uses of sticky leases add to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorpool.core.pool.durations import BOUNDS, BUCKETS, Durations, bucket_of


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (1e-4, 0), (1.1e-4, 1), (10.0, len(BOUNDS) - 1), (10.1, len(BOUNDS))]
)
def test_a_bucket_includes_its_upper_bound(seconds, bucket):
    assert bucket_of(seconds) == bucket


@given(st.lists(st.floats(0, 100), max_size=50))
def test_every_one_is_in_one_bucket_and_in_the_sum(times):
    durations = Durations()
    for seconds in times:
        durations.add(seconds)
    assert durations.count == sum(durations.buckets) == len(times)
    assert durations.sum == pytest.approx(sum(times))
    for number, bound in enumerate(BOUNDS):
        assert sum(durations.buckets[: number + 1]) == sum(seconds <= bound for seconds in times)


def test_the_slowest_is_told_once():
    durations = Durations()
    for seconds in (0.1, 0.3, 0.2):
        durations.add(seconds)
    assert (durations.take_slowest(), durations.take_slowest()) == (0.3, 0.0)


def test_what_was_counted_elsewhere_is_included_with_its_buckets():
    durations = Durations()
    durations.add(0.002)
    durations.include([0.001], 0.5, [0, 0, 0, 7, *[0] * (BUCKETS - 4)])
    assert (durations.count, durations.sum) == (8, pytest.approx(0.502))
    assert durations.buckets[3:5] == [7, 1]
    assert durations.last(10) == [0.002, 0.001]
    assert durations.last(0) == []
