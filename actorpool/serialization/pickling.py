"""How user code crosses processes: by reference where the other side can import it, else by value.

Plain pickle is tried first because it is ten times faster than cloudpickle; cloudpickle takes over for
lambdas, closures and everything that is defined where no other process can import it (`__main__`, a REPL,
a test module that is not on `sys.path`).
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import pickle
import sys
import threading
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle

from actorpool.serialization import functions

PROTOCOL = 5


class _ByValue(Exception):
    """The value refers to something that another process cannot import."""


class _ReferencePickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (type, FunctionType)) and not _importable(value.__module__):
            raise _ByValue
        return NotImplemented


_known: dict[str | None, bool] = {None: False, "__main__": False, "__mp_main__": False, "builtins": True}


def _importable(name: str | None) -> bool:
    try:
        return _known[name]
    except KeyError:
        assert name is not None
        known = _known[name] = _found_on_path(name)
        return known


def _found_on_path(name: str) -> bool:
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if module is None or origin is None:
        return (module is not None and name in sys.builtin_module_names) or _spec(name) is not None
    spec = _spec(name)
    return spec is not None and spec.origin == origin


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """What a fresh process would import under that name (`sys.modules` is not asked)."""
    path = None
    spec = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _spec_along(path, ".".join(parts[:depth]))
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


def _spec_along(path: list[str] | None, name: str) -> importlib.machinery.ModuleSpec | None:
    """The spec of one module, whose package has that path; an import hook (an editable install, a zip) comes last.

    A hook may serve a package and leave what is below it to the path, so it is asked at each level.
    """
    for finder in (importlib.machinery.PathFinder, *sys.meta_path):
        find = getattr(finder, "find_spec", None)
        if find is None:
            continue
        try:
            spec = find(name, path)
        except Exception:  # a foreign finder may fail in its own way; then it does not serve this name
            continue
        if isinstance(spec, importlib.machinery.ModuleSpec):
            return spec
    return None


_PLAIN = frozenset({int, float, bool, str, bytes, type(None)})
"""Types with values that refer to nothing: looking at every part of them would cost more than pickling them."""


def dumps(value: Any) -> bytes:
    """Pickle `value` so that another process of this host can load it.

    Raises:
        TypeError, pickle.PicklingError, AttributeError: as cloudpickle, when the value cannot travel at all.
    """
    if type(value) in _PLAIN:
        return pickle.dumps(value, PROTOCOL)
    if type(value) is FunctionType and not _importable(value.__module__):
        value = functions.kept(value, _dumps_by_value) or value
    buffer = io.BytesIO()
    try:
        _ReferencePickler(buffer, PROTOCOL).dump(value)
        return buffer.getvalue()
    except Exception:  # whatever plain pickle refuses, cloudpickle decides
        return _dumps_by_value(value)


def dumps_call(what: Any, args: tuple[Any, ...], kwargs: Any) -> bytes:
    """`dumps((what, args, kwargs))` for a method's name or a function; quicker for plain arguments."""
    if type(what) is FunctionType and not _importable(what.__module__):
        what = functions.kept(what, _dumps_by_value) or what
    if not kwargs and _PLAIN.issuperset(map(type, args)):
        if type(what) is str or type(what) is functions.Kept:
            return pickle.dumps((what, args, {}), PROTOCOL)
        if type(what) is FunctionType and _importable(what.__module__):
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


class Unsendable(TypeError):
    """It cannot travel; the text says what to send instead."""


_FILES = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)


class _ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, which also takes functions and classes of unimportable modules by value, and changes no type."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, _FILES):  # cloudpickle would make a StringIO of it
            raise Unsendable("an open file cannot travel to another process: pass its path, or what is in it")
        if type(value) is memoryview:  # cloudpickle would make bytes of it
            data = value.tobytes()
            return _view, (data if value.readonly else bytearray(data), value.format, value.shape)
        if isinstance(value, (type, FunctionType)):
            module = sys.modules.get(getattr(value, "__module__", None) or "")
            if isinstance(module, ModuleType) and module.__name__ != "__main__" and not _importable(module.__name__):
                with _registering:
                    return self._reduced_by_value(value, module)
        return super().reducer_override(value)

    def _reduced_by_value(self, value: Any, module: ModuleType) -> Any:
        """What cloudpickle makes of it while its table of modules, which all threads share, has this one."""
        if module.__name__ in cloudpickle.list_registry_pickle_by_value():  # by the user's own wish, or further out
            return super().reducer_override(value)
        cloudpickle.register_pickle_by_value(module)
        try:
            return super().reducer_override(value)
        finally:
            cloudpickle.unregister_pickle_by_value(module)


_registering = threading.RLock()


def _free() -> None:
    global _registering
    _registering = threading.RLock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_free)


def _view(data: bytes | bytearray, format: str, shape: tuple[int, ...]) -> memoryview:
    """A view like the one that was sent, of a copy."""
    view = memoryview(data)
    return view if (format, len(shape)) == ("B", 1) else view.cast(format, shape)  # type: ignore[call-overload]


def _dumps_by_value(value: Any) -> bytes:
    buffer = io.BytesIO()
    _ValuePickler(buffer, PROTOCOL).dump(value)
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
