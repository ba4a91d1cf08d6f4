"""Every message of the public protocol: frozen, picklable, numbered by `ref`.

A request carries its asker (`caller`, taken where the message is made) and a `ref` that its reply repeats. A field that
cannot be is refused there too, by `InvalidConfig`: before anything was sent.
User code inside a message travels as a `Pickled`: the manager and the pool pass it on unopened.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, NoReturn

from actorpool._dataclass import dataclass
from actorpool.config import PoolConfig, SharedPoolConfig, check_request
from actorpool.errors import InvalidConfig, RemoteError
from actorpool.process import Caller
from actorpool.serialization.exceptions import dump_error, load_error
from actorpool.serialization.pickling import Pickled

_numbers = itertools.count(1)


def new_ref() -> tuple[int, int]:
    """A reference that no other request of this host carries (process and running number)."""
    return (os.getpid(), next(_numbers))


class Message:
    """Base of all messages."""


@dataclass(frozen=True)
class Request(Message):
    """A message that is answered by `Ok` or `Err` with the same `ref`."""

    ref: Any = field(default_factory=new_ref, kw_only=True)
    caller: Caller = field(default_factory=Caller.here, kw_only=True)


@dataclass(frozen=True)
class Ok(Message):
    """The answer to a request that succeeded."""

    value: Any = None
    ref: Any = None

    def unwrap(self) -> Any:
        """The value."""
        return self.value

    def __reduce__(self) -> tuple[Any, ...]:
        return (_ok, (Pickled.of(self.value), self.ref))


@dataclass(frozen=True)
class Err(Message):
    """The answer to a request that failed."""

    error: BaseException
    ref: Any = None

    def unwrap(self) -> NoReturn:
        """Raise the error."""
        raise self.error

    def __reduce__(self) -> tuple[Any, ...]:
        # Not as it is: an exception that does not load again would take the whole answer with it.
        return (_err, (dump_error(self.error), self.ref))


def _err(data: bytes, ref: Any) -> Err:
    return Err(load_error(data), ref)


def _ok(parcel: Pickled, ref: Any) -> Message:
    """Open a result where it arrives; one that cannot be rebuilt there is an error of that call only."""
    try:
        return Ok(parcel.open(), ref)
    except Exception as error:
        text = f"the result cannot be rebuilt in this process: {type(error).__name__}: {error}"
        return Err(RemoteError(text, type_name=type(error).__name__, cause=error), ref)


@dataclass(frozen=True)
class StartPool(Request):
    """Start a pool; `Ok(address of the pool)` once all `size` workers are started (a shared one has none yet)."""

    name: str
    config: PoolConfig | SharedPoolConfig


@dataclass(frozen=True)
class StopPool(Request):
    """Stop a pool; running calls may finish within `timeout` seconds."""

    name: str
    timeout: float = 5.0

    def __post_init__(self) -> None:
        check_request("StopPool", name=self.name, timeout=self.timeout)


@dataclass(frozen=True)
class ListPools(Request):
    """The names of all pools, sorted."""


@dataclass(frozen=True)
class GetPoolStatus(Request):
    """A pool's `PoolStatus`; answered also while the pool is saturated."""

    name: str

    def __post_init__(self) -> None:
        check_request("GetPoolStatus", name=self.name)


@dataclass(frozen=True)
class WithConnection(Request):
    """Run `fn(connection, *args, **kwargs)` in a worker; `timeout` bounds the checkout only."""

    pool: str
    fn: Callable[..., Any] | Pickled
    args: tuple[Any, ...] | Pickled = ()
    kwargs: Mapping[str, Any] | Pickled | None = None
    timeout: float = 5.0

    def __post_init__(self) -> None:
        check_request("WithConnection", pool=self.pool, timeout=self.timeout)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_with_connection, (self.pool, *_packed(self), self.timeout, self.ref, self.caller))


@dataclass(frozen=True)
class Checkout(Request):
    """Lease a worker; `Ok(Grant)`. With `block=False` a full pool answers `PoolFull` at once."""

    pool: str
    block: bool = True
    timeout: float = 5.0

    def __post_init__(self) -> None:
        check_request("Checkout", pool=self.pool, timeout=self.timeout)


@dataclass(frozen=True)
class Grant(Message):
    """A lease: `lease` is its number, `worker` the worker's address; hand it back with `Checkin`.

    `turn`: it is a turn in a sandbox of `actorpool.testing`. `asker`: the address that got it, and is told of a worker
    that died. `seal`: what proves to the worker that its pool has granted this lease of it. `keyed`, `fresh`, `lost`:
    it has a key; its worker holds nothing of that key; why what there was is gone, if known.
    """

    lease: int
    pool: str
    worker: Any
    worker_id: int = 0
    worker_pid: int | None = None
    pool_address: Any = None
    turn: bool = False
    asker: Any = None
    seal: int = 0
    keyed: bool = False
    fresh: bool = True
    lost: str | None = None


@dataclass(frozen=True)
class Checkin(Message):
    """Give a lease back. Not answered."""

    grant: Grant

    def __post_init__(self) -> None:
        _check_grant("Checkin", self.grant)


@dataclass(frozen=True)
class Call(Request):
    """To the worker of a grant: call a `@method`. With `grant=None`: a worker embedded without a pool."""

    grant: Grant | None
    method: str | Callable[..., Any] | Pickled
    args: tuple[Any, ...] | Pickled = ()
    kwargs: Mapping[str, Any] | Pickled | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.grant is not None:
            _check_grant("Call", self.grant)
        if self.timeout is not None:
            check_request("Call", timeout=self.timeout)

    def __reduce__(self) -> tuple[Any, ...]:
        method = self.method if isinstance(self.method, str) else Pickled.of(self.method)
        packed = (method, Pickled.of(tuple(self.args) if not isinstance(self.args, Pickled) else self.args))
        return (_call, (self.grant, *packed, Pickled.of(self.kwargs), self.timeout, self.ref, self.caller))


def _check_grant(what: str, grant: Any) -> None:
    """Raise `InvalidConfig` for what is no `Grant`."""
    if not isinstance(grant, Grant):
        raise InvalidConfig(what, {"grant": f"must be the Grant of a Checkout, not {type(grant).__name__}"})


def _packed(message: WithConnection) -> tuple[Pickled, Pickled, Pickled]:
    args = message.args if isinstance(message.args, Pickled) else tuple(message.args)
    return Pickled.of(message.fn), Pickled.of(args), Pickled.of(message.kwargs)


def _with_connection(pool: str, fn: Any, args: Any, kwargs: Any, timeout: float, ref: Any, caller: Any) -> Any:
    return WithConnection(pool, fn, args, kwargs, timeout, ref=ref, caller=caller)


def _call(grant: Any, method: Any, args: Any, kwargs: Any, timeout: Any, ref: Any, caller: Any) -> Any:
    return Call(grant, method, args, kwargs, timeout, ref=ref, caller=caller)


@dataclass(frozen=True)
class Subscribe(Request):
    """Ask the manager for every event with a name that matches the glob `pattern`, sent as `Event` messages."""

    pattern: str = "*"

    def __post_init__(self) -> None:
        check_request("Subscribe", pattern=self.pattern)


@dataclass(frozen=True)
class Event(Message):
    """Something that happened: a `name` of `actorpool.telemetry.events`, a Unix time, figures and circumstances.

    `number`: its place in the history that the manager keeps (see `System.events`); 0 elsewhere.
    """

    name: str
    pool: str | None
    time: float
    measurements: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True)
class Down(Message):
    """A monitored process is gone. Sent exactly once for each monitor."""

    ref: Any
    pid: int
    reason: str


@dataclass(frozen=True)
class StartChild(Request):
    """Add and start a child: a `ChildSpec`, or for `simple_one_for_one` a dict of extra `args`."""

    spec: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        spec = Pickled.of(dict(self.spec)) if isinstance(self.spec, Mapping) else self.spec
        return (_start_child, (spec, self.ref, self.caller))


def _start_child(spec: Any, ref: Any, caller: Any) -> Any:
    return StartChild(spec, ref=ref, caller=caller)


@dataclass(frozen=True)
class TerminateChild(Request):
    """Stop a child; its spec is kept (a temporary one's is not)."""

    id: Any


@dataclass(frozen=True)
class RestartChild(Request):
    """Start a child that was terminated or has ended."""

    id: Any


@dataclass(frozen=True)
class DeleteChild(Request):
    """Forget the spec of a child that does not run."""

    id: Any


@dataclass(frozen=True)
class WhichChildren(Request):
    """All children as `ChildInfo`, latest started first."""


@dataclass(frozen=True)
class CountChildren(Request):
    """`Counts(specs, active, supervisors, workers)`."""


@dataclass(frozen=True)
class GetChildSpec(Request):
    """The `ChildSpec` of a child, by id or address."""

    id: Any


@dataclass(frozen=True)
class WhereIs(Request):
    """The present address of a child; `Err(not_found)` for an unknown id."""

    id: Any
