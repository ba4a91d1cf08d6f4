"""Shared pools: what clients ask, and what such a pool and its workers say to each other.

Answers travel as `OpaqueResult`: only the client that asked opens them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar

from actorpool._dataclass import dataclass
from actorpool.config import check_connection, check_request
from actorpool.errors import InvalidConfig, RemoteError, UnknownConnection
from actorpool.messages import Err, Ok, Request
from actorpool.serialization import pickling
from actorpool.serialization.exceptions import load_error
from actorpool.serialization.pickling import Pickled


@dataclass(frozen=True)
class SharedRequest(Request):
    """Base of the requests to a shared pool; the manager passes them on by the pool's name."""

    pool: str

    user: ClassVar[tuple[str, ...]] = ()
    """Fields that hold what a user gave."""
    looked_at: ClassVar[tuple[str, ...]] = ("resource", "where", "extra", "value", "settings")
    """Those of them that the pool itself looks at."""

    def __post_init__(self) -> None:
        check_request(type(self).__name__, pool=self.pool)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: Pickled.of(value) if name in self.user else value for name, value in vars(self).items()}
        return (_thaw, (type(self), state))

    def unpack(self) -> None:
        """Rebuild, in place, what the pool has to look at; raises what that raises. Once for a request."""
        for name in self.looked_at:
            if name in self.user:
                object.__setattr__(self, name, self.opened(name))
        where, settings = getattr(self, "where", None), getattr(self, "settings", {})
        if not (where is None or isinstance(where, Mapping) or callable(where)):
            raise InvalidConfig("call", {"where": f"must be a mapping, a function of ConnInfo or None, not {where!r}"})
        if not isinstance(settings, Mapping) or not all(type(name) is str for name in settings):
            raise InvalidConfig("connection", {"settings": f"must be a dict of names, not {type(settings).__name__}"})

    def opened(self, name: str) -> Any:
        """A field that holds what a user gave; raises what rebuilding it raises."""
        value = getattr(self, name)
        return value.open() if isinstance(value, Pickled) else value


def _thaw(cls: type[SharedRequest], state: dict[str, Any]) -> SharedRequest:
    request = object.__new__(cls)
    request.__dict__.update(state)
    return request


@dataclass(frozen=True)
class AddConnection(SharedRequest):
    """Start a worker and open its connection; `Ok(id)` once that is done, within `timeout` seconds."""

    worker: Any
    worker_args: Mapping[str, Any] | Pickled = field(default_factory=dict, repr=False)
    resource: Any = None
    extra: Any = None
    ttl: float | None = None
    revive: bool | str = False
    timeout: float = 5.0
    penalties: Sequence[float] | None = None

    user: ClassVar[tuple[str, ...]] = ("worker", "worker_args", "resource", "extra")

    def __post_init__(self) -> None:
        check_request("AddConnection", pool=self.pool, timeout=self.timeout, penalties=self.penalties)
        check_connection(self.worker, self.worker_args)


@dataclass(frozen=True)
class SharedCall(SharedRequest):
    """Call a method on the connection to `resource` with the least expected wait; `Ok(result)`."""

    resource: Any
    method: str
    args: tuple[Any, ...] | Pickled = ()
    kwargs: Mapping[str, Any] | Pickled | None = None
    where: Any = None
    timeout: float | None = None

    user: ClassVar[tuple[str, ...]] = ("resource", "args", "kwargs", "where")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_call(self.method, self.where, self.timeout)

    @property
    def payload(self) -> bytes:
        """What the worker gets."""
        return pickling.dumps((self.method, Pickled.of(self.args), Pickled.of(self.kwargs)))


@dataclass(frozen=True)
class CallAll(SharedCall):
    """Call a method on every live connection to `resource`; `Ok({id: result or exception})`."""


@dataclass(frozen=True)
class CancelCall(Request):
    """The `SharedCall` of that `ref` is not waited for any more. Not answered."""

    pool: str = ""


@dataclass(frozen=True)
class ConnectionRequest(SharedRequest):
    """Base of the requests about one connection.

    Raises:
        UnknownConnection: the id is none that any connection can have.
    """

    id: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.id, int):
            text = f"shared pool {self.pool!r} has no connection {self.id!r}: ids are the numbers that add() returns"
            raise UnknownConnection(text, pool=self.pool)


@dataclass(frozen=True)
class GetConnection(ConnectionRequest):
    """`Ok(ConnInfo)` of a connection."""


@dataclass(frozen=True)
class SetExtra(ConnectionRequest):
    """Attach a value to a connection; `Ok(the value before)`."""

    value: Any = None

    user: ClassVar[tuple[str, ...]] = ("value",)


@dataclass(frozen=True)
class UpdateConnections(SharedRequest):
    """Change `extra`, `ttl` or `revive` of the matching connections; `Ok(how many)`."""

    resource: Any
    where: Any = None
    settings: Mapping[str, Any] | Pickled = field(default_factory=dict)

    user: ClassVar[tuple[str, ...]] = ("resource", "where", "settings")


@dataclass(frozen=True)
class PopConnection(ConnectionRequest):
    """Take a connection out; `Ok(ConnInfo)` once its queued calls are done."""


@dataclass(frozen=True)
class PopConnections(SharedRequest):
    """Take all matching connections out; `Ok([ConnInfo])` once their queued calls are done."""

    resource: Any
    where: Any = None

    user: ClassVar[tuple[str, ...]] = ("resource", "where")


@dataclass(frozen=True)
class IsEmpty(SharedRequest):
    """`Ok(whether no live connection to the resource exists)`."""

    resource: Any

    user: ClassVar[tuple[str, ...]] = ("resource",)


@dataclass(frozen=True)
class ListResources(SharedRequest):
    """`Ok([resource, ...])` of those that have a live connection."""


def check_call(method: Any, where: Any, timeout: Any) -> None:
    """Refuse what cannot be called.

    Raises:
        InvalidConfig: names every bad field.
    """
    problems = {}
    if not isinstance(method, str):
        problems["method"] = f"must be the name of a @method, not {method!r}"
    if not (where is None or isinstance(where, (Mapping, Pickled)) or callable(where)):
        problems["where"] = f"must be a mapping, a function of ConnInfo or None, not {where!r}"
    if problems:
        raise InvalidConfig("call", problems)
    check_request("call", call_timeout=timeout)


# -- between a pool and its workers, by the control connection or as messages -------------------------------------


@dataclass(frozen=True)
class Opened:
    """Worker → pool: connected, after `took` seconds; the worker's own `resource`, and its `@method`s in order."""

    worker_id: int
    took: float
    resource: Pickled
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Interrupt:
    """Pool → worker: the signal that came before this was for the call of that number. Not answered."""

    number: int


@dataclass(frozen=True)
class Returned:
    """Worker → pool: the loan of that number is over, called back or not.

    Attributes:
        done: what was called in it: method to number of calls, their mean in seconds, and how many raised.
        last_call: when the last one ended, monotonic seconds; None: there was none.
        cooldown, close: what the last one asked for.
    """

    worker_id: int
    number: int
    done: dict[str, tuple[int, float, int]]
    last_call: float | None
    cooldown: float
    close: bool


@dataclass(frozen=True)
class Perform:
    """Pool → worker, where there is no channel: what would be a `frames.PERFORM` frame of that ref."""

    number: int
    body: bytes


@dataclass(frozen=True)
class Told:
    """Worker → pool, where there is no channel: what would be a frame about the call of that number."""

    worker_id: int
    kind: int
    number: int
    body: bytes


# -- a worker's answer on its way to the caller -------------------------------------------------------------------


class OpaqueResult:
    """A value, or the exception in its place, not opened on the way: pickled, it arrives as what it holds."""

    __slots__ = ("data", "failed")

    def __init__(self, data: bytes | memoryview, failed: bool) -> None:
        self.data = data
        self.failed = failed

    def open(self) -> Any:
        """The value or the exception; one that cannot be rebuilt here is a `RemoteError`."""
        if self.failed:
            return load_error(self.data)
        try:
            return pickling.loads(self.data)
        except Exception as error:  # importing or rebuilding a user's class may fail in any way
            text = f"the result cannot be rebuilt in this process: {type(error).__name__}: {error}"
            return RemoteError(text, type_name=type(error).__name__, cause=error)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unsealed, (bytes(self.data), self.failed))


def _unsealed(data: bytes, failed: bool) -> Any:
    return OpaqueResult(data, failed).open()


class OpaqueReply:
    """The same as an answer to a request: pickled, it arrives as `Ok` or `Err`."""

    __slots__ = ("ref", "sealed")

    def __init__(self, sealed: OpaqueResult, ref: Any) -> None:
        self.sealed = sealed
        self.ref = ref

    def open(self) -> Ok | Err:
        """The answer, where it need not travel."""
        rebuild, parts = self.__reduce__()
        reply: Ok | Err = rebuild(*parts)
        return reply

    def __reduce__(self) -> tuple[Any, ...]:
        data = bytes(self.sealed.data)
        return (_err, (data, self.ref)) if self.sealed.failed else Ok(Pickled(data), self.ref).__reduce__()


def _err(data: bytes, ref: Any) -> Err:
    return Err(load_error(data), ref)
