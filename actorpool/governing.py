"""Messages between our own parts that the manager gets or sends: from clients and nodes (`ASK` or Thespian), to pools.

Not public. Each is handled the same whichever way it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actorpool.messages import Request


@dataclass(frozen=True)
class Hello(Request):
    """Who serves here? `Welcome`."""


@dataclass(frozen=True)
class Welcome:
    """The manager's address and process, and the process of the root supervisor above it (pids None: one process)."""

    address: Any
    pid: int | None
    supervisor_pid: int | None


@dataclass(frozen=True)
class Tree(Request):
    """The whole supervision tree as a `TreeNode`, from the root supervisor down."""


@dataclass(frozen=True)
class Supervise(Request):
    """Start a `ChildSpec` or `SupervisorSpec` under the root supervisor; its address."""

    spec: Any


@dataclass(frozen=True)
class Retire(Request):
    """Manager → pool: stop for good; running calls may finish within `timeout` seconds. Answered when all are gone."""

    timeout: float = 5.0


@dataclass(frozen=True)
class Listen(Request):
    """Manager → pool: from now on these are all the (pattern, address) pairs of who gets events."""

    subscriptions: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Happened:
    """Supervisor → whoever is above it, up to the manager: an event of telemetry, for the sinks."""

    name: str
    measurements: dict[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Routed:
    """Manager → pool: a request that the manager received for it, with who asked."""

    request: Any
    asker: Any
