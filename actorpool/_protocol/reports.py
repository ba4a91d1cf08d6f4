"""Worker → pool: what became of orders and calls, on the control connection or as Thespian messages."""

from __future__ import annotations

from typing import Any

from actorpool._dataclass import dataclass
from actorpool.serialization.pickling import Pickled

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
