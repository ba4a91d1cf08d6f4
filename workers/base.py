"""What a user writes: a `Worker` with its hooks and `@method`s. Knows nothing of actors or pools."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from actorpool._dataclass import dataclass
from actorpool.errors import ActorPoolError, InvalidConfig, MethodNotFound, PermanentError

__all__ = ["PermanentError", "Reply", "RetryAfter", "Worker", "method", "methods_of"]

F = TypeVar("F", bound=Callable[..., Any])

_places = itertools.count(1)


def method(function: F) -> F:
    """Mark a method of a worker as callable from outside by `call` and as an attribute of a pool or lease."""
    function.__actorpool_method__ = next(_places)  # type: ignore[attr-defined]
    return function


def methods_of(worker: type) -> tuple[str, ...]:
    """The names of a worker class's `@method`s, in order of definition, base classes first."""
    names: dict[str, None] = {}
    for cls in reversed(worker.__mro__):
        places = {name: getattr(value, "__actorpool_method__", 0) for name, value in vars(cls).items()}
        for name in sorted(places, key=places.__getitem__):  # a class that came as a pickle lists its names by alphabet
            if places[name]:
                names[name] = None
            else:
                names.pop(name, None)
    return tuple(names)


@dataclass(frozen=True)
class Reply:
    """What a method of a *shared* worker may return to ask for a pause or for its end.

    Attributes:
        value: the result for the caller.
        cooldown: seconds during which this connection takes no further call.
        close: the connection is done and is to be closed.
    """

    value: Any = None
    cooldown: float = 0.0
    close: bool = False


class RetryAfter(ActorPoolError):
    """Raised by `open`: not now, try again after `seconds`."""

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message or f"retry after {seconds} s", seconds=seconds)

    seconds: float

    def __reduce__(self) -> tuple[Any, ...]:
        return (RetryAfter, (self.seconds, str(self)))


class Worker:
    """One stateful, crash-prone thing (a session, a client) hosted by a worker process.

    Every hook runs in the worker's own process, one at a time, never beside a call. Hooks block this worker only.
    """

    resource: Hashable = None
    """The key under which a shared pool finds this worker's connection."""

    def __init__(self, **worker_args: Any) -> None:
        """Keep the arguments; no I/O. Raising fails the pool's start."""
        for name, value in worker_args.items():
            setattr(self, name, value)

    def open(self) -> None:
        """Connect. Raising means "not now" and is retried with backoff; `PermanentError` means never."""

    def check(self) -> None:
        """Raise if the connection is unhealthy; it is then closed and opened anew."""

    def needs_check(self) -> bool:
        """Whether `check` is to run before the next lease's first call; asked each time, so it must cost nothing."""
        return False

    def reset(self) -> None:
        """Back to pristine between two leases; if it raises, the connection is closed and opened anew."""

    def close(self) -> None:
        """Disconnect. Called once before the process ends and before each reconnect; must not raise."""

    @property
    def connection(self) -> Any:
        """What `fn` gets in `run(fn)`."""
        return self

    def find_method(self, name: str) -> Callable[..., Any] | None:
        """What to call for a name that no `@method` has; None: there is no such method (`MethodNotFound`)."""
        if name in ("transact", "begin_block"):  # what the two forms of `transaction` call
            raise MethodNotFound(f"{type(self).__name__} knows no transactions: transaction() is for SQL workers")
        return None

    def is_disconnect(self, error: BaseException) -> bool:
        """Whether `error`, raised by a call, means that the connection is gone (it is then opened anew).

        By default: a `ConnectionError`; but `BrokenPipeError` and `EOFError`, which may as well be about a pipe or a
        file of the caller's, only if `check` then raises.
        """
        if isinstance(error, (BrokenPipeError, EOFError)):
            return self._fails_its_check()
        return isinstance(error, ConnectionError)

    def _fails_its_check(self) -> bool:
        try:
            self.check()
        except Exception:
            return True
        return False

    @classmethod
    def sizes_itself(cls) -> bool:
        """Whether this class can be asked for a size: it has an `auto_size` of its own."""
        return cls.auto_size.__func__ is not Worker.auto_size.__func__  # type: ignore[attr-defined]

    @classmethod
    def auto_size(cls, **worker_args: Any) -> int:
        """The pool size for `size="auto"`; called in the pool's process before the first worker starts."""
        raise PermanentError(f'{cls.__name__} cannot tell a size: give size=N instead of size="auto"')


def pool_size(max_connections: int = 100, reserved_connections: int = 20, nodes: int = 1) -> int:
    """The share of one node: `max((max_connections - reserved_connections) // nodes, 1)`.

    Args:
        max_connections: what the server accepts in all.
        reserved_connections: kept free for administrators and other programs.
        nodes: how many nodes share the server, each with a pool of this size.

    Raises:
        InvalidConfig: a figure is no whole number, is negative, or `nodes` is below 1.
    """
    given = {"max_connections": max_connections, "reserved_connections": reserved_connections, "nodes": nodes}
    least = {"max_connections": 0, "reserved_connections": 0, "nodes": 1}
    problems = {
        name: f"must be a whole number of at least {least[name]}, not {value!r}"
        for name, value in given.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < least[name]
    }
    if problems:
        raise InvalidConfig("pool_size", problems)
    return max((max_connections - reserved_connections) // nodes, 1)
