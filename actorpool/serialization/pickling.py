"""How user code crosses processes: by reference where the other side can import it, else by value.

Plain pickle is tried first because it is ten times faster than cloudpickle; cloudpickle takes over for
lambdas, closures and everything that is defined where no other process can import it (`__main__`, a REPL,
a test module that is not on `sys.path`).
"""

from __future__ import annotations

import io
import pickle
from types import FunctionType
from typing import Any

from actorpool.serialization import functions
from actorpool.serialization.importing import importable

PROTOCOL = 5


class _ByValue(Exception):
    """The value refers to something that another process cannot import."""


class _ReferencePickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (type, FunctionType)) and not importable(value.__module__):
            raise _ByValue
        return NotImplemented


_PLAIN = frozenset({int, float, bool, str, bytes, type(None)})
"""Types with values that refer to nothing: looking at every part of them would cost more than pickling them."""


def dumps(value: Any) -> bytes:
    """Pickle `value` so that another process of this host can load it.

    Raises:
        TypeError, pickle.PicklingError, AttributeError: as cloudpickle, when the value cannot travel at all.
    """
    if type(value) in _PLAIN:
        return pickle.dumps(value, PROTOCOL)
    if type(value) is FunctionType and not importable(value.__module__):
        value = functions.kept(value, _dumps_by_value) or value
    buffer = io.BytesIO()
    try:
        _ReferencePickler(buffer, PROTOCOL).dump(value)
        return buffer.getvalue()
    except Exception:  # whatever plain pickle refuses, cloudpickle decides
        return _dumps_by_value(value)


def dumps_call(what: Any, args: tuple[Any, ...], kwargs: Any) -> bytes:
    """`dumps((what, args, kwargs))` for a method's name or a function; quicker for plain arguments."""
    if type(what) is FunctionType and not importable(what.__module__):
        what = functions.kept(what, _dumps_by_value) or what
    if not kwargs and _PLAIN.issuperset(map(type, args)):
        if type(what) is str or type(what) is functions.Kept:
            return pickle.dumps((what, args, {}), PROTOCOL)
        if type(what) is FunctionType and importable(what.__module__):
            try:
                return pickle.dumps((what, args, {}), PROTOCOL)
            except Exception:  # a lambda, a nested function: by value
                pass
    return dumps((what, args, kwargs))


UNSENDABLE_RESULT = "it ran, but its result cannot be sent back: return plain values, such as rows instead of a cursor"


def unsendable(problem: BaseException, text: str) -> BaseException:
    """What `dumps` raised, as an error of the same type that says which value it was and what to do.

    A user's own exception, from a `__reduce__` or `__getstate__`, is told as it is.
    """
    if type(problem) not in (TypeError, AttributeError, pickle.PicklingError):
        return problem
    return type(problem)(f"{text} ({problem})")


def _dumps_by_value(value: Any) -> bytes:
    from actorpool.serialization.by_value import ValuePickler  # not at the top: most programs never need cloudpickle

    buffer = io.BytesIO()
    ValuePickler(buffer, PROTOCOL).dump(value)
    return buffer.getvalue()


loads = pickle.loads


def loads_sent(data: bytes | memoryview) -> Any:
    """`loads` of what a caller has sent; the error for a module that is not found says where it was looked for."""
    try:
        return loads(data)
    except ModuleNotFoundError as error:
        text = "workers look along the sys.path that the program had when it called start(): extend it before"
        raise ModuleNotFoundError(f"{error} ({text})", name=error.name, path=error.path) from None


class Pickled:
    """A pickled value that no process on the way opens: user code is loaded only where it runs."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    @classmethod
    def of(cls, value: Any) -> Pickled:
        """Pack `value`; a `Pickled` is returned as it is."""
        return value if isinstance(value, Pickled) else cls(dumps(value))

    def open(self) -> Any:
        """Unpickle the value; raises whatever importing or rebuilding it raises."""
        return loads_sent(self.data)

    def __eq__(self, other: object) -> bool:
        # A message that arrived holds parcels where the one that was sent holds values: the two are equal.
        return other.data == self.data if isinstance(other, Pickled) else bool(self.open() == other)

    def __hash__(self) -> int:
        return hash(self.data)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Pickled, (self.data,))

    def __repr__(self) -> str:
        return f"<parcel of {len(self.data)} bytes>"


class PrePickled:
    """A pickled message that no process on the way opens: sent on, it arrives as what it holds."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return (loads, (self.data,))


__all__ = ["PROTOCOL", "UNSENDABLE_RESULT", "Pickled", "PrePickled", "dumps", "dumps_call", "loads", "unsendable"]
