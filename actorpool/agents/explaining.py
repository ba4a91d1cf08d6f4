"""What a model should know of a call that failed: was it run, may it be tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actorpool.errors import (
    ActorPoolError,
    CallTimeout,
    CheckoutTimeout,
    CircuitOpen,
    InvalidConfig,
    LeaseExpired,
    MessageTooBig,
    MethodNotFound,
    PoolDown,
    PoolFull,
    PoolNotFound,
    PoolStopped,
    QueueShed,
    RemoteError,
    RemoteTraceback,
    SessionLost,
    SystemDown,
    TooManyWaiting,
    WorkerDied,
    WorkerUnavailable,
)

Failure = Callable[[Exception], Any] | type[Exception] | None
"""What becomes of our errors: None raises them, a callable makes the tool's value of one, a class is raised."""

_BUSY = (CheckoutTimeout, PoolFull, TooManyWaiting, QueueShed)
_AWAY = (CircuitOpen, WorkerUnavailable, PoolStopped, PoolDown, PoolNotFound, SystemDown)
_WRONG = (InvalidConfig, MessageTooBig, MethodNotFound)


def explain(error: BaseException) -> str:
    """One sentence for a model: whether the call was not run, or may have taken effect."""
    if isinstance(error, SessionLost):
        return (
            f"The call was not run: what this conversation had built up in the tool is gone ({error.reason}); "
            "call again to begin anew, and repeat first what the call depends on."
        )
    if isinstance(error, CallTimeout):
        return "The call took too long and was stopped; it may have taken effect, so check before you repeat it."
    if isinstance(error, WorkerDied) and error.started:
        return "The tool crashed during the call, which may have taken effect, so check before you repeat it."
    if isinstance(error, LeaseExpired):
        return "The call was interrupted; it may have taken effect, so check before you repeat it."
    if isinstance(error, _BUSY):
        return "The call was not run because the tool is busy; it may be tried again a little later."
    if isinstance(error, _WRONG):
        return f"The call was not run and would not be the next time either: {first_line(error)}."
    if isinstance(error, (*_AWAY, WorkerDied)):
        return "The call was not run because the tool is not available now; it may be tried again later."
    return f"The tool failed with {type(error).__name__}: {first_line(error)}."


def first_line(error: BaseException) -> str:
    """The beginning of an error's text."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no more is known"


def is_ours(error: BaseException) -> bool:
    """Whether it is about how the call was made, and not an exception of the tool's own code."""
    from_the_tool = isinstance(error.__cause__, RemoteTraceback) or isinstance(error, RemoteError)
    return isinstance(error, ActorPoolError) and (not from_the_tool or isinstance(error, MethodNotFound))


def named(error: Exception, tool: str) -> Exception:
    """An error of ours that speaks of the tool by its name."""
    if is_ours(error) and error.args:
        error.args = (str(error).replace("run_tool", tool), *error.args[1:])
    return error


def settle(failure: Any, error: Exception) -> Any:
    """Do with an error of ours what the user wants done; an exception of the tool's own code is raised unchanged."""
    if failure is None or not is_ours(error):
        raise error
    if isinstance(failure, type) and issubclass(failure, BaseException):
        raise failure(explain(error)) from error
    return failure(error)


def check_failure(failure: Any) -> str | None:
    """What is wrong with a `failure=`."""
    if failure is None or callable(failure):
        return None
    return f"must be None, a callable or an exception class, not {failure!r}"
