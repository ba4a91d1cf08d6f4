"""Which pools need an operator, how much, and what to say: the same order and words in `status`, `top` and the
dashboard."""

from __future__ import annotations

from collections.abc import Iterable

from actorpool.status import LeaseInfo, PoolStatus

SERVING = ("ready", "overflow", "full")
"""States in which a pool serves, as `status --check` sees it."""


def worst_first(pools: Iterable[PoolStatus]) -> list[PoolStatus]:
    """Pools by need, then by name."""
    return sorted(pools, key=lambda pool: (-need(pool), pool.name))


def need(pool: PoolStatus) -> int:
    """0: none; the more, the sooner an operator should look."""
    if pool.state in ("degraded", "circuit_open"):
        return 4
    if pool.waiting:
        return 3
    if pool.state not in SERVING:
        return 2
    return int(pool.state == "full")


def sentence(pool: PoolStatus, leases: Iterable[LeaseInfo] = ()) -> str | None:
    """What is the matter with a pool; None if nothing is.

    Args:
        pool: its figures.
        leases: those that are out, if they were asked for.
    """
    if not need(pool):
        return None
    if pool.state == "degraded":
        facts = [f"its workers cannot connect ({pool.connect_errors} failures)"]
    elif pool.state == "circuit_open":
        facts = ["its circuit breaker is open: calls fail at once"]
    elif pool.state in SERVING:
        facts = [f"all {pool.monitors} workers are out"] if pool.state == "full" else []
    else:
        facts = [f"is {pool.state}"]
    if pool.waiting:
        facts.append(f"{pool.waiting} wait{f', the oldest {seconds(pool.oldest_wait)}' if pool.oldest_wait else ''}")
    out = max(leases, key=lambda lease: lease.age, default=None)
    if out is not None:
        facts.append(f"oldest lease {seconds(out.age)}: {holder(out)}")
    return f"{pool.name}: {'; '.join(facts)}"


def holder(lease: LeaseInfo) -> str:
    """Who holds a lease, and what for."""
    who = f"pid {lease.caller_pid} on {lease.caller_host}" + (f" ({lease.program})" if lease.program else "")
    return f"{who}, in {lease.function}" if lease.function else who


def seconds(value: float | None) -> str:
    """A duration in at most five characters: `80ms`, `3.2s`, `41s`, `12m`, `3.5h`, `12d`."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.0f}ms" if value >= 0.001 else "0"
    for unit, length, limit in (("s", 1.0, 100), ("m", 60.0, 100), ("h", 3600.0, 48)):
        if value < limit * length:
            return f"{value / length:.1f}{unit}" if value < 9.95 * length else f"{value / length:.0f}{unit}"
    return f"{value / 86400:.0f}d"
