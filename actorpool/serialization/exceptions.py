"""Exceptions as bytes: with their own type wherever possible, and the traceback of the process they come from."""

from __future__ import annotations

import traceback
from typing import Any

from actorpool.errors import ActorPoolError, RemoteError, RemoteTraceback
from actorpool.serialization import pickling


def dump_error(error: BaseException, pool: str | None = None) -> bytes:
    """An exception as bytes, with its own type wherever it can be rebuilt, and the traceback of this process.

    What cannot be pickled becomes a `RemoteError` that names the type. Runs in workers, pools and the manager.

    Args:
        pool: for errors of ours that do not say yet which pool they speak of.
    """
    if isinstance(error, OpaqueError):
        packed, name, message, text, known = pickling.loads(error.data)
        return pickling.dumps((packed, name, message, text, known or pool))
    text = "".join(traceback.format_exception(error)) if error.__traceback__ is not None else error_text(error)
    name, message = _name(error), message_of(error)
    packed = _pack(error) or pickling.dumps(RemoteError(f"{name}: {message}", type_name=name, pool=pool))
    return pickling.dumps((packed, name, message, text, pool))


def load_error(data: bytes | memoryview) -> BaseException:
    """The exception of `dump_error`, ready to be raised: its `remote_traceback` is set, and so is its cause."""
    packed, name, message, text, pool = pickling.loads(data)
    error = _unpack(packed)
    if error is None:
        error = RemoteError(f"{name}: {message}", type_name=name)
    if isinstance(error, ActorPoolError) and error.pool is None:
        error.pool = pool
    if text:
        error.remote_traceback = text  # type: ignore[attr-defined]
        if error.__cause__ is None:
            error.__cause__ = RemoteTraceback(text)
    return error


class OpaqueError(Exception):
    """An exception of another process, passed on as it came: it is opened where it is caught, and nowhere on the way.

    So pools and the manager import neither drivers nor modules of users, which takes time. Pickled, it is the original.

    Args:
        data: as `dump_error` made it.

    Attributes:
        type_name: the exception's class.
    """

    def __init__(self, data: bytes) -> None:
        _, self.type_name, message, self.remote_traceback, _ = pickling.loads(data)
        super().__init__(message)
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return (load_error, (self.data,))

    def __repr__(self) -> str:
        return f"{self.type_name}({str(self)!r})"


def opaque_error(packed: pickling.Pickled, elsewhere: bool) -> Exception:
    """What a worker says that it failed with, as `dump_error` made it: unopened if it comes from another process."""
    if elsewhere:
        return OpaqueError(packed.data)
    error = load_error(packed.data)
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


def name_of(error: BaseException) -> str:
    """The name of an exception's class, wherever it was raised."""
    return error.type_name.rpartition(".")[2] if isinstance(error, OpaqueError) else type(error).__name__


def error_text(error: BaseException) -> str | None:
    """The remote traceback that an exception already carries from another process."""
    text = getattr(error, "remote_traceback", None)
    return text if isinstance(text, str) else None


def _pack(error: BaseException) -> bytes | None:
    """The first pickle of the exception that loads again; None when there is none."""
    for attempt in (_whole, _parts, _without_cause):
        try:
            data = pickling.dumps(attempt(error))
            if _holds_foreign(error) or _unpack(data) is not None:
                return data
        except BaseException:  # a user's class may fail to pickle in any way, and raise anything
            continue
    return None


def _holds_foreign(error: BaseException) -> bool:
    """Whether it is one of ours around one that has been checked where it comes from, and is not to be opened here."""
    return isinstance(error, ActorPoolError) and isinstance(error.cause, OpaqueError)


def _unpack(data: bytes | None) -> BaseException | None:
    try:
        error = None if data is None else pickling.loads(data)
        if isinstance(error, tuple):
            error = _join(*error)
    except Exception:  # importing or rebuilding a user's class may fail in any way
        return None
    return error if isinstance(error, BaseException) else None


def _whole(error: BaseException) -> Any:
    return error


def _parts(error: BaseException) -> Any:
    """For classes with an `__init__` that does not take `args` back: their type, args and attributes."""
    return (type(error), error.args, vars(error))


def _without_cause(error: BaseException) -> Any:
    """Our own error around a cause that does not travel: the cause as a `RemoteError`."""
    if not isinstance(error, ActorPoolError) or error.cause is None:
        raise TypeError("no cause to leave out")
    cause = RemoteError(f"{_name(error.cause)}: {message_of(error.cause)}", type_name=_name(error.cause))
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


def description_of(error: BaseException) -> str:
    """The class and the text of an exception, in one line if the text is one."""
    return f"{name_of(error)}: {message_of(error)}".removesuffix(": ")


def message_of(error: BaseException) -> str:
    """The text of an exception, whatever its class makes of that."""
    try:
        return str(error)
    except BaseException:  # a user's __str__ may fail in any way
        return "(its text cannot be made)"
