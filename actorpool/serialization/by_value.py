"""User code that no other process can import, taken apart by cloudpickle. Loaded by the first value that needs it."""

from __future__ import annotations

import io
import os
import sys
import threading
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle

from actorpool.serialization.importing import importable


class Unsendable(TypeError):
    """It cannot travel; the text says what to send instead."""


_FILES = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)


class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, which also takes functions and classes of unimportable modules by value, and changes no type."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, _FILES):  # cloudpickle would make a StringIO of it
            raise Unsendable("an open file cannot travel to another process: pass its path, or what is in it")
        if type(value) is memoryview:  # cloudpickle would make bytes of it
            data = value.tobytes()
            return _view, (data if value.readonly else bytearray(data), value.format, value.shape)
        if isinstance(value, (type, FunctionType)):
            module = sys.modules.get(getattr(value, "__module__", None) or "")
            if isinstance(module, ModuleType) and module.__name__ != "__main__" and not importable(module.__name__):
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
