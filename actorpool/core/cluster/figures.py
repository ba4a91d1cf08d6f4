"""What all hosts of a pool tell, as the figures of one pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from actorpool.status import PoolMetrics, PoolStatus

_STATES = ("ready", "overflow", "full", "circuit_open", "degraded", "starting", "draining", "suspended")
"""Of what its hosts are, a pool is the first that occurs: a caller finds a worker where there is one."""
_GREATEST = frozenset({"wait_ms_p99", "hold_ms_p99", "since", "oldest_wait", "oldest_lease"})
"""The worst of all hosts: percentiles cannot be summed, and an age is the oldest one."""
_WEIGHED = frozenset({"wait_ms_p50", "hold_ms_p50"})
"""Averages by checkouts, which is as near as medians of several hosts come."""


@dataclass(frozen=True)
class ClusterStatus(PoolStatus):
    """A pool on all its hosts: numbers are sums, states the best, percentiles the worst (medians: averages).

    Attributes:
        hosts: by host's name, what that host tells; None of one that did not answer.
    """

    hosts: Mapping[str, PoolStatus | None] = field(default_factory=dict)


def merged(pool: str, told: Mapping[str, PoolStatus | None]) -> ClusterStatus:
    """The figures of all hosts as one.

    Args:
        pool: the pool's name.
        told: by host's name; None of one that did not answer.
    """
    known = [status for status in told.values() if status is not None]
    values: dict[str, Any] = {"name": pool, "state": _state(known), "hosts": dict(told)}
    for item in fields(PoolStatus):
        if item.name not in values:
            values[item.name] = _value(item.name, known, 0 if item.default is MISSING else item.default)
    return ClusterStatus(**values)


def _state(known: list[PoolStatus]) -> str:
    states = {status.state for status in known}
    return next((state for state in _STATES if state in states), "degraded")


def _value(name: str, known: list[PoolStatus], default: Any) -> Any:
    values = [getattr(status, name) for status in known]
    if not values or not all(isinstance(value, (int, float)) for value in values):
        return default
    if name in _GREATEST:
        return max(values)
    if name in _WEIGHED:
        weights = [status.checkouts or 1 for status in known]
        return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
    return sum(values)


def merged_metrics(told: list[PoolMetrics]) -> PoolMetrics:
    """The samples of all hosts by time; extremes and average are over single hosts, as their samples are."""
    samples = sorted((sample for metrics in told for sample in metrics.samples), key=lambda sample: sample.time)
    leases = [sample.leases for sample in samples]
    average = sum(leases) / len(leases) if leases else 0.0
    return PoolMetrics(tuple(samples), min(leases, default=0), max(leases, default=0), average)


def merged_stats(told: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Counters of all hosts as one: sums, of times the longest."""
    total: dict[str, Any] = {}
    for stats in told:
        for name, value in stats.items():
            total[name] = max(total.get(name, 0), value) if name == "uptime" else total.get(name, 0) + value
    return total


def by_worker(told: Mapping[str, Mapping[int, Any]]) -> dict[tuple[str, int], Any]:
    """What single workers tell, by host's name and worker id: ids are of one host."""
    return {(name, worker): stats for name, workers in told.items() for worker, stats in workers.items()}
