"""Messages as no client of ours makes them, over every message class: half-valid, empty, malformed, foreign.

A constructor refuses most of these, so they are made without one. They pickle as what they are, and no constructor runs
where they arrive either: what arrives has the right class and anything at all in its fields.

    for message in spoiled({"pool": "db", "name": "db"}): ...   # each class, each field spoiled in each way
    for message in strangers(): ...                             # what is no message at all
    for frame in frames(Random(1), 1000): ...                   # (kind, ref, body) for a channel
"""

from __future__ import annotations

import copyreg
import dataclasses
import itertools
import pickle
from collections.abc import Iterator, Mapping
from random import Random
from types import ModuleType
from typing import Any

from thespian.actors import ActorAddress

from actorpool import messages
from actorpool._protocol import manager, requests, sandboxes, shared
from actorpool.config import PoolConfig, SharedPoolConfig
from actorpool.core.supervisor import events
from actorpool.messages import Grant
from actorpool.process import Caller
from actorpool.serialization.pickling import Pickled
from actorpool.supervisors import ChildSpec, SupervisorSpec, child_host
from actorpool.transport import frames as wire
from actorpool.workers import EchoWorker

PUBLIC: tuple[ModuleType, ...] = (messages, manager, requests, shared, sandboxes)
"""Where the messages are that travel between clients, the manager, pools and workers."""
INNER: tuple[ModuleType, ...] = (events, child_host)
"""Where those are that a supervisor and its children exchange."""


class Touchy:
    """Whatever is done with it raises."""

    def __hash__(self) -> int:
        raise RuntimeError("touched: hash")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("touched: eq")

    def __bool__(self) -> bool:
        raise RuntimeError("touched: bool")

    def __repr__(self) -> str:
        raise RuntimeError("touched: repr")

    __str__ = __repr__


class Fake(Touchy):
    """Hashes like a string that may well be a key, and then cannot be compared."""

    def __init__(self, name: str = "db") -> None:
        self.name = name

    def __hash__(self) -> int:
        return hash(self.name)


class Unloadable:
    """Cannot be rebuilt where it arrives."""

    def __reduce__(self) -> Any:
        return (int, ("this is no number",))


class Bare:
    """Pickles as an object of `cls` with these attributes and no others, made by no constructor."""

    def __init__(self, cls: type, **state: Any) -> None:
        self.cls, self.state = cls, state

    def made(self) -> Any:
        """The same, in this process."""
        made = object.__new__(self.cls)
        for name, value in self.state.items():
            object.__setattr__(made, name, value.made() if isinstance(value, Bare) else value)
        return made

    def __reduce__(self) -> Any:
        return (copyreg._reconstructor, (self.cls, object, None), self.state or None)  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"<{self.cls.__name__} {sorted(self.state)}>"


def _nested(depth: int = 200) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 2**70, 1.5, float("nan"), float("inf"), "", "db", "nobody here", "\ud800", "x" * 5000,
    b"\xff\x00", (), [], ["x"], ("job", ["x"]), {"a": []}, {1: 2}, set(), _nested(), Touchy(), Fake(), Touchy, print,
    ValueError("x"), Pickled(b"no pickle"), Bare(Pickled), ActorAddress(None), ActorAddress([]), Bare(Caller),
    Caller("elsewhere", -1, -1.0), Caller([], [], []), Bare(Grant), Grant(["1"], "db", None),  # type: ignore[arg-type]
    Bare(ChildSpec), Bare(SupervisorSpec), Bare(PoolConfig), Bare(SharedPoolConfig),
)  # fmt: skip
"""What a field may turn out to hold."""

RIGHT: dict[str, Any] = {
    "name": "nobody", "pool": "nobody", "timeout": 0.01, "block": False, "pattern": "*", "id": "nobody",
    "key": "nobody", "lease": 1, "worker_id": 1, "token": 1, "number": 1, "method": "echo", "args": (1,), "kwargs": {},
    "fn": repr,
    "resource": "nobody", "config": PoolConfig(worker=EchoWorker, size=1), "grant": Grant(1, "nobody", None),
    "spec": ChildSpec("nobody", SupervisorSpec()), "address": None, "size": 1, "max_overflow": 0,
}  # fmt: skip
"""What each field holds that is not spoiled; a caller of this module knows better names."""


def classes(*modules: ModuleType) -> list[type]:
    """Every message class that these modules define: dataclasses and named tuples."""
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
        if dataclasses.is_dataclass(value) or issubclass(value, tuple)
    ]


def spoiled(
    known: Mapping[str, Any] | None = None, modules: tuple[ModuleType, ...] = PUBLIC, wrong: tuple[Any, ...] = WRONG
) -> Iterator[Any]:
    """Each message class without a field, with each field alone missing, and with each field spoiled in every way.

    Args:
        known: names that mean something to the receiver, by field; over those of `RIGHT`.
        modules: whose classes.
        wrong: what a spoiled field holds.
    """
    right = {**RIGHT, **(known or {})}
    numbers = itertools.count(1)
    for cls in classes(*modules):
        if issubclass(cls, tuple):
            yield from _spoiled_tuples(cls, right, wrong)
            continue
        state = {item.name: right.get(item.name) for item in dataclasses.fields(cls)}
        for name, made in (("ref", (1, next(numbers))), ("caller", Caller.here())):
            if name in state:
                state[name] = right.get(name) or made
        yield Bare(cls, **state)
        yield Bare(cls)
        for name in state:
            yield Bare(cls, **{key: value for key, value in state.items() if key != name})
            for value in wrong:
                yield Bare(cls, **{**state, name: value})


def _spoiled_tuples(cls: Any, right: Mapping[str, Any], wrong: tuple[Any, ...]) -> Iterator[Any]:
    values = [right.get(name) for name in cls._fields]
    yield cls(*values)
    for index in range(len(values)):
        for value in wrong:
            yield cls(*values[:index], value, *values[index + 1 :])


def strangers() -> Iterator[Any]:
    """What is no message at all, or one that nobody asked for."""
    yield from WRONG
    yield Unloadable
    yield from (messages.Ok(1, ref=1), messages.Err(ValueError("x"), ref=["unhashable"]), messages.Ok(ref=Touchy()))


def frames(random: Random, number: int, known: Mapping[str, Any] | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Random and half-valid frames of a channel: kind, ref and body."""
    bodies = [_pickled(message) for message in (*spoiled(known), *strangers(), Unloadable())]
    kinds = [value for name, value in vars(wire).items() if name.isupper() and isinstance(value, int) and value < 256]
    for _ in range(number):
        kind = random.choice(kinds) if random.random() < 0.9 else random.randrange(256)
        ref = random.choice((0, 1, 2, 2**31, 2**64 - 1, random.randrange(2**64)))
        body = random.choice(bodies)
        shape = random.random()
        if shape < 0.2:
            body = random.randbytes(random.randrange(64))
        elif shape < 0.4:
            body = body[: random.randrange(len(body) + 1)]
        elif shape < 0.5:
            body = bytes(random.choice(b"\x00\xff.N") for _ in range(8)) + body
        yield kind, ref, body


def _pickled(message: Any) -> bytes:
    return pickle.dumps(message, 5)
