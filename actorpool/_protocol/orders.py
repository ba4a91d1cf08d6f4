"""Pool → worker: what a worker is told to do, on its control connection or as Thespian messages."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from actorpool._dataclass import dataclass
from actorpool.limits import Limits
from actorpool.serialization.pickling import Pickled

# -- pool → worker ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Init:
    """First message to a worker actor; answered by `Started` or `StartFailed`.

    Attributes:
        pool: the pool's name; None for a worker that belongs to no pool.
        check_on_checkout: seconds of idleness after which the connection is checked before a call; None is never.
        directory: where to open the worker's socket; None: messages only.
        spin: seconds to look again before blocking on the channel.
        max_message: bytes a frame may have.
        observed: `call.done` has a listener: tell every call by `Called`.
        slot: where the worker counts its uses (`transport.usage_counters`); None: its leases cannot be sticky.
        limits: what the process may use; not where it hosts others too.
        key: under which the pool seals the leases of this worker (`transport.seals`).
    """

    pool: str | None
    worker_id: int
    worker: Pickled
    worker_args: Pickled
    check_on_checkout: float | None
    directory: str | None
    parent: Any
    spin: float = 0.0
    max_message: int = 2**30
    observed: bool = False
    slot: int | None = None
    key: bytes | None = field(default=None, repr=False)
    limits: Limits | None = None


@dataclass(frozen=True)
class Open:
    """Connect (close first what is open); answered by `Opened` or `OpenFailed`."""


@dataclass(frozen=True)
class Check:
    """Check the idle connection; answered by `Checked` or `Lost`."""


@dataclass(frozen=True)
class Close:
    """Disconnect; the next call connects again. Not answered."""


@dataclass(frozen=True)
class End:
    """The lease was checked in by message: reset (not if `keep`), raise the fence. Not answered."""

    lease: int
    keep: bool = False


@dataclass(frozen=True)
class Recall:
    """End the sticky lease; answered by `Recalled` (after `Lost`, if need be). Or the loan; answered by `Returned`.

    `first`: fewer uses than that have begun in all: the lease's first use is still to come, and is let in.
    """

    lease: int
    first: int = 0


@dataclass(frozen=True)
class Revoke:
    """The lease is taken back: reset (not if `keep`), raise the fence; answered by `Revoked` (or `Lost`)."""

    lease: int
    keep: bool = False


@dataclass(frozen=True)
class RunFor:
    """Run a call of the message way: `Answered` to the pool, and `Ran` once the worker is pristine."""

    lease: int
    ref: Any
    fn: Pickled
    args: Pickled
    kwargs: Pickled
    check_first: bool
    turn: bool = False


@dataclass(frozen=True)
class Begin:
    """Run the `RunFor` of this lease: the pool knows of it now, so it will never be run a second time."""

    lease: int


@dataclass(frozen=True)
class Broadcast:
    """Call a method for its effect, between two calls (`clear_cache`); not answered."""

    method: str


@dataclass(frozen=True)
class Observe:
    """Tell every call by `Called` from now on, or no longer. Not answered."""

    on: bool = True


@dataclass(frozen=True)
class Gather:
    """Call a method and answer `Gathered` (`stats`)."""

    ref: Any
    method: str
