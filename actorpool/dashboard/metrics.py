"""A node's figures in the text format of Prometheus (0.0.4). Labels: `pool`, and one of a closed set with it.

A pool that is gone, and a figure that is not known, has no sample. Names: docs/dashboard.md lists them.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from actorpool import __version__
from actorpool._protocol.requests import Histogram
from actorpool.dashboard.sight import Sight, Tally, look, tally
from actorpool.status import PoolStatus, TreeNode

if TYPE_CHECKING:
    from actorpool.client.system import System

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("ready", "overflow", "full", "starting", "degraded", "suspended", "draining", "circuit_open")

_FIGURES: dict[str, tuple[str, str, Callable[[PoolStatus], float]]] = {
    "size": ("gauge", "Workers that the pool keeps, as configured.", lambda pool: pool.size),
    "limit": ("gauge", "Workers that the pool may have: size and max_overflow.", lambda p: p.size + p.max_overflow),
    "leases": ("gauge", "Leases that are out.", lambda pool: pool.monitors),
    "waiting": ("gauge", "Callers that wait for a worker.", lambda pool: pool.waiting),
    "oldest_wait_seconds": ("gauge", "How long the first of them has waited.", lambda pool: pool.oldest_wait),
    "oldest_lease_seconds": ("gauge", "How long the oldest lease is in use.", lambda pool: pool.oldest_lease),
    "checkouts_total": ("counter", "Leases granted.", lambda pool: pool.checkouts),
    "timeouts_total": ("counter", "Callers that waited in vain.", lambda pool: pool.timeouts),
    "shed_total": ("counter", "Callers refused because too many waited.", lambda pool: pool.shed),
    "reclaimed_total": ("counter", "Leases taken from callers that died.", lambda p: p.reclaimed),
    "restarts_total": ("counter", "Workers replaced after their death.", lambda pool: pool.restarts),
    "connect_errors_total": ("counter", "Connections not opened, or lost.", lambda p: p.connect_errors),
}  # fmt: skip


def render(system: System) -> str:
    """Ask a node once, and write its figures.

    Raises:
        SystemDown: the node is gone.
    """
    seen = look(system)
    return text_of(seen, seen.tree, tally(system, seen.pools))


def text_of(sight: Sight, tree: TreeNode | None, counted: Tally) -> str:
    """The figures of a node as text; pure.

    Args:
        sight: its pools.
        tree: its supervision tree, which may have been looked at earlier.
        counted: what its pools have counted.
    """
    return "".join(f"{line}\n" for line in _lines(sight, tree, counted))


def _lines(sight: Sight, tree: TreeNode | None, counted: Tally) -> Iterator[str]:
    for name, (kind, text, figure) in _FIGURES.items():
        yield from _family(name, kind, text, [({"pool": pool.name}, figure(pool)) for pool in sight.pools])
    workers = [({"pool": pool.name, "state": state}, n) for pool in sight.pools for state, n in _workers(pool).items()]
    yield from _family("workers", "gauge", "Worker processes by what they do.", workers)
    yield from _histograms("wait_seconds", "How long callers have waited for a worker.", counted.waits)
    yield from _histograms("hold_seconds", "How long callers have held a worker.", counted.holds)
    states = [
        ({"pool": pool.name, "state": state}, int(pool.state == state)) for pool in sight.pools for state in STATES
    ]
    yield from _family("pool_state", "gauge", "1 for the state the pool is in, 0 for the others.", states)
    restarts = [({"supervisor": name}, count) for name, count in _supervisors(tree).items()]
    yield from _family("supervisor_restarts_total", "counter", "Children that a supervisor started again.", restarts)
    dropped = [({"sink": sink}, count) for sink, count in counted.dropped.items()]
    yield from _family("events_dropped_total", "counter", "Events that a sink was too slow for, or failed at.", dropped)
    build = {"version": __version__, "python": platform.python_version()}
    yield from _family("build_info", "gauge", "What serves these figures.", [(build, 1)])


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[dict[str, str], float]]) -> Iterator[str]:
    lines = [_line(name, labels, value) for labels, value in samples]
    if lines:
        yield f"# HELP actorpool_{name} {text}"
        yield f"# TYPE actorpool_{name} {kind}"
    yield from lines


def _histograms(name: str, text: str, of_pools: Mapping[str, Histogram]) -> Iterator[str]:
    if of_pools:
        yield f"# HELP actorpool_{name} {text}"
        yield f"# TYPE actorpool_{name} histogram"
    for pool, histogram in of_pools.items():
        ends = [*map(str, histogram.bounds), "+Inf"]
        total = 0
        for end, total in zip(ends, accumulate(histogram.counts), strict=True):
            yield _line(f"{name}_bucket", {"pool": pool, "le": end}, total)
        yield _line(f"{name}_sum", {"pool": pool}, histogram.sum)
        yield _line(f"{name}_count", {"pool": pool}, total)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(of)}"' for label, of in labels.items())
    return f"actorpool_{name}{{{shown}}} {value}"


def _escaped(text: str) -> str:
    """As a label's value: backslash, quote and line feed are the only special ones in this format."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _workers(pool: PoolStatus) -> dict[str, int]:
    """Its processes by state; those neither idle nor leased open their connection, wait to, or end."""
    return {"idle": pool.workers, "used": pool.monitors, "other": max(0, pool.total - pool.workers - pool.monitors)}


def _supervisors(root: TreeNode | None) -> dict[str, int]:
    """How often each supervisor that runs has started a child again, by its path of ids below the root."""
    found: dict[str, int] = {}

    def visit(node: TreeNode, path: str) -> None:
        if node.kind == "supervisor":
            found[path] = sum(child.restarts for child in node.children)
        for child in node.children:
            visit(child, f"{path}/{child.id}")

    if root is not None:
        visit(root, root.id)
    return found
