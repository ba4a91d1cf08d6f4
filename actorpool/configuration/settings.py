"""What a configuration file says, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actorpool._choices import LOG_FORMATS, LONGEST_MESSAGE, MAX_MESSAGE, OUTPUTS
from actorpool._validation import number, one_of, settings_problems
from actorpool.client.start import NODE_BASES
from actorpool.config import PoolConfig, SharedPoolConfig
from actorpool.configuration.document import Document
from actorpool.configuration.expansion import Expansion
from actorpool.errors import InvalidConfig
from actorpool.node.names import NODE_NAME
from actorpool.supervisors.specs import SupervisorSpec

DRAIN = 7.0
"""Seconds for running calls; with the end of the node itself it stays below the 10 s that service managers give."""
OVERRIDABLE = ("name", "drain", "log_level", "log_format")
"""Keys of `[system]` that `ACTORPOOL_NAME` and the like set over the file, and flags of `up` over both."""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, kw_only=True)
class SystemSettings:
    """The table `[system]`: the node.

    Args:
        name: what `connect` and every command call it.
        drain: seconds that running calls get to finish in when the node is told to end.
        base, log_level, log_file, log_format, output, metrics_interval, max_message: as `actorpool.start` has them.
    """

    name: str
    drain: float = DRAIN
    base: str = "multiprocTCPBase"
    log_level: str = "WARNING"
    log_file: str | None = None
    log_format: str = "text"
    output: str = "inherit"
    metrics_interval: float = 10.0
    max_message: int = MAX_MESSAGE

    def __new__(cls, **given: Any) -> SystemSettings:
        if problems := settings_problems(cls, given, _SYSTEM):
            raise InvalidConfig("system", problems)
        return super().__new__(cls)


@dataclass(frozen=True, kw_only=True)
class DashboardSettings:
    """The table `[dashboard]`.

    Args:
        host, port: where it listens.
        hosts: names under which a browser may ask for it, besides those of loopback.
    """

    host: str = "127.0.0.1"
    port: int = 8420
    hosts: tuple[str, ...] = ()

    def __new__(cls, **given: Any) -> DashboardSettings:
        if problems := settings_problems(cls, given, _DASHBOARD):
            raise InvalidConfig("dashboard", problems)
        return super().__new__(cls)


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """The table `[cluster]`: the hosts over which pools with `spread = true` are spread; see docs/cluster.md.

    Args:
        engine: what carries the cluster.
        address: of the Ray cluster: "auto", or "ip:port" of its head.
    """

    engine: str = "ray"
    address: str = "auto"

    def __new__(cls, **given: Any) -> ClusterSettings:
        if problems := settings_problems(cls, given, _CLUSTER):
            raise InvalidConfig("cluster", problems)
        return super().__new__(cls)


@dataclass(frozen=True)
class SpreadPool:
    """A pool with `spread = true`: its settings, of all hosts together, and `most` workers of one host."""

    config: PoolConfig
    most: int | None = None


@dataclass(frozen=True)
class Configuration:
    """A whole file, checked.

    Attributes:
        document, expansion: the file, and what was put into it; `expansion.secrets` may be shown nowhere.
        overrides: where each value of `[system]` comes from that is not of the file.
        sinks: of `[telemetry]`.
        pools, spread: of this host alone; over the hosts of `cluster`.
    """

    document: Document = field(repr=False)
    expansion: Expansion = field(repr=False)
    overrides: Mapping[str, str]
    system: SystemSettings
    sinks: tuple[Any, ...]
    dashboard: DashboardSettings | None
    pools: Mapping[str, PoolConfig]
    shared_pools: Mapping[str, SharedPoolConfig]
    supervisors: Mapping[str, SupervisorSpec]
    cluster: ClusterSettings | None = None
    spread: Mapping[str, SpreadPool] = field(default_factory=dict)


def _is_name(value: Any) -> str | None:
    if isinstance(value, str) and NODE_NAME.match(value):
        return None
    return f"must be [A-Za-z][A-Za-z0-9_.-]{{0,63}}, not {value!r}"


def _is_text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else f"must be a text, not {value!r}"


def _is_port(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 65536:
        return None
    return f"must be a whole number from 0 (any that is free) to 65535, not {value!r}"


def _are_texts(value: Any) -> str | None:
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value):
        return None
    return f"must be a list of names, not {value!r}"


def _is_size(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 1024 <= value <= LONGEST_MESSAGE:
        return None
    return f"must be a whole number from 1024 to {LONGEST_MESSAGE}, not {value!r}"


_SYSTEM = {
    "name": _is_name,
    "drain": number(0),
    "base": one_of(*NODE_BASES),
    "log_level": one_of(*LEVELS),
    "log_file": _is_text,
    "log_format": one_of(*LOG_FORMATS),
    "output": one_of(*OUTPUTS),
    "metrics_interval": number(0, above=True),
    "max_message": _is_size,
}
_CLUSTER = {"engine": one_of("ray"), "address": _is_text}
_DASHBOARD = {"host": _is_text, "port": _is_port, "hosts": _are_texts}
