"""Arguments of workers that were given under a wrong name. What a worker does not know goes to its driver, unread."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from actorpool._validation import nearest


def misspelt(worker: type, given: Iterable[str], drivers: Iterable[str] = ()) -> dict[str, str]:
    """A problem, by name, for each argument with a name that is nearly one of the worker's or its driver's.

    Args:
        worker: the class; its `__init__` names the arguments.
        given: names that the worker does not know.
        drivers: names that its driver knows.
    """
    own = [name for name, one in inspect.signature(worker).parameters.items() if one.kind is not one.VAR_KEYWORD]
    names = [*own, *drivers]
    meant = {name: nearest(name, names) for name in given if name not in names}
    no_such = f"is no argument of {worker.__name__}"
    return {name: f"{no_such}: did you mean {near!r}?" for name, near in meant.items() if near}


def given_instead(given: Iterable[str]) -> str:
    """To be added to "is required": what was given."""
    names = ", ".join(map(repr, given))
    return f"; given: {names}" if names else ""
