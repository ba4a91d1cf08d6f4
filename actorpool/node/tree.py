"""What a system runs: a root supervisor with the manager below it. The only place that says so."""

from __future__ import annotations

from typing import Any

from actorpool import process
from actorpool._dataclass import generate
from actorpool._protocol.manager import Hello, Welcome
from actorpool.core.machine import Backoff
from actorpool.messages import Ok, WhereIs
from actorpool.node.runtime import MANAGER
from actorpool.node.topmost import Topmost
from actorpool.status import ChildInfo
from actorpool.supervisors import ChildSpec, SupervisorSpec, start_supervisor
from actorpool.supervisors.child_host import HostChild, HostStarted
from actorpool.supervisors.manager import ConnectionManager
from actorpool.thespian_adapter.base import ask

ANSWER = 10.0
"""Seconds for an actor that runs to answer."""


def share() -> None:
    """Before the first actor is forked: have what the root supervisor and the manager use ready in all of them."""
    generate(process.Caller, WhereIs, Ok, Hello, Welcome, HostChild, HostStarted)
    generate(ChildSpec, SupervisorSpec, Backoff, ChildInfo)


def start_tree(system: Any, directory: str | None, options: dict[str, Any]) -> tuple[Any, Welcome]:
    """Start the root supervisor and the manager; the root's address, and what the manager says of itself.

    Runs in: the node, or the only process of `simpleSystemBase`.

    Args:
        system: Thespian's `ActorSystem`.
        directory: where the manager's socket and those of the pools are to be; None: messages only.
        options: of the manager.

    Raises:
        SupervisorError: the manager failed to start.
    """
    args = {"directory": directory, "options": {**options, "dead_letters": True}}
    manager = ChildSpec(MANAGER, ConnectionManager, args=args, type="supervisor")
    spec = SupervisorSpec([manager], max_restarts=10, max_seconds=60)
    root = start_supervisor(system, spec, "root", actor=Topmost)
    return root, find_manager(system, root)


def find_manager(system: Any, root: Any) -> Welcome:
    """Ask the root supervisor where the manager is, and the manager for its identity.

    Raises:
        SystemDown: one of them does not answer.
    """
    address = ask(system, root, WhereIs(MANAGER), ANSWER)
    welcome: Welcome = ask(system, address, Hello(), ANSWER)
    return welcome
