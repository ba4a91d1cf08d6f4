"""Whether a node is to get work: not while it starts, drains, or after a supervisor gave up. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from actorpool.dashboard.sight import nodes_of
from actorpool.status import PoolStatus, TreeNode


def unready(pools: Iterable[PoolStatus], tree: TreeNode | None, events: Iterable[dict[str, Any]]) -> list[str]:
    """The reasons, as sentences; none: it is ready. A pool that is full, or whose server is away, is no reason.

    Args:
        pools: the figures of all pools.
        tree: the supervision tree.
        events: the history, in order.
    """
    reasons = [f"pool {pool.name} is {pool.state}" for pool in pools if pool.state in ("starting", "draining")]
    return reasons + [text for text in troubles(tree, events) if text not in reasons]


def troubles(tree: TreeNode | None, events: Iterable[dict[str, Any]]) -> list[str]:
    """Supervisors and pools that do not run, and supervisors that gave up, as sentences.

    Args:
        tree: the supervision tree.
        events: the history, in order.
    """
    nodes = list(nodes_of(tree)) if tree is not None else []
    reasons = [
        f"{node.kind} {node.id} is {node.state}"
        for node in nodes
        if node.kind in ("supervisor", "pool") and node.state in ("restarting", "failed")
    ]
    return reasons + [text for text in _given_up(nodes, events) if text not in reasons]


def _given_up(nodes: list[TreeNode], events: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Supervisors that gave up and do not run again, nor does another in their place."""
    running = {str(node.id) for node in nodes if node.state not in ("restarting", "failed", "stopped")}
    gone = {}
    for event in events:
        if event["name"] == "supervisor.gave_up":
            name = str(event["pool"] or event["metadata"].get("supervisor"))
            gone[name] = f"supervisor {name} gave up"
        elif event["name"] in ("pool.stopped", "pool.started"):
            gone.pop(str(event["pool"]), None)
    yield from (text for name, text in gone.items() if name not in running)
