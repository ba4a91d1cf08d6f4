"""Supervisors with OTP's semantics for Thespian actors; see docs/supervisors.md."""

from actorpool.core.machine import Backoff
from actorpool.errors import SupervisorError
from actorpool.messages import (
    CountChildren,
    DeleteChild,
    Down,
    GetChildSpec,
    RestartChild,
    StartChild,
    TerminateChild,
    WhereIs,
    WhichChildren,
)
from actorpool.status import ChildInfo, Counts
from actorpool.supervisors.monitor import demonitor, monitor
from actorpool.supervisors.root import start_supervisor
from actorpool.supervisors.specs import ChildSpec, SupervisorSpec, pool_child_spec
from actorpool.supervisors.supervised import IGNORE, Supervised
from actorpool.supervisors.supervisor import Supervisor

__all__ = [
    "IGNORE",
    "Backoff",
    "ChildInfo",
    "ChildSpec",
    "CountChildren",
    "Counts",
    "DeleteChild",
    "Down",
    "GetChildSpec",
    "RestartChild",
    "StartChild",
    "Supervised",
    "Supervisor",
    "SupervisorError",
    "SupervisorSpec",
    "TerminateChild",
    "WhereIs",
    "WhichChildren",
    "demonitor",
    "monitor",
    "pool_child_spec",
    "start_supervisor",
]
