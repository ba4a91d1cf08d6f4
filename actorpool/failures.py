"""Exceptions as bytes: with their own type wherever possible, and the traceback of the process they come from."""

from __future__ import annotations

import traceback
from typing import Any

from actorpool import portable
from actorpool.errors import ActorPoolError, RemoteError, RemoteTraceback


def dump_error(error: BaseException, pool: str | None = None) -> bytes:
    """An exception as bytes, with its own type wherever it can be rebuilt, and the traceback of this process.

    What cannot be pickled becomes a `RemoteError` that names the type. Runs in workers, pools and the manager.

    Args:
        pool: for errors of ours that do not say yet which pool they speak of.
    """
    if pool is not None and isinstance(error, ActorPoolError) and error.pool is None:
        error.pool = pool
    text = "".join(traceback.format_exception(error)) if error.__traceback__ is not None else error_text(error)
    name, message = _name(error), _message(error)
    packed = _pack(error) or portable.dumps(RemoteError(f"{name}: {message}", type_name=name, pool=pool))
    return portable.dumps((packed, name, message, text))


def load_error(data: bytes | memoryview) -> BaseException:
    """The exception of `dump_error`, ready to be raised: its `remote_traceback` is set, and so is its cause."""
    packed, name, message, text = portable.loads(data)
    error = _unpack(packed)
    if error is None:
        error = RemoteError(f"{name}: {message}", type_name=name)
    if text:
        error.remote_traceback = text  # type: ignore[attr-defined]
        if error.__cause__ is None:
            error.__cause__ = RemoteTraceback(text)
    return error


def error_text(error: BaseException) -> str | None:
    """The remote traceback that an exception already carries from another process."""
    text = getattr(error, "remote_traceback", None)
    return text if isinstance(text, str) else None


def _pack(error: BaseException) -> bytes | None:
    """The first pickle of the exception that loads again; None when there is none."""
    for attempt in (_whole, _parts, _without_cause):
        try:
            data = portable.dumps(attempt(error))
        except Exception:  # a user's class may fail to pickle in any way
            continue
        if _unpack(data) is not None:
            return data
    return None


def _unpack(data: bytes | None) -> BaseException | None:
    try:
        error = None if data is None else portable.loads(data)
        if isinstance(error, tuple):
            error = _join(*error)
    except Exception:  # importing or rebuilding a user's class may fail in any way
        return None
    return error if isinstance(error, BaseException) else None


def _whole(error: BaseException) -> Any:
    return error


def _parts(error: BaseException) -> Any:
    """For the classes whose `__init__` does not take `args` back: their type, args and attributes."""
    return (type(error), error.args, vars(error))


def _without_cause(error: BaseException) -> Any:
    """Our own error around a cause that does not travel: the cause as a `RemoteError`."""
    if not isinstance(error, ActorPoolError) or error.cause is None:
        raise TypeError("no cause to leave out")
    cause = RemoteError(f"{_name(error.cause)}: {_message(error.cause)}", type_name=_name(error.cause))
    return (type(error), error.args, {**vars(error), "cause": cause})


def _join(cls: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    vars(error).update(attributes)
    if isinstance(error, ActorPoolError) and error.cause is not None:
        error.__cause__ = error.cause
    return error


def _name(error: BaseException) -> str:
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a user's __str__ may fail in any way
        return "(its text cannot be made)"
