"""Client → manager (`ASK` or Thespian): requests; and how the manager passes on what it got for a pool."""

from __future__ import annotations

from typing import Any

from actorpool._dataclass import dataclass
from actorpool.config import check_request
from actorpool.messages import Request


@dataclass(frozen=True)
class Hello(Request):
    """Which manager serves here? `Welcome`."""


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
class GetEvents(Request):
    """The latest `limit` events kept whose names match, with numbers above `after` (None: all): `list[Event]`."""

    pattern: str = "*"
    after: int | None = None
    limit: int = 1000

    def __post_init__(self) -> None:
        check_request("events", pattern=self.pattern, after=self.after, limit=self.limit)


@dataclass(frozen=True)
class Supervise(Request):
    """Start a `ChildSpec` or `SupervisorSpec` under the root supervisor; its address."""

    spec: Any


@dataclass(frozen=True)
class Happened:
    """Supervisor → its parent, up to the manager: an event of telemetry, for the sinks."""

    name: str
    measurements: dict[str, Any]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Routed:
    """Manager → pool: a request that the manager received for it, with the asker."""

    request: Any
    asker: Any


@dataclass(frozen=True)
class FindPool(Request):
    """To the manager: `Ok("pool")` or `Ok("shared")`, whichever is running under that name."""

    name: str

    def __post_init__(self) -> None:
        check_request("FindPool", name=self.name)
