"""What has come from outside an actor, looked at once before anything is done with it.

Most messages are made by a constructor that refuses bad fields, but nothing makes a sender use it, and pickle runs none
where a message arrives. So an actor looks again: each field must be what its class declares. This is the one step in
which a message can fail; what goes wrong after it is an error of our own.
"""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from actorpool.config import PoolConfig, SharedPoolConfig, config_problems, request_check, unplaced_problems
from actorpool.core.supervisor.children import is_key
from actorpool.messages import Grant
from actorpool.serialization.pickling import Pickled
from actorpool.thespian_adapter.shell import ActorAddress

Check = Callable[[Any], "str | None"]

LARGEST = 2**63
"""Numbers of leases, workers and the like are below."""
ADDRESSES = frozenset({"address", "asker", "pool_address"})
"""Fields that hold an actor's address or None, although their classes, which know no Thespian, cannot say so."""


def problems_of(message: Any) -> dict[str, str]:
    """What is wrong with a message, a dataclass: each field that is missing, or is not what its class declares."""
    found = {}
    for name, check in _checks(type(message)).items():  # type: ignore[arg-type]
        try:
            text = _tried(check, getattr(message, name))
        except AttributeError:
            text = "is missing"
        if text:
            found[name] = text
    return found


def ref_of(message: Any) -> Any:
    """What the answer to a message repeats; None where it has nothing that can be repeated."""
    ref = getattr(message, "ref", None)
    return ref if _tried(_check_key, ref) is None else None


def _tried(check: Check, value: Any) -> str | None:
    """What a check says; a value that raises when it is looked at is told to do so."""
    try:
        return check(value)
    except Exception as error:  # a stranger's __hash__, __eq__ or __repr__
        return f"raised {type(error).__name__} when it was looked at"


@functools.cache
def _checks(cls: Any) -> dict[str, Check]:
    """What each field of a dataclass must be."""
    hints = typing.get_type_hints(cls)
    return {item.name: _check_of(cls, item.name, hints[item.name]) for item in fields(cls)}


def _check_of(cls: type, name: str, hint: Any) -> Check:
    if name == "ref":
        return _check_key
    if name in ADDRESSES or (cls is Grant and name == "worker"):
        return _check_address
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if Any in kinds:
        return lambda _value: None
    optional = type(None) in kinds
    allowed = tuple(typing.get_origin(kind) or kind for kind in kinds)
    more = request_check(name)

    def check(value: Any) -> str | None:
        if value is None and optional:
            return None
        if not any(_is_a(value, kind) for kind in allowed):
            return f"must be {hint if isinstance(hint, types.UnionType) else hint.__name__}, not {type(value).__name__}"
        return more(value) if more is not None else _check_inside(value)

    return check


def _is_a(value: Any, kind: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value) and abs(value) < LARGEST
    if kind is int:
        return type(value) is int and abs(value) < LARGEST
    if kind is Callable:
        return callable(value)
    return isinstance(value, kind)


def _check_inside(value: Any) -> str | None:
    """What is wrong within a value of ours."""
    if isinstance(value, Pickled):
        return None if isinstance(getattr(value, "data", None), bytes) else "is an empty parcel"
    if isinstance(value, (PoolConfig, SharedPoolConfig)):
        return _listed(config_problems(value) or unplaced_problems(value))
    if is_dataclass(value) and not isinstance(value, type):
        return _listed(problems_of(value))
    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        return "must have names as its keys"
    return None


def _listed(problems: dict[str, str]) -> str | None:
    return "; ".join(f"{name} {text}" for name, text in problems.items()) or None


def _check_key(value: Any) -> str | None:
    return None if is_key(value) else f"must be hashable, not {type(value).__name__}"


def _check_address(value: Any) -> str | None:
    if value is None or (isinstance(value, ActorAddress) and is_key(value.addressDetails) and value.addressDetails):
        return None
    return f"must be an actor's address, not {type(value).__name__}"


__all__ = ["problems_of", "ref_of"]
