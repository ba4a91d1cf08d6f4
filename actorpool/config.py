"""What a pool is told: `PoolConfig`, `Breaker`, `Autoscale`. Every default is written here, once.

A config is refused when it is made, with every bad field named at once, before anything starts.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from typing import Any

from actorpool._dataclass import dataclass
from actorpool._validation import Check, instance, key_of_a_lease, number, one_of, settings_problems
from actorpool.errors import InvalidConfig
from actorpool.limits import Limits
from actorpool.serialization import pickling

POOL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """Circuit breaker: open after `failures` connection-class failures within `window` seconds.

    After `reset_after` seconds it lets `half_open` trial calls through; a success closes it, a failure opens it again.
    """

    failures: int = 5
    window: float = 10.0
    reset_after: float = 30.0
    half_open: int = 1

    def __new__(cls, **given: Any) -> Breaker:
        problems = settings_problems(cls, given, _BREAKER)
        if problems:
            raise InvalidConfig("Breaker", problems)
        return super().__new__(cls)


_BREAKER = {
    "failures": number(1, whole=True),
    "window": number(0, above=True),
    "reset_after": number(0, above=True),
    "half_open": number(1, whole=True),
}


@dataclass(frozen=True, kw_only=True)
class Autoscale:
    """Resize in place every `interval` seconds to `headroom` times the average of leases out.

    The target is at least `minimum`, at most `maximum` (None: no bound), and is taken only when it
    differs from the present size by more than `threshold`.
    """

    interval: float = 300.0
    headroom: float = 1.2
    minimum: int = 5
    maximum: int | None = None
    threshold: int = 2

    def __new__(cls, **given: Any) -> Autoscale:
        problems = settings_problems(cls, given, _AUTOSCALE)
        low, high = given.get("minimum", 5), given.get("maximum")
        if not problems and high is not None and high < low:
            problems["maximum"] = f"must be at least minimum ({low}), not {high!r}"
        if problems:
            raise InvalidConfig("Autoscale", problems)
        return super().__new__(cls)


_AUTOSCALE = {
    "interval": number(0, above=True),
    "headroom": number(0, above=True),
    "minimum": number(0, whole=True),
    "maximum": number(0, whole=True, optional=True),
    "threshold": number(0, whole=True),
}


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Settings of one pool. Times are seconds.

    Args:
        worker: a `Worker` subclass, or `"module:Class"`.
        worker_args: keyword arguments of the worker; never logged, shown or sent to telemetry.
        size: workers kept; `"auto"` asks the worker class.
        max_overflow: extra workers while demand lasts.

    Raises:
        InvalidConfig: names every unknown, missing or bad field.
    """

    worker: Any
    worker_args: Mapping[str, Any] = field(default_factory=dict, repr=False)
    size: int | str = 5
    max_overflow: int = 10
    overflow_ttl: float = 0.0
    strategy: str = "lifo"
    checkout_timeout: float = 5.0
    call_timeout: float | None = None
    max_waiting: int | None = None
    queue_target: float | None = None
    queue_interval: float = 1.0
    max_lifetime: float | None = None
    lifetime_jitter: float = 0.05
    idle_timeout: float | None = None
    health_interval: float | None = 30.0
    check_on_checkout: float | None = 0.5
    max_lease: float | None = None
    leak_threshold: float | None = None
    on_caller_death: str = "reset"
    kill_after: float = 2.0
    max_restarts: int = 10
    restart_period: float = 60.0
    backoff_min: float = 0.1
    backoff_max: float = 30.0
    breaker: Breaker | None = None
    autoscale: Autoscale | None = None
    enabled: bool = True
    preload: Sequence[str] = ()
    limits: Limits | None = None
    session_idle: float = 300.0
    placement: Mapping[str, Any] | None = None

    def __new__(cls, **given: Any) -> PoolConfig:
        problems = settings_problems(cls, given, _POOL)
        if not {"backoff_min", "backoff_max"} & problems.keys():
            problems |= _backoff_problems(given)
        if not {"worker", "size"} & problems.keys():
            problems |= _size_problems(given)
        if problems:
            raise InvalidConfig("PoolConfig", problems)
        return super().__new__(cls)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {item.name: getattr(self, item.name) for item in fields(self)}
        state["worker"] = pickling.Pickled.of(state["worker"])
        state["worker_args"] = pickling.Pickled.of(state["worker_args"])
        return (_thaw, (state,))


def _thaw(state: dict[str, Any]) -> PoolConfig:
    """Rebuild a config without opening the user's code: `worker` and `worker_args` stay parcels."""
    config = object.__new__(PoolConfig)
    config.__dict__.update(state)
    return config


def _check_penalties(value: Any) -> str | None:
    good = value is None or (isinstance(value, (list, tuple)) and value and not any(map(number(0), value)))
    return None if good else f"must be a tuple or list of one or more numbers of seconds, or None, not {value!r}"


@dataclass(frozen=True, kw_only=True)
class SharedPoolConfig:
    """Settings of one shared pool. Times are seconds.

    Args:
        kill_after: a worker that ignores an interrupt or an exit request this long is killed.
        penalties: seconds before each further attempt to open a connection, the last one repeated, without jitter (what
            was lost is first tried at once); None is (0.1, 0.5, 1, 5, 30), unless a bound of the backoff is given.
        backoff_min, backoff_max: delays between the attempts that are exponential with jitter, in place of penalties.

    Raises:
        InvalidConfig: names every unknown or bad field.
    """

    kill_after: float = 2.0
    backoff_min: float = 0.1
    backoff_max: float = 30.0
    penalties: Sequence[float] | None = None

    @property
    def series(self) -> tuple[float, ...] | None:
        """The penalties that hold; None where a backoff is wanted."""
        standard = (0.1, 0.5, 1.0, 5.0, 30.0) if (self.backoff_min, self.backoff_max) == (0.1, 30.0) else None
        return standard if self.penalties is None else tuple(self.penalties)

    def __new__(cls, **given: Any) -> SharedPoolConfig:
        problems = settings_problems(cls, given, _POOL) or _backoff_problems(given)
        if problems:
            raise InvalidConfig("SharedPoolConfig", problems)
        return super().__new__(cls)


def _backoff_problems(given: Mapping[str, Any]) -> dict[str, str]:
    low, high = given.get("backoff_min", 0.1), given.get("backoff_max", 30.0)
    if high >= low:
        return {}
    if "backoff_max" in given:
        return {"backoff_max": f"must be at least backoff_min ({low}), not {high!r}"}
    return {"backoff_min": f"must be at most backoff_max, which is {high} unless it is given, not {low!r}"}


def _size_problems(given: Mapping[str, Any]) -> dict[str, str]:
    """Whether the worker can be asked for a size, if it is to be."""
    if given.get("size") != "auto":
        return {}
    worker: Any = load_worker(given["worker"])
    if not worker.sizes_itself():
        return {"size": f'{worker.__name__} cannot tell a size: give size=N instead of size="auto"'}
    return {}


def config_problems(config: PoolConfig | SharedPoolConfig) -> dict[str, str]:
    """What is wrong with a config that has come from elsewhere, where no constructor has looked at it."""
    state = dict(vars(config))
    problems = {}
    for name in ("worker", "worker_args"):
        given = state.get(name)
        if isinstance(given, pickling.Pickled):  # opened only in the pool's process
            del state[name]
            if not isinstance(getattr(given, "data", None), bytes):
                problems[name] = "is an empty parcel"
    missing = {item.name for item in fields(config)} - vars(config).keys()
    problems |= dict.fromkeys(missing, "is missing")
    problems |= {name: text for name, value in state.items() if (text := _POOL[name](value))}
    return problems or _backoff_problems(state)


def unplaced_problems(config: PoolConfig | SharedPoolConfig) -> dict[str, str]:
    """What is wrong with the config of a pool of one host: it asks for hosts of a cluster."""
    if getattr(config, "placement", None) is None:
        return {}
    return {"placement": "needs a cluster of hosts: start the pool by Cluster.start_pool (docs/cluster.md)"}


def check_connection(worker: Any, worker_args: Any) -> None:
    """Refuse what cannot be a connection of a shared pool.

    Raises:
        InvalidConfig: names every bad field.
    """
    texts = {"worker": _check_worker(worker), "worker_args": _check_arguments(worker_args)}
    problems = {name: text for name, text in texts.items() if text}
    if problems:
        raise InvalidConfig("connection", problems)


def load_worker(worker: Any) -> type:
    """The worker class behind `"module:Class"`, a parcel, or the class itself.

    Raises:
        ImportError, AttributeError, TypeError: it cannot be imported or is no `Worker` subclass.
    """
    from actorpool.workers.base import Worker  # not at the top: the workers know this module

    if isinstance(worker, pickling.Pickled):
        worker = worker.open()
    if isinstance(worker, str):
        module, colon, name = worker.partition(":")
        if not (module and colon and name):
            raise TypeError(f'expected "module:Class", got {worker!r}')
        worker = getattr(importlib.import_module(module), name)
    if not (isinstance(worker, type) and issubclass(worker, Worker)):
        raise TypeError(f"expected a subclass of actorpool.workers.Worker, got {worker!r}")
    return worker


def _check_worker(value: Any) -> str | None:
    try:
        load_worker(value)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _check_arguments(value: Any) -> str | None:
    if isinstance(value, pickling.Pickled):
        return None
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return f"must be a dict of keyword arguments, not {type(value).__name__}"
    try:
        pickling.dumps(value)
    except Exception as error:  # anything a user's __reduce__ may raise
        return f"does not pickle ({type(error).__name__}: {error}); pass plain values and build the rest in the worker"
    return None


def _check_preload(value: Any) -> str | None:
    names = isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)
    if names and all(part.isidentifier() for name in value for part in name.split(".")):
        return None
    return f"must be a list or tuple of modules' names, not {value!r}"


def _check_size(value: Any) -> str | None:
    return None if value == "auto" else number(0, whole=True)(value)


_POOL: dict[str, Check] = {
    "penalties": _check_penalties,
    "worker": _check_worker,
    "worker_args": _check_arguments,
    "size": _check_size,
    "max_overflow": number(0, whole=True),
    "overflow_ttl": number(0),
    "strategy": one_of("lifo", "fifo"),
    "checkout_timeout": number(0),
    "call_timeout": number(0, above=True, optional=True),
    "max_waiting": number(0, whole=True, optional=True),
    "queue_target": number(0, above=True, optional=True),
    "queue_interval": number(0, above=True),
    "max_lifetime": number(0, above=True, optional=True),
    "lifetime_jitter": number(0),
    "idle_timeout": number(0, above=True, optional=True),
    "health_interval": number(0, above=True, optional=True),
    "check_on_checkout": number(0, optional=True),
    "max_lease": number(0, above=True, optional=True),
    "leak_threshold": number(0, above=True, optional=True),
    "on_caller_death": one_of("reset", "restart"),
    "kill_after": number(0, above=True),
    "max_restarts": number(0, whole=True),
    "restart_period": number(0, above=True),
    "backoff_min": number(0, above=True),
    "backoff_max": number(0, above=True),
    "breaker": instance(Breaker),
    "autoscale": instance(Autoscale),
    "enabled": instance(bool, optional=False),
    "preload": _check_preload,
    "limits": instance(Limits),
    "session_idle": number(0, above=True),
    "placement": instance(Mapping),
}


def check_request(what: str, **given: Any) -> None:
    """Refuse what may not be asked for.

    Args:
        what: what it is, for the error.
        **given: its fields; one that is not in the table below is a timeout that may be None.

    Raises:
        InvalidConfig: names every bad one.
    """
    texts = {name: _REQUEST.get(name, _ANY_TIME)(value) for name, value in given.items()}
    problems = {name: text for name, text in texts.items() if text}
    if problems:
        raise InvalidConfig(what, problems)


def check_checkout(block: Any, timeout: Any, key: Any) -> None:
    """Refuse a checkout that cannot be one; None stands for what was not given.

    Raises:
        InvalidConfig: names every bad argument.
    """
    given = {name: value for name, value in (("timeout", timeout), ("key", key)) if value is not None}
    check_request("checkout", block=block, **given)


_ANY_TIME = number(0, optional=True)
_REQUEST: dict[str, Check] = {
    "penalties": _check_penalties,
    "name": instance(str, optional=False),
    "pool": instance(str, optional=False),
    "pattern": instance(str, optional=False),
    "timeout": number(0),
    "after": number(0, whole=True, optional=True),
    "limit": number(0, whole=True),
    "size": number(0, whole=True, optional=True),
    "max_overflow": number(0, whole=True, optional=True),
    "key": key_of_a_lease,
    "block": instance(bool, optional=False),
}


def request_check(name: str) -> Check | None:
    """What a field of that name must be in any request; None: that is for its class to say."""
    return _REQUEST.get(name)


def check_pool_name(name: Any) -> str:
    """Return `name` if it can name a pool (it becomes a file name and a metric's segment).

    Raises:
        InvalidConfig: it is not `[A-Za-z][A-Za-z0-9_.-]{0,63}`.
    """
    if isinstance(name, str) and POOL_NAME.match(name):
        return name
    raise InvalidConfig("pool", {"name": f"must be [A-Za-z][A-Za-z0-9_.-]{{0,63}}, not {name!r}"})
