"""What a node runs: a root supervisor with the manager below it. The only place that says so."""

from __future__ import annotations

from typing import Any

from actorpool.messages import WhereIs
from actorpool.node.base import ask
from actorpool.node.order import Order
from actorpool.protocol import Hello, Welcome
from actorpool.supervisors import ChildSpec, SupervisorSpec, start_supervisor

MANAGER = "manager"
"""The manager's id below the root supervisor, and its socket's name."""
ANSWER = 10.0
"""Seconds for an actor that has just started to answer."""


def start_tree(system: Any, directory: str, order: Order) -> tuple[Any, Welcome]:
    """Start the root supervisor and the manager; the root's address and what the manager says of itself.

    Runs in: the node.

    Raises:
        SupervisorError: the manager failed to start.
    """
    manager = ChildSpec(
        MANAGER,
        "actorpool.supervisors.manager:ConnectionManager",
        args={"directory": directory, "options": order.options},
        type="supervisor",
        shutdown="infinity",
    )
    root = start_supervisor(system, SupervisorSpec(children=[manager], max_restarts=10, max_seconds=60))
    return root, find_manager(system, root)


def find_manager(system: Any, root: Any) -> Welcome:
    """Ask the root supervisor where the manager is, and the manager who it is."""
    address = ask(system, root, WhereIs(MANAGER), ANSWER)
    return ask(system, address, Hello(), ANSWER)
