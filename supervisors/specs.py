"""What a supervisor is told: `SupervisorSpec` and `ChildSpec`. Refused when made, with every problem named.

User code in a spec (the class of a child, its args) travels as a `Pickled`. It is opened in the process of that child,
or where code looks at it; no supervisor does.
"""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import field, fields
from typing import Any

from actorpool._dataclass import dataclass
from actorpool._validation import number, one_of, settings_problems
from actorpool.config import PoolConfig, SharedPoolConfig, check_pool_name
from actorpool.core.machine import Backoff
from actorpool.core.supervisor.children import is_key
from actorpool.errors import InvalidConfig, SupervisorError
from actorpool.serialization import pickling
from actorpool.serialization.pickling import Pickled
from actorpool.thespian_adapter.shell import Actor
from actorpool.workers.base import Worker

__all__ = ["ChildSpec", "SupervisorSpec", "load_class", "pool_child_spec"]

_BY_TYPE: Any = None
_CARRIED = ("actor", "args")  # user code, kept as parcels once a spec has travelled


def load_class(name: str) -> type:
    """The `Actor` or `Worker` subclass behind `"module:Class"`.

    Raises:
        ImportError, AttributeError, TypeError: it cannot be imported, or is neither.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise TypeError(f'expected "module:Class", got {name!r}')
    found = getattr(importlib.import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, (Actor, Worker))):
        raise TypeError(f"expected a subclass of thespian's Actor or of actorpool's Worker, got {found!r}")
    return found


@dataclass(frozen=True)
class ChildSpec:
    """How one child is started, restarted and stopped (OTP's child specification).

    Args:
        id: what the child is called; hashable, unique below its supervisor.
        actor: a Thespian `Actor` class, a `Worker` subclass, either as `"module:Class"`, a `PoolConfig`, a
            `SharedPoolConfig`, or a `SupervisorSpec`.
        args: keyword arguments of its `init`; for an actor without one, its first message; for a worker, those of its
            class; a pool is called by its `"name"` there, else by the id. Never logged or shown.
        restart: `"permanent"` (always), `"transient"` (after an abnormal end) or `"temporary"` (never).
        shutdown: seconds to end in before it is killed, `"brutal_kill"` (at once) or `"infinity"`. By default 5.0;
            `"infinity"` for a child of type `"supervisor"`, which needs the time that its own children need.
        significant: its end may end the supervisor (`auto_shutdown`).
        type: `"worker"` or `"supervisor"`. By default `"worker"`; `"supervisor"` for a `SupervisorSpec`.

    Raises:
        InvalidConfig: names every unknown, missing or bad field.
    """

    id: Hashable
    actor: Any
    args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    restart: str = "permanent"
    shutdown: float | str = _BY_TYPE
    significant: bool = False
    type: str = _BY_TYPE

    def __new__(cls, *values: Any, **given: Any) -> ChildSpec:
        named = _by_name(cls, values, given)
        problems = settings_problems(cls, named, _CHILD)
        if not problems and named.get("significant") and named.get("restart", "permanent") == "permanent":
            problems["significant"] = 'a permanent child never ends for good: make it "transient" or "temporary"'
        if problems:
            raise InvalidConfig("ChildSpec", problems)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.type is _BY_TYPE:
            object.__setattr__(self, "type", "supervisor" if self.kind == "supervisor" else "worker")
        if self.shutdown is _BY_TYPE:
            object.__setattr__(self, "shutdown", "infinity" if self.type == "supervisor" else 5.0)

    @property
    def kind(self) -> str:
        """What it is in a tree: `"supervisor"`, `"pool"`, `"worker"` or `"actor"`."""
        return self.__dict__.get("_kind") or _kind(self.actor)

    def problems(self) -> dict[str, str]:
        """What is wrong with a spec that has come from elsewhere, where no constructor has looked at it."""
        given = {item.name: self.__dict__[item.name] for item in fields(self) if item.name in self.__dict__}
        packed = self.__dict__.get("_parcels")
        if packed is not None:
            if not (len(packed) == len(_CARRIED) and all(isinstance(getattr(one, "data", 0), bytes) for one in packed)):
                return {"actor": "is no parcel"}
            given |= dict(zip(_CARRIED, packed, strict=True))
        if not isinstance(self.__dict__.get("_kind", ""), str):
            return {"actor": "is of no kind"}
        return settings_problems(type(self), given, _CHILD)

    def parcels(self) -> tuple[Pickled, Pickled]:
        """The actor and its args, packed; nothing of the user's is opened."""
        packed = self.__dict__.get("_parcels")
        return packed if packed is not None else (Pickled.of(self.actor), Pickled.of(dict(self.args)))

    def __reduce__(self) -> tuple[Any, ...]:
        state = {item.name: self.__dict__[item.name] for item in fields(self) if item.name not in _CARRIED}
        return (_thaw, (state | {"_kind": self.kind, "_parcels": self.parcels()},))

    def __getattr__(self, name: str) -> Any:
        """Open what has travelled when it is looked at; raises what importing it raises."""
        if name not in _CARRIED or "_parcels" not in self.__dict__:
            raise AttributeError(name)
        value = self.__dict__["_parcels"][_CARRIED.index(name)].open()
        object.__setattr__(self, name, value)
        return value


def _thaw(state: dict[str, Any]) -> ChildSpec:
    spec = object.__new__(ChildSpec)
    spec.__dict__.update(state)
    return spec


@dataclass(frozen=True)
class SupervisorSpec:
    """A supervisor and its children (OTP's supervisor flags and child specifications).

    Args:
        children: `ChildSpec`s in the order of start; for `simple_one_for_one` exactly one, the template of all.
        strategy: what is restarted with a child that ended: `"one_for_one"` (it alone), `"one_for_all"` (all),
            `"rest_for_one"` (it and those after it); `"simple_one_for_one"`: many children of one spec.
        max_restarts: restarts tolerated within `max_seconds`; one more, and the supervisor ends all and itself.
        max_seconds: length of that window, at least 1; whole seconds count.
        auto_shutdown: `"never"`, or end with `"any_significant"` or `"all_significant"` children.
        backoff: delay between restarts; None is none. A child that ran longer than its maximum starts anew with the
            shortest delay.

    Raises:
        InvalidConfig: names every unknown or bad field.
    """

    children: Sequence[ChildSpec] = ()
    strategy: str = "one_for_one"
    max_restarts: int = 1
    max_seconds: float = 5
    auto_shutdown: str = "never"
    backoff: Backoff | None = None

    def __new__(cls, *values: Any, **given: Any) -> SupervisorSpec:
        named = _by_name(cls, values, given)
        problems = settings_problems(cls, named, _SUPERVISOR)
        if not problems:
            problems = _combinations(
                named.get("children", ()), named.get("strategy", "one_for_one"), named.get("auto_shutdown", "never")
            )
        if problems:
            raise InvalidConfig("SupervisorSpec", problems)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", tuple(self.children))

    def admit(self, given: Any) -> None:
        """Refuse what may not be given to `StartChild`.

        Raises:
            SupervisorError: `("invalid_child_spec", ...)` or `("bad_combination", ...)`.
        """
        if self.strategy == "simple_one_for_one":
            problem = None if given is None else _check_args(given)
            if problem:
                raise _invalid(given, f"a dict of args, to go over those of the template: it {problem}")
        elif not isinstance(given, ChildSpec):
            raise _invalid(given, "a ChildSpec")
        elif problems := given.problems():
            raise _invalid(given, "a ChildSpec: " + "; ".join(f"{name} {text}" for name, text in problems.items()))
        elif given.significant and self.auto_shutdown == "never":
            reason = ("bad_combination", (("auto_shutdown", "never"), ("significant", True)))
            text = (
                f"child {given.id!r} is significant, which means nothing to a supervisor whose auto_shutdown is never"
            )
            raise SupervisorError(reason, text)


def _invalid(given: Any, expected: str) -> SupervisorError:
    got = type(given).__name__
    return SupervisorError(("invalid_child_spec", got), f"StartChild: expected {expected}, got {got}")


def pool_child_spec(name: str, config: PoolConfig | SharedPoolConfig, **overrides: Any) -> ChildSpec:
    """A pool as a child of a supervisor of your own.

    Args:
        name: the pool's name, also the child's id.
        config: its settings.
        **overrides: other fields of `ChildSpec`; by default permanent, and given `kill_after` + 5 seconds to end in.
    """
    check_pool_name(name)
    settings: dict[str, Any] = {"id": name, "actor": config, "shutdown": config.kill_after + 5.0}
    return ChildSpec(**settings | overrides)


def _by_name(cls: type, values: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    return dict(zip((item.name for item in fields(cls)), values, strict=False)) | given


def _kind(actor: Any) -> str:
    if isinstance(actor, (SupervisorSpec, PoolConfig, SharedPoolConfig)):
        return "supervisor" if isinstance(actor, SupervisorSpec) else "pool"
    actor = load_class(actor) if isinstance(actor, str) else actor
    return "worker" if isinstance(actor, type) and issubclass(actor, Worker) else "actor"


def _check_id(value: Any) -> str | None:
    return None if value is not None and is_key(value) else f"must be hashable and not None, not {value!r}"


def _check_actor(value: Any) -> str | None:
    if isinstance(value, (SupervisorSpec, PoolConfig, SharedPoolConfig, Pickled)):
        return None
    if isinstance(value, str):
        try:
            load_class(value)
        except Exception as error:  # whatever importing a user's module raises
            return f"{value!r}: {type(error).__name__}: {error}"
        return None
    if isinstance(value, type) and issubclass(value, (Actor, Worker)):
        return None
    return f'must be an Actor or Worker class, "module:Class", a PoolConfig or a SupervisorSpec, not {value!r}'


def _check_args(value: Any) -> str | None:
    if isinstance(value, Pickled):
        return None if isinstance(getattr(value, "data", None), bytes) else "is an empty parcel"
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return f"must be a dict of keyword arguments, not {type(value).__name__}"
    try:
        pickling.dumps(dict(value))
    except Exception as error:  # anything a user's __reduce__ may raise
        return f"does not pickle ({type(error).__name__}: {error}); pass plain values and build the rest in init"
    return None


def _check_shutdown(value: Any) -> str | None:
    if value is None or value in ("brutal_kill", "infinity"):
        return None
    if isinstance(value, str) or value == float("inf") or number(0)(value):
        return f'must be seconds of at least 0, "brutal_kill" or "infinity", not {value!r}'
    return None


def _check_flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"must be True or False, not {value!r}"


def _check_type(value: Any) -> str | None:
    return None if value is None else one_of("worker", "supervisor")(value)


def _check_children(value: Any) -> str | None:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return f"must be a list of ChildSpecs, not {type(value).__name__}"
    wrong = [index for index, child in enumerate(value) if not isinstance(child, ChildSpec)]
    if wrong:
        return f"must be ChildSpecs; number {wrong[0]} is a {type(value[wrong[0]]).__name__}"
    ids = [child.id for child in value]
    twice = sorted({repr(id) for id in ids if ids.count(id) > 1})
    return f"two children have the id {', '.join(twice)}" if twice else None


def _combinations(children: Sequence[ChildSpec], strategy: str, auto_shutdown: str) -> dict[str, str]:
    """OTP's bad combinations."""
    problems = {}
    significant = [repr(child.id) for child in children if child.significant]
    if strategy == "simple_one_for_one" and len(children) != 1:
        problems["children"] = f"simple_one_for_one takes exactly one, the template of all; got {len(children)}"
    if strategy == "simple_one_for_one" and auto_shutdown != "never":
        problems["auto_shutdown"] = f'must be "never" with simple_one_for_one, not {auto_shutdown!r}'
    elif auto_shutdown == "never" and significant:
        problems["auto_shutdown"] = (
            f'"never" leaves {", ".join(significant)} significant for nothing: '
            'say "any_significant" or "all_significant", or make no child significant'
        )
    return problems


_CHILD = {
    "id": _check_id,
    "actor": _check_actor,
    "args": _check_args,
    "restart": one_of("permanent", "transient", "temporary"),
    "shutdown": _check_shutdown,
    "significant": _check_flag,
    "type": _check_type,
}

_SUPERVISOR = {
    "children": _check_children,
    "strategy": one_of("one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one"),
    "max_restarts": number(0, whole=True),
    "max_seconds": lambda value: "must be finite" if value == float("inf") else number(1)(value),
    "auto_shutdown": one_of("never", "any_significant", "all_significant"),
    "backoff": lambda value: (
        None if value is None or isinstance(value, Backoff) else f"must be a Backoff or None, not {value!r}"
    ),
}
