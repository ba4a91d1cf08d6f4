"""Which pools need an operator, how much, and what to tell him: the same order and words in `status` and `top`."""

from __future__ import annotations

from collections.abc import Iterable

from actorpool.cli.output import seconds
from actorpool.status import LeaseInfo, PoolStatus

SERVING = ("ready", "overflow", "full")
"""States in which a pool serves, as `status --check` sees it."""


def worst_first(pools: Iterable[PoolStatus]) -> list[PoolStatus]:
    """Pools by need, then by name."""
    return sorted(pools, key=lambda pool: (-need(pool), pool.name))


def need(pool: PoolStatus) -> int:
    """0: none; the more, the sooner somebody should look."""
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
        oldest = getattr(pool, "oldest_wait", 0.0)
        facts.append(f"{pool.waiting} wait{f', the oldest {seconds(oldest)}' if oldest else ''}")
    out = max(leases, key=lambda lease: lease.age, default=None)
    if out is not None:
        facts.append(f"oldest lease {seconds(out.age)}: {holder(out)}")
    return f"{pool.name}: {'; '.join(facts)}"


def holder(lease: LeaseInfo) -> str:
    """Who holds a lease, and what for."""
    program = getattr(lease, "program", None)
    function = getattr(lease, "function", None)
    who = f"pid {lease.caller_pid} on {lease.caller_host}" + (f" ({program})" if program else "")
    return f"{who}, in {function}" if function else who
