"""What travels between hosts: calls that no agent opens, and answers that say whether anything was run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actorpool.errors import (
    CheckoutTimeout,
    CircuitOpen,
    PoolDown,
    PoolFull,
    PoolNotFound,
    PoolStopped,
    QueueShed,
    SystemDown,
    TooManyWaiting,
    WorkerDied,
    WorkerUnavailable,
)
from actorpool.serialization import functions, pickling, tracing

VALUE, RAISED, REFUSED, STRANGER = "value", "raised", "refused", "stranger"
"""Kinds of an agent's answer: a result; an exception; an exception, and nothing was run; introduce yourself first."""

DOWN = (PoolStopped, PoolDown, PoolNotFound, SystemDown)
"""A pool that does not serve on that host, now; another host may."""
_REFUSALS = (*DOWN, CheckoutTimeout, PoolFull, TooManyWaiting, QueueShed, CircuitOpen, WorkerUnavailable)


def is_refusal(error: BaseException) -> bool:
    """Whether a pool says with it that it ran nothing. The same error out of a caller's function is none."""
    unread = isinstance(error, WorkerDied) and not error.started
    return (unread or isinstance(error, _REFUSALS)) and getattr(error, "remote_traceback", None) is None


class Through:
    """A pickled value for the host after the next: the agent passes it on unopened, and the worker gets the value."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return (pickling.PrePickled, (self.data,))


class FarCall:
    """One use of a verb that runs something in a worker: the same call for this host's pool and for another's.

    Args:
        verb: `run`, `call` or `transaction`.
        what: a function, or a method's name for `call`.
        args, kwargs: of it.
        options: keywords of the verb itself.
    """

    def __init__(
        self, verb: str, what: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> None:
        self.verb = verb
        self.what = what
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self._packed: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        """How to name it in an error."""
        return self.what if isinstance(self.what, str) else getattr(self.what, "__qualname__", repr(self.what))

    def here(self, limits: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the verb of a pool of this host."""
        return (self.what, *self.args), {**self.kwargs, **self.options, **limits}

    def far(self, limits: Mapping[str, Any]) -> bytes:
        """Arguments of the verb of a pool of another host, as bytes; what the caller gave is pickled once.

        Raises:
            TypeError: `what` is an `async def`.
            Exception: whatever the arguments raise that cannot be pickled.
        """
        if self._packed is None:
            self._packed = self._pack()
        args, kwargs = self._packed
        return pickling.dumps((args, {**kwargs, **self.options, **limits}))

    def _pack(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        functions.check_plain(self.what)
        span = tracing.carried({})
        try:
            if self.verb == "call":
                args = tuple(Through(pickling.dumps(value)) for value in self.args)
                named = {key: Through(pickling.dumps(value)) for key, value in self.kwargs.items()}
                return (self.what, *args), {**named, **span}
            return (apply, Through(pickling.dumps_call(self.what, self.args, dict(self.kwargs)))), dict(span)
        except Exception as problem:
            text = f"{self.name} or what it is given cannot be sent to a worker: pass plain values"
            raise pickling.unsendable(problem, text) from None


def apply(connection: Any, call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> Through:
    """Run a far caller's function. Runs in the worker."""
    fn, args, kwargs = call
    value = fn(connection, *args, **kwargs)
    try:
        return Through(pickling.dumps(value))
    except Exception as problem:
        raise pickling.unsendable(problem, f"{pickling.UNSENDABLE_RESULT}") from None
