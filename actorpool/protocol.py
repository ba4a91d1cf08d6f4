"""Messages between our own parts: pool and worker (control connection or Thespian), client and pool (`ASK`).

Not public; those from and to the manager are in `governing`. Each is handled the same whichever way it came.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from actorpool.config import check_request
from actorpool.messages import Event, Request
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
        observed: somebody listens to `call.done`: tell every call by `Called`.
        slot: where the worker counts its uses (`transport.tally`); None: no lease of it can stand.
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
    """The lease was checked in by message: reset. Not answered."""

    lease: int


@dataclass(frozen=True)
class Recall:
    """Leave the caller with whom the standing lease stays; answered by `Recalled` (after `Lost`, if need be).

    `first`: fewer uses than that have begun in all: the lease's first use is still to come, and is let in.
    """

    lease: int
    first: int


@dataclass(frozen=True)
class Revoke:
    """The lease is taken back: reset, raise the fence; answered by `Revoked` (or `Lost`)."""

    lease: int


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


# -- worker → pool ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The worker's `__init__` has run; it is ready to open. `counts`: it counts its uses in its slot."""

    worker_id: int
    pid: int
    counts: bool = False


@dataclass(frozen=True)
class StartFailed:
    """The worker's `__init__` (or its import) raised; `error` as `frames.dump_error` packs it."""

    worker_id: int
    error: Pickled


@dataclass(frozen=True)
class Opened:
    """Connected."""

    worker_id: int
    took: float


@dataclass(frozen=True)
class Reopened:
    """Connected again after `Close`, to answer a call."""

    worker_id: int


@dataclass(frozen=True)
class OpenFailed:
    """`open` raised; `permanent`: a `PermanentError`; `retry_after` as the worker asked, else None."""

    worker_id: int
    error: Pickled
    permanent: bool
    retry_after: float | None


@dataclass(frozen=True)
class Checked:
    """The connection is healthy."""

    worker_id: int


@dataclass(frozen=True)
class Lost:
    """The connection is gone (a check, a reset or a call said so); the process is fine and waits for `Open`."""

    worker_id: int
    error: Pickled


@dataclass(frozen=True)
class Recalled:
    """The worker is back from its caller, and pristine."""

    worker_id: int
    lease: int


@dataclass(frozen=True)
class Revoked:
    """The lease is over and the worker is pristine."""

    worker_id: int
    lease: int


@dataclass(frozen=True)
class Running:
    """A `RunFor` is here and waits for `Begin`, or a `Call` begins; `asker`, `ref`: of the `Call`."""

    worker_id: int
    lease: int
    asker: Any = None
    ref: Any = None


@dataclass(frozen=True)
class Answered:
    """The reply to a `RunFor` or a `Call`, pickled.

    It goes by the pool, which also answers for a worker that dies: each request gets one reply, whatever happens.
    """

    worker_id: int
    lease: int
    ref: Any
    reply: bytes


@dataclass(frozen=True)
class Ran:
    """A `RunFor` is done; the worker is pristine."""

    worker_id: int
    lease: int


@dataclass(frozen=True)
class NotRun:
    """A `RunFor` was not started, for want of a connection: another worker may take it. `Lost` follows."""

    worker_id: int
    lease: int


@dataclass(frozen=True)
class Called:
    """A call is done, after `seconds`; `failed`: it raised."""

    worker_id: int
    lease: int
    seconds: float
    failed: bool


@dataclass(frozen=True)
class Gathered:
    """The answer to `Gather`: the value or the exception."""

    worker_id: int
    ref: Any
    value: Pickled


# -- client → pool, by ASK or as Thespian messages; answered by the value or an error -------------------------


@dataclass(frozen=True)
class Facts(Request):
    """What a handle has to know of its pool's settings: `HandleFacts`."""


@dataclass(frozen=True)
class HandleFacts:
    """The settings a handle goes by. `stacks`: leases are watched for leaks, so a checkout tells where it was made."""

    checkout_timeout: float = 5.0
    call_timeout: float | None = None
    stacks: bool = False


@dataclass(frozen=True)
class Status(Request):
    """`PoolStatus`."""


@dataclass(frozen=True)
class Workers(Request):
    """`list[WorkerInfo]`."""


@dataclass(frozen=True)
class Leases(Request):
    """`list[LeaseInfo]`."""


@dataclass(frozen=True)
class Metrics(Request):
    """`PoolMetrics`."""


@dataclass(frozen=True)
class Resize(Request):
    """Change `size` and `max_overflow` (None: as it is)."""

    size: int | None = None
    max_overflow: int | None = None

    def __post_init__(self) -> None:
        check_request("resize", size=self.size, max_overflow=self.max_overflow)


@dataclass(frozen=True)
class Suspend(Request):
    """Serve nobody new until `Resume`."""


@dataclass(frozen=True)
class Resume(Request):
    """End a suspension or a drain."""


@dataclass(frozen=True)
class Drain(Request):
    """Suspend, and answer when every lease is back; at the deadline interrupt what still runs."""

    timeout: float = 5.0

    def __post_init__(self) -> None:
        check_request("drain", timeout=self.timeout)


@dataclass(frozen=True)
class Recycle(Request):
    """Replace every connection (or process, with `restart`), one at a time; answered when done."""

    timeout: float | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        if self.timeout is not None:
            check_request("recycle", timeout=self.timeout)


@dataclass(frozen=True)
class ClearCache(Request):
    """Have every worker clear its cache before its next call."""


@dataclass(frozen=True)
class GatherStats(Request):
    """`dict[worker id, parcel of stats()]` of all workers that answer within `timeout` seconds."""

    timeout: float = 1.0


# -- pool or manager → subscriber ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Events:
    """What happened in a moment, in order. The transport of a node hands each on as the `Event` that it is."""

    events: tuple[Event, ...]


# -- the message way of a client --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cancel(Request):
    """Client → pool: the `Checkout` of that `ref` is not waited for any more. Not answered."""

    pool: str = ""


@dataclass(frozen=True)
class Abandon(Request):
    """Client → pool: a call of this lease timed out. Not answered."""

    pool: str = ""
    lease: int = 0
