"""One child of a supervisor as the supervisor's decisions see it, and which ends lead to a restart."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

from actorpool.core.machine import Intensity, Retry
from actorpool.status import ChildInfo

NORMAL = "normal"
SHUTDOWN = "shutdown"
KILLED = "killed"
DIED = "died"


class Spec(Protocol):
    """What is decided by, of a `ChildSpec`."""

    @property
    def id(self) -> Hashable: ...
    @property
    def restart(self) -> str: ...
    @property
    def shutdown(self) -> float | str: ...
    @property
    def significant(self) -> bool: ...
    @property
    def type(self) -> str: ...


class End(NamedTuple):
    """How a child ended, or why it did not start.

    Attributes:
        reason: `"normal"`, `"shutdown"`, `("shutdown", anything)` (ordinary), or anything else (abnormal).
        traceback: where, as text; empty when there is none.
        error: the exception behind it, if there is one; packed while it travels.
    """

    reason: Any
    traceback: str = ""
    error: Any = None


class State(Enum):
    """Where a child is between two events."""

    STOPPED = "it has no process, and none will come by itself"
    STARTING = "its process exists and its init has not finished"
    RUNNING = "it runs"
    STOPPING = "it was asked to end and its process still exists"
    LEAVING = "its start failed or was ignored and its process still exists"
    DEAD = "it ended by itself; what follows from that has not been decided yet"
    RESTARTING = "its restart failed or is delayed, and will be tried again"
    FAILED = "it was restarted too often and is left alone"


ALIVE = frozenset({State.STARTING, State.RUNNING, State.STOPPING, State.LEAVING})

# The state a user sees, in the documentation's words.
_SHOWN = {
    State.STOPPED: "stopped",
    State.RUNNING: "running",
    State.STOPPING: "running",
    State.FAILED: "failed",
}


@dataclass(eq=False, slots=True)
class Child:
    """A registered child.

    Attributes:
        key: the id of its spec, or a number of our own for one of many (`dynamic`: `simple_one_for_one`).
        intensity: the window its restarts count in.
        retry: its delays between restarts, if the supervisor has a backoff.
        extra: args that `StartChild` gave over those of the spec.
        memory: args that the child itself wants over all others at its next start.
        token: its present incarnation, or its present series of retries.
        address, pid: of the last incarnation that ran.
        started_at: when that one had finished its init, monotonic seconds.
        end: how the last incarnation ended or failed to start; None while it has not.
        last_end, ended_at: how the one before ended, and when (monotonic seconds).
    """

    key: Hashable
    spec: Spec
    intensity: Intensity
    retry: Retry | None = None
    dynamic: bool = False
    extra: Any = None
    memory: Any = None
    state: State = State.STOPPED
    token: int = 0
    address: Any = None
    pid: int | None = None
    restarts: int = 0
    started_at: float = 0.0
    end: End | None = None
    last_end: End | None = None
    ended_at: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether it has a process."""
        return self.state in ALIVE

    @property
    def temporary(self) -> bool:
        """Whether its spec goes when it ends."""
        return self.spec.restart == "temporary"

    def info(self) -> ChildInfo:
        """As `WhichChildren` tells it."""
        up = self.state in (State.RUNNING, State.STOPPING)
        return ChildInfo(
            id=None if self.dynamic else self.spec.id,
            address=self.address if up else None,
            pid=self.pid if up else None,
            type=self.spec.type,
            state=_SHOWN.get(self.state, "restarting"),
            restarts=self.restarts,
        )


def is_key(value: Any) -> bool:
    """Whether something can be the id of a child: it has a hash.

    Raises:
        Exception: what its hash or its comparison raises, other than that there is no hash.
    """
    try:
        hash(value)
    except TypeError:  # as of a tuple with a list in it, which `isinstance(value, Hashable)` lets pass
        return False
    bool(value == value)
    return True


def is_ordinary(reason: Any) -> bool:
    """Whether an end with that reason is no failure: `"normal"`, `"shutdown"` or `("shutdown", ...)`."""
    if isinstance(reason, tuple) and reason:
        return isinstance(reason[0], str) and reason[0] == SHUTDOWN
    return isinstance(reason, str) and reason in (NORMAL, SHUTDOWN)


def restarts(restart: str, reason: Any) -> bool:
    """Whether a child of restart type `restart` is started again after it ended by itself (OTP's `do_restart`)."""
    return restart == "permanent" or (restart == "transient" and not is_ordinary(reason))


def ended_as_asked(child: Child) -> bool:
    """Whether a child that was told to stop did so in an expected way (OTP reports any other)."""
    reason = child.end.reason if child.end else SHUTDOWN
    if isinstance(reason, str) and (reason == SHUTDOWN or (reason == KILLED and child.spec.shutdown == "brutal_kill")):
        return True
    return child.spec.restart != "permanent" and is_ordinary(reason)
