"""Client → pool and manager → pool: requests, answered by the value or an error, by `ASK` or as Thespian messages."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from actorpool._dataclass import dataclass
from actorpool.config import check_request
from actorpool.messages import Checkout, Event, Request
from actorpool.status import TreeNode

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
class Sessions(Request):
    """`list[SessionInfo]`."""


@dataclass(frozen=True)
class EndSession(Request):
    """End what a worker holds of a key; whether there was anything."""

    key: Hashable

    def __post_init__(self) -> None:
        check_request("end_session", key=self.key)


@dataclass(frozen=True)
class Metrics(Request):
    """`PoolMetrics`."""


@dataclass(frozen=True)
class Histograms(Request):
    """How long callers of a pool waited and held since it began: `(waits, holds)`, each a `Histogram`."""


@dataclass(frozen=True)
class GetSettings(Request):
    """With what a pool was started, by dotted names, as text without secrets: `dict[str, str]`."""


@dataclass(frozen=True)
class Dropped(Request):
    """To a pool or the manager: how many events each of its sinks has not taken, by the sink's name: `dict[str, int]`.

    A sink drops what it cannot send at once, so that it never blocks; `"subscribers"` stands for all actors that
    subscribed.
    """


@dataclass(frozen=True)
class Histogram:
    """How long something took, each time, uses of sticky leases included.

    Attributes:
        bounds: upper bounds of the buckets in seconds, each included.
        counts: how many there are in each bucket alone; the last one has what is longer than every bound.
        sum: seconds of all together.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True)
class Resize(Request):
    """Change `size` and `max_overflow` (None: as it is)."""

    size: int | None = None
    max_overflow: int | None = None

    def __post_init__(self) -> None:
        check_request("resize", size=self.size, max_overflow=self.max_overflow)


@dataclass(frozen=True)
class Suspend(Request):
    """Grant no lease until `Resume`."""


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


@dataclass(frozen=True)
class GetStack(Request):
    """The Python stack of a worker at this moment: text."""

    worker_id: int = 0


@dataclass(frozen=True)
class GetOutline(Request):
    """Manager → a pool or a supervisor, for the tree: its `Outline`."""


@dataclass(frozen=True)
class Outline:
    """What a pool or a supervisor tells of itself and of those below it: each a node, with the address to ask.

    The other fields are those of its own `TreeNode`.
    """

    below: tuple[tuple[TreeNode, Any], ...]
    strategy: str | None = None
    restarts_used: int | None = None
    restarts_limit: int | None = None
    restarts_period: float | None = None
    last_end: str | None = None
    output: str = ""


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
class CheckoutKeyed(Checkout):
    """Client → pool: a checkout that names the key of the state it wants, by message."""

    key: Hashable = None


@dataclass(frozen=True)
class Abandon(Request):
    """Client → pool: a call of this lease timed out. Not answered."""

    pool: str = ""
    lease: int = 0


@dataclass(frozen=True)
class Retire(Request):
    """Manager → pool: stop for good; running calls may finish within `timeout` seconds. Answered when all are gone."""

    timeout: float = 5.0


@dataclass(frozen=True)
class Listen(Request):
    """Manager → pool: from now on these are all the (pattern, address) pairs of the subscribers."""

    subscriptions: tuple[tuple[str, Any], ...] = ()
