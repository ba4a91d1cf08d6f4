"""What a supervision is told (events) and what it wants done (effects). Plain values, nothing else.

A token numbers one incarnation of one child; what is said of an older one is stale and harmless.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from actorpool.core.supervisor.children import End, Spec
from actorpool.errors import SupervisorError

# -- events -----------------------------------------------------------------------------------------------------


class Boot(NamedTuple):
    """Start the children of the spec."""


class Began(NamedTuple):
    """An incarnation has finished its init."""

    token: int
    address: Any = None
    pid: int | None = None


class Ignored(NamedTuple):
    """An init returned `IGNORE`; its process waits to be ended."""

    token: int


class Refused(NamedTuple):
    """An init failed; its process waits to be ended."""

    token: int
    end: End


class Leaving(NamedTuple):
    """A child ends itself; its process waits to be ended, so that its reason is known before its death is."""

    token: int
    end: End


class Exited(NamedTuple):
    """The process of an incarnation is gone; `end`, if it shows in what way."""

    token: int
    end: End | None = None


class Remembered(NamedTuple):
    """What a child wants to be told, over its args, when it is started again."""

    token: int
    memory: Any


class Due(NamedTuple):
    """The timer of that number ran out."""

    number: int


class Asked(NamedTuple):
    """A request, to be answered by one `Answer` of the same `ref`."""

    ref: Any
    request: Any


Event = Boot | Began | Ignored | Refused | Leaving | Exited | Remembered | Due | Asked


# -- effects ----------------------------------------------------------------------------------------------------


class Start(NamedTuple):
    """Create a process for a child; `extra` and `memory` (each may be None) go over the args of the spec."""

    token: int
    spec: Spec
    extra: Any = None
    memory: Any = None


class Terminate(NamedTuple):
    """Ask an incarnation to end."""

    token: int


class Kill(NamedTuple):
    """End an incarnation now, by SIGKILL."""

    token: int


class Timer(NamedTuple):
    """Say `Due(number)` after `delay` seconds."""

    delay: float
    number: int


class Answer(NamedTuple):
    """The answer to a request: a value, or an error."""

    ref: Any
    value: Any = None
    error: SupervisorError | None = None


class Report(NamedTuple):
    """Something for the log.

    Attributes:
        kind: `terminated`, `start_failed`, `stop_failed`, `restarted` or `gave_up`.
        id, pid: of the child it is about.
        end: how that child ended.
        window: restarts that count at the moment, against `limit` of them within `period` seconds.
    """

    kind: str
    id: Any
    pid: int | None
    end: End
    window: int
    limit: int
    period: float


class Ready(NamedTuple):
    """All initial children are up."""


class Exit(NamedTuple):
    """Nothing is left below: end, with that reason. `failed` says so if the supervisor never came up."""

    reason: Any
    failed: SupervisorError | None = None


Effect = Start | Terminate | Kill | Timer | Answer | Report | Ready | Exit
