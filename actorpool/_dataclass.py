"""Dataclasses that are generated when they are first used.

`dataclasses.dataclass` writes the text of up to eight methods for each class and compiles it. That was half of what the
imports of a start cost, for messages most of which a process never makes. Here a class gets stand-ins; the first use of
one puts what the standard library generates in the place of all. From then on it is a dataclass like any other.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # to a type checker they are the same
else:

    def dataclass(**options: bool) -> Callable[[type], type]:
        """As `dataclasses.dataclass`, but for those without `eq` or with `slots`, which are few and made by that."""
        assert not options.keys() & {"eq", "slots"}
        return lambda cls: _defer(cls, options)


def generate(*classes: Any) -> None:
    """Generate them now, in a process whose children will use them: once for all."""
    for cls in classes:
        cls.__dataclass_fields__  # noqa: B018 - the first use


_GENERATED = [
    "__init__", "__repr__", "__eq__", "__hash__", "__match_args__", "__dataclass_fields__", "__dataclass_params__"
]  # fmt: skip
if sys.version_info >= (3, 13):
    _GENERATED.append("__replace__")
_NOT_TAKEN = {"__dict__", "__weakref__", "__setattr__", "__delattr__"}
_ABSENT = object()


def _defer(cls: Any, options: dict[str, bool]) -> type:
    own = {name: value for name, value in vars(cls).items() if name not in _NOT_TAKEN}

    def generate() -> None:
        """Have a twin made a dataclass, and take over what that has put there, or has removed.

        A twin, because other threads need each name meanwhile. Two threads may do this at once, with the same result.
        """
        import dataclasses  # not at the top: a class can be defined without

        twin = type(cls)(cls.__name__, cls.__bases__, own | {"__qualname__": cls.__qualname__})
        made = vars(dataclasses.dataclass(**options)(twin))
        for name in own.keys() - made.keys():  # where a default is made by a factory
            with contextlib.suppress(AttributeError):
                delattr(cls, name)
        for name, value in made.items():
            if name not in _NOT_TAKEN and own.get(name, _ABSENT) is not value:
                setattr(cls, name, value)

    def refuse(self: Any, name: str, *value: Any) -> None:
        """What a frozen dataclass has as `__setattr__` and `__delattr__`; a subclass may have attributes of its own."""
        if type(self) is cls or name in cls.__dataclass_fields__:
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")
        inherited: Any = super(cls, self)
        (inherited.__setattr__ if value else inherited.__delattr__)(name, *value)

    for name in _GENERATED:
        if own.get(name) is None:  # a class that says what is equal to it has None as its `__hash__`
            setattr(cls, name, _StandIn(cls, name, generate))
    if options.get("frozen"):
        cls.__setattr__ = cls.__delattr__ = refuse
    return cls  # type: ignore[no-any-return]


class _StandIn:
    """What a class has under a name until it is asked for it; then it is generated, and has this name no more."""

    def __init__(self, cls: type, name: str, generate: Callable[[], None]) -> None:
        self._cls, self._name, self._generate = cls, name, generate

    def __get__(self, instance: Any, owner: type) -> Any:
        self._generate()
        found = getattr(self._cls, self._name)
        return found.__get__(instance, owner) if instance is not None and callable(found) else found
