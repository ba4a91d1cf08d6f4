"""Autoscaling: a table of the published rule, and the scaler's beat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorpool.config import Autoscale
from actorpool.core.pool.autoscale import Scaler, target_size


@pytest.mark.parametrize(
    ("samples", "current", "expected"),
    [
        ([], 10, None),
        ([10] * 100, 5, 12),
        ([10] * 100, 10, None),  # 12 differs by no more than 2
        ([10] * 100, 9, 12),
        ([10] * 100, 15, 12),
        ([0] * 100, 10, 5),
        ([0] * 100, 7, None),
        ([1, 2, 3, 4, 100], 5, 26),  # trunc(22 * 1.2) is trunc(26.4)
        ([7, 8], 20, 9),
    ],
)
def test_the_target_is_the_average_with_headroom(samples, current, expected):
    assert target_size(Autoscale(), samples, current) == expected


def test_the_maximum_bounds_the_target():
    assert target_size(Autoscale(maximum=20), [100], 5) == 20
    assert target_size(Autoscale(maximum=20), [100], 18) is None


def test_floating_point_does_not_cost_a_worker():
    assert target_size(Autoscale(headroom=1.4), [55], 5) == 77


@given(st.lists(st.integers(0, 500), min_size=1), st.integers(0, 500), st.integers(0, 20), st.integers(0, 300))
def test_a_target_stays_within_bounds_and_is_stable(samples, current, threshold, span):
    autoscale = Autoscale(threshold=threshold, minimum=3, maximum=3 + span)
    target = target_size(autoscale, samples, current)
    if target is None:
        return
    assert 3 <= target <= 3 + span
    assert abs(target - current) > threshold
    assert target_size(autoscale, samples, target) is None


def test_the_scaler_is_due_once_an_interval_and_never_catches_up():
    scaler = Scaler(Autoscale(interval=300.0), now=1000.0)
    assert scaler.next_due() == 1300
    assert not scaler.due(1299.9)
    assert scaler.due(2500)
    assert not scaler.due(2501)
    assert scaler.next_due() == 2800


def test_a_scaler_without_settings_is_never_due():
    scaler = Scaler(None, now=0.0)
    assert not scaler.due(1e9)
    assert scaler.next_due() is None
