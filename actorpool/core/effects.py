"""What a decision asks its shell to do. Plain tuples: the shell carries each out, in order."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple


class Keyed(NamedTuple):
    """What a keyed lease finds: `fresh`, nothing of its key; `lost`, why the state that there was is gone, if known."""

    fresh: bool
    lost: str | None = None


class Granted(NamedTuple):
    """Tell the holder that it has the worker. `check_first`: check the connection before the first call.

    `turn`: it is a turn in a sandbox. `sticky`: the holder may keep it and use it again and again.
    """

    ref: Any
    holder: Hashable
    lease: int
    worker: int
    waited: float
    check_first: bool
    turn: bool = False
    sticky: bool = False
    keyed: Keyed | None = None


class UseLocal(NamedTuple):
    """Tell the holder that its own process has all sticky leases of the pool: its threads must share them.

    The request no longer waits. If the thread gets no shared lease in a moment, it asks again, without `sticky`.
    """

    ref: Any
    holder: Hashable


class Refused(NamedTuple):
    """Tell the holder that its checkout failed."""

    ref: Any
    holder: Hashable
    error: Exception


class Ended(NamedTuple):
    """A lease is over without a checkin: its worker died (`died`), or it was taken back; `why` in a few words."""

    lease: int
    holder: Hashable
    ref: Any
    worker: int
    died: bool
    why: str = ""


class Start(NamedTuple):
    """Create the worker's process. `spec`: of what kind, where not all workers are of one."""

    worker: int
    spec: Any = None


class Open(NamedTuple):
    """Have the worker connect (closing what it has open first)."""

    worker: int


class Close(NamedTuple):
    """Have the worker disconnect; it connects again when it is next called."""

    worker: int


class Check(NamedTuple):
    """Have the idle worker check its connection."""

    worker: int


class Recall(NamedTuple):
    """Have a worker end its sticky lease, or its loan, after the use that has begun.

    `first`: the lease was not used yet if fewer uses than that have begun; then its first use is still let in.
    """

    worker: int
    lease: int
    first: int = 0


class Revoke(NamedTuple):
    """Interrupt what runs under the lease, reset the worker (not if `keep`), raise its fence."""

    worker: int
    lease: int
    keep: bool = False


class Stop(NamedTuple):
    """Ask the worker's process to end; `interrupt` what it runs."""

    worker: int
    interrupt: bool = False


class Kill(NamedTuple):
    """SIGKILL the worker's process."""

    worker: int


class Emit(NamedTuple):
    """Something worth telling: an event of `actorpool.telemetry.events`."""

    name: str
    measurements: dict[str, Any]
    metadata: dict[str, Any]


class Answer(NamedTuple):
    """Answer an administrative request; an exception is raised at the asker's."""

    ref: Any
    value: Any = None


class Ready(NamedTuple):
    """The pool has started; `degraded` while no worker could connect yet."""

    degraded: bool


class Fail(NamedTuple):
    """The pool cannot go on: it fails to its supervisor with this error."""

    error: Exception


class Stopped(NamedTuple):
    """The pool was asked to stop and no worker is left."""


class Keep(NamedTuple):
    """What operators have made of the pool: should it crash, its successor is to begin with it."""

    size: int
    max_overflow: int
    suspended: bool
    draining: bool


Effect = (
    Granted | UseLocal | Refused | Ended | Start | Open | Close | Check | Recall | Revoke | Stop | Kill
    | Emit | Answer | Ready | Fail | Stopped | Keep
)  # fmt: skip
