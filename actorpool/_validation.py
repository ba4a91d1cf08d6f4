"""Checks of single fields, and of all that is given to a settings class: what is wrong is told at once, as texts."""

from __future__ import annotations

import difflib
import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

LONGEST = 1e9
"""Seconds (30 years); what is longer cannot be a timer's on every system."""

Check = Callable[[Any], "str | None"]
"""Of a value: what is wrong with it, or None."""


def number(low: float, *, above: bool = False, optional: bool = False, whole: bool = False) -> Check:
    """A check for a number of at least `low` (or `above` it), whole or not; `optional` allows None."""
    kind = "a whole number" if whole else "a number"
    bound = f"{'above' if above else 'of at least'} {low}"

    def check(value: Any) -> str | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value != value:
            return f"must be {kind} {bound}{' or None' if optional else ''}, not {value!r}"
        if value < low or (above and value == low):
            return f"must be {bound.removeprefix('of ')}, not {value!r}"
        if value > LONGEST and not whole:
            return f"must be at most {LONGEST:g}{', or None for no limit' if optional else ''}, not {value!r}"
        return None

    return check


def one_of(*choices: Any) -> Check:
    """A check for one of these values."""
    return lambda value: None if value in choices else f"must be one of {', '.join(map(repr, choices))}, not {value!r}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is nearly `name`: three quarters of both are alike; None where there is none."""
    return next(iter(difflib.get_close_matches(name.lower(), list(names), 1, 0.75)), None)


def settings_problems(cls: type, given: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, str]:
    """Every problem of the fields given to a settings class: unknown, missing, bad."""
    known = {item.name: item for item in fields(cls)}
    hint = "; a worker's own arguments go into worker_args={...}" if "worker_args" in known else ""
    meant = {name: nearest(name, known) for name in given if name not in known}
    problems = {
        name: f"is unknown: did you mean {near!r}?" if near else f"is unknown; known are {', '.join(known)}{hint}"
        for name, near in meant.items()
    }
    for name, item in known.items():
        if name in given:
            text = checks[name](given[name]) if name in checks else None
            if text:
                problems[name] = text
        elif item.default is MISSING and item.default_factory is MISSING:
            problems[name] = "is required"
    return problems


def instance(kind: type, *, optional: bool = True) -> Check:
    """A check for an instance of that class; `optional` allows None."""
    return lambda value: (
        None
        if isinstance(value, kind) or (optional and value is None)
        else f"must be a {kind.__name__}{' or None' if optional else ''}, not {value!r}"
    )


class _AsElsewhere(pickle.Unpickler):
    """Finds what another process would find."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":
            raise AttributeError(
                f"{name} is a class of __main__, which the pool's process cannot import; move it into a module"
            )
        return super().find_class(module, name)


def key_of_a_lease(value: Any) -> str | None:
    """What is wrong with the key of a lease: the pool compares keys, so it must be able to open each."""
    try:
        hash(value)
        data = pickle.dumps(value)
        if b"__main__" in data:
            _AsElsewhere(io.BytesIO(data)).load()
    except Exception as error:  # anything that a user's class may raise
        return f"must be hashable and picklable ({type(error).__name__}: {error}): take a string, or a tuple of some"
    return None
