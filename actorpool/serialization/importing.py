"""Which modules another process of this host can import as well."""

from __future__ import annotations

import importlib.machinery
import sys

_OURS = f"{__name__.partition('.')[0]}."


class _Known(dict["str | None", bool]):
    """The modules that were asked for, by name."""

    def __missing__(self, name: str) -> bool:
        known = self[name] = _found_on_path(name)
        return known


importable = _Known({None: False, "__main__": False, "__mp_main__": False, "builtins": True}).__getitem__
"""Whether a process that was not forked from this one finds the same module under that name. It is asked at each call
of a function, so it is a look into a dict and no function of its own."""


def _found_on_path(name: str) -> bool:
    if name.startswith(_OURS):
        return True  # without a look along the path, which each new worker would take
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
