"""What is known of hosts and of the pools that are spread over them: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UP, LEFT, UNUSABLE = "up", "left", "unusable"
"""States of a host: it may have a share; it has left the cluster in order; its agent can run no pool there."""


@dataclass(frozen=True)
class Member:
    """A host as the engine lists it while it lives.

    Args:
        id: the engine's id; a host that was lost and comes back has another one.
        name: its hostname.
        labels: what `placement` is compared with.
    """

    id: str
    name: str
    labels: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, placement: Mapping[str, Any] | None) -> bool:
        """Whether the host has every label that is asked for; a value True asks for the label with any value."""
        wanted = (placement or {}).items()
        return all(key in self.labels and (value is True or value == self.labels[key]) for key, value in wanted)


@dataclass(frozen=True)
class HostInfo:
    """One host of a cluster.

    Attributes:
        name: its hostname; where two hosts have the same one, with a part of the id.
        node_id: the engine's id.
        state: `"up"`, `"left"` (in order, by `leave`) or `"unusable"` (no node can run there, see `reason`).
        labels: labels and custom resources, which `placement` is compared with.
        pools: how many workers of each pool the host is to have.
        since: Unix time at which it was first seen by the present coordinator.
        reason: why it is unusable, else empty.
    """

    name: str
    node_id: str
    state: str
    labels: Mapping[str, Any]
    pools: Mapping[str, int]
    since: float
    reason: str = ""


@dataclass(frozen=True)
class Declaration:
    """A pool as it was declared: of all hosts together.

    Args:
        name: the pool's name.
        config: its `PoolConfig`, with the size of all hosts, pickled: only agents open it, for it may refer to modules
            that nobody else has.
        size, max_overflow: workers of all hosts together.
        placement: labels that a host must have; None: any host.
        most: workers that one host has at most; None: no limit.
        checkout_timeout, call_timeout: of the config, in seconds.
        born: tells two pools apart that have had one name after each other.
        changed: how often it was resized since then.
    """

    name: str
    config: bytes = field(repr=False, compare=False)
    size: int
    max_overflow: int
    placement: Mapping[str, Any] | None = None
    most: int | None = None
    checkout_timeout: float = 5.0
    call_timeout: float | None = None
    born: int = 0
    changed: int = 0


@dataclass(frozen=True)
class Share:
    """What one host has of a pool."""

    declaration: Declaration
    size: int
    max_overflow: int


@dataclass(frozen=True)
class Orders:
    """All that an agent is told, each time anew: what its host is to run, and what its successor has to know.

    Args:
        shares: by pool; a pool that is not among them is stopped.
        declared: every pool of the cluster, for a coordinator that starts again.
        left: hosts that have left in order.
    """

    shares: Mapping[str, Share]
    declared: Mapping[str, Declaration]
    left: frozenset[str] = frozenset()


@dataclass(frozen=True)
class View:
    """What callers go by: who is there and who has how many workers of what.

    Args:
        version: another one for each change, also of another coordinator.
        hosts: by id.
        shares: by pool, then by host's id; hosts with no worker are left out.
        declared: by pool.
        agents: by host's id, another number for each agent that it has had, but not for one that was restarted.
        node: the name of each host's node.
    """

    version: int
    hosts: Mapping[str, HostInfo]
    shares: Mapping[str, Mapping[str, int]]
    declared: Mapping[str, Declaration]
    agents: Mapping[str, int] = field(default_factory=dict)
    node: str = ""


def display_names(members: Mapping[str, Member]) -> dict[str, str]:
    """A name for each host that no other one has: the hostname, and a part of the id where that is not enough."""
    seen: dict[str, int] = {}
    for member in members.values():
        seen[member.name] = seen.get(member.name, 0) + 1
    return {
        host: member.name if seen[member.name] == 1 else f"{member.name}~{host[:8]}" for host, member in members.items()
    }
