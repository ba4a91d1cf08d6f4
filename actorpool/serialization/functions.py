"""Functions that travel by value and refer to nothing outside themselves: pickled once, rebuilt once in each process.

A lambda, or a function of a script's `__main__`, has to be taken apart by cloudpickle for each call, which costs more
than the call. The result can be kept where nothing can ever change it: without closure, defaults and attributes, and
with no name in it that is a global of its module (such a function would take the global's value along).
"""

from __future__ import annotations

import dis
import functools
import pickle
from collections.abc import Callable
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from types import CodeType, FunctionType
from typing import Any

ASYNCHRONOUS = CO_COROUTINE | CO_ASYNC_GENERATOR
MOST = 512
"""Functions that are kept; a program that makes more of them starts over."""

_STATEFUL = frozenset({"globals", "locals", "vars", "exec", "eval"})
_STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})


def check_plain(what: Any) -> None:
    """Refuse a function that a worker cannot run.

    Raises:
        TypeError: it is an `async def`.
    """
    if what.__class__ is FunctionType and what.__code__.co_flags & ASYNCHRONOUS:
        advice = "write it with `def`, or have a plain function call asyncio.run() in the worker"
        raise TypeError(f"{what.__qualname__} is an `async def`, and a worker runs plain functions: {advice}")


def check_callable(function: Any) -> None:
    """Refuse what is no function, such as the name of a method.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(function):
        named = isinstance(function, str) and function.isidentifier()
        advice = f"; the worker's method of that name is called by call({function!r}) or .{function}()" if named else ""
        raise TypeError(f"run() takes a function, which gets the connection first, not {function!r}{advice}")


@functools.lru_cache(maxsize=MOST)
def rebuild(data: bytes) -> Any:
    """The function that these bytes hold; the same one each time."""
    return pickle.loads(data)


class Kept:
    """A function as the bytes it travels in; it arrives as the function."""

    __slots__ = ("code", "data", "names")

    def __init__(self, code: CodeType, names: frozenset[str]) -> None:
        self.code = code  # also keeps its id from being used again
        self.names = names
        self.data = b""

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (self.data,))


_kept: dict[int, Kept] = {}


def kept(function: FunctionType, dumps: Callable[[Any], bytes]) -> Kept | None:
    """What to pickle in place of a function that is to go by value; None for one that has to be looked at each time.

    Args:
        function: the function.
        dumps: pickles it by value.

    Raises:
        Exception: what `dumps` raises.
    """
    if function.__closure__ or function.__defaults__ or function.__kwdefaults__ or function.__dict__:
        return None
    code = function.__code__
    found = _kept.get(id(code)) or _first(code)
    if not found.names.isdisjoint(function.__globals__):
        return None
    if not found.data:
        found.data = dumps(function)
    return found


def _first(code: CodeType) -> Kept:
    if len(_kept) >= MOST:
        _kept.clear()
    found = _kept[id(code)] = Kept(code, _names(code))
    return found


def _names(code: CodeType) -> frozenset[str]:
    """All names it uses, those of the functions within it included; `__name__` too if it may keep state."""
    names = set(code.co_names)
    if names & _STATEFUL or any(step.opname in _STORES for step in dis.get_instructions(code)):
        names.add("__name__")  # every module has this global: it is never kept
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return frozenset(names)
