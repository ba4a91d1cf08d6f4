"""Every error of the package, in one tree under `ActorPoolError`; imports nothing of ours.

All of them pickle: they cross processes with their facts (`pool`, `waited`, `status`, ...) and,
as `cause`, the error behind them. Texts say what happened, the numbers, and what to change.
"""

from __future__ import annotations

from typing import Any


class ActorPoolError(Exception):
    """Root of all errors of actorpool.

    Args:
        message: the whole text, ready for a person.
        **facts: become attributes; `pool` (name), `waited` (seconds), `status` (`PoolStatus`)
            and `cause` (the exception behind this one) are the usual ones.
    """

    pool: str | None = None
    waited: float | None = None
    status: Any = None
    cause: BaseException | None = None
    remote_traceback: str | None = None

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)
        if self.cause is not None:
            self.__cause__ = self.cause

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


def _rebuild(cls: type[ActorPoolError], args: tuple[Any, ...], facts: dict[str, Any]) -> ActorPoolError:
    error = cls.__new__(cls, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(facts)
    if error.cause is not None:
        error.__cause__ = error.cause
    return error


class InvalidConfig(ActorPoolError, ValueError):
    """Settings were refused before anything started; `problems` names every bad field."""

    problems: dict[str, str]

    def __init__(self, what: str, problems: dict[str, str]) -> None:
        lines = "".join(f"\n  {field}: {text}" for field, text in problems.items())
        super().__init__(f"{what}: {len(problems)} problem(s){lines}", problems=dict(problems))


class PoolNotFound(ActorPoolError, LookupError):
    """No pool of that name is registered (never started, or stopped)."""


class PoolAlreadyExists(ActorPoolError):
    """A pool of that name is running; the running one was not touched."""


class PoolStopped(ActorPoolError):
    """The pool was stopped while the caller waited."""


class PoolDown(ActorPoolError):
    """The pool exists but does not serve now (it is being restarted, or it gave up)."""


class CheckoutTimeout(ActorPoolError, TimeoutError):
    """No worker became free within the checkout timeout."""


class PoolFull(ActorPoolError):
    """A checkout that must not wait found every worker out."""


class TooManyWaiting(ActorPoolError):
    """The waiting queue is at `max_waiting`; the caller was refused at once."""


class QueueShed(ActorPoolError):
    """CoDel dropped this waiter: the queue has been slower than its target for a whole interval."""


class CircuitOpen(ActorPoolError):
    """The circuit breaker is open after repeated connection failures; nothing was tried."""


class WorkerUnavailable(ActorPoolError):
    """No worker can connect to its resource; `cause` says why."""


class CallTimeout(ActorPoolError, TimeoutError):
    """The call ran longer than its timeout and was interrupted; in a shared pool it may not even have begun."""

    started: bool = True


class WorkerDied(ActorPoolError):
    """The worker's process died during the call, which may or may not have taken effect.

    `started` is False where that is known: the process had died before, and there was no time left for another one.
    """

    started: bool = True


class LeaseExpired(ActorPoolError):
    """The lease has ended: checked in, taken back, or its worker was replaced."""


class SessionLost(ActorPoolError):
    """What a worker held for a key is gone; the next call begins anew. `reason`: "died", "evicted", "expired", ..."""

    key: Any = None
    reason: str = ""


class MethodNotFound(ActorPoolError, AttributeError):
    """The worker has no method of that name that is marked with `@method`."""

    reason = "method"


class RemoteError(ActorPoolError):
    """An exception of user code that cannot be pickled; `type_name` is its class."""

    type_name: str = ""


class PermanentError(ActorPoolError):
    """Raised by a worker's `open`: retrying is useless (wrong password, missing driver)."""


class MessageTooBig(ActorPoolError, ValueError):
    """The arguments or the result of one call are beyond `max_message`; the lease and the worker are fine."""


class AuthenticationFailed(ActorPoolError):
    """The cookie is not the node's."""


class SystemDown(ActorPoolError):
    """The node behind this handle has ended."""


class RestartIntensityExceeded(ActorPoolError):
    """More restarts than `max_restarts` within the period: the supervisor gave up."""


class SupervisorError(ActorPoolError):
    """A supervisor could not or would not do it.

    Args:
        reason: OTP's word (`"not_found"`, `"running"`, ...), or a tuple that begins with it.
        message: the text for a person; without one, the reason itself.
        **facts: as for every error; `cause` is the exception that a child's start failed with.
    """

    reason: Any = None

    def __init__(self, reason: Any, message: str = "", **facts: Any) -> None:
        super().__init__(message or str(reason), reason=reason, **facts)


class NoResource(ActorPoolError, LookupError):
    """A shared pool has no live connection to the resource."""

    reason = "resource"


class NoMatch(ActorPoolError, LookupError):
    """A shared pool has the resource and the method, but `where` rejected every connection."""

    reason = "filter"


class UnknownConnection(ActorPoolError, LookupError):
    """A shared pool has no connection of that id."""


class RemoteTraceback(Exception):
    """Carries the traceback of the worker's process, shown as the cause of a user's exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"
