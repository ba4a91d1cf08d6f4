"""Pools spread over several hosts, carried by Ray (extra `ray`); see docs/cluster.md.

Importing this package imports no ray: that happens when the first `Cluster` is made.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorpool.cluster.aio import AsyncClusterPool
    from actorpool.cluster.cluster import Cluster
    from actorpool.cluster.lease import AsyncClusterLease, ClusterLease
    from actorpool.cluster.pool import ClusterPool
    from actorpool.core.cluster.figures import ClusterStatus
    from actorpool.core.cluster.members import HostInfo

_HOMES = {
    "AsyncClusterLease": "actorpool.cluster.lease",
    "AsyncClusterPool": "actorpool.cluster.aio",
    "Cluster": "actorpool.cluster.cluster",
    "ClusterLease": "actorpool.cluster.lease",
    "ClusterPool": "actorpool.cluster.pool",
    "ClusterStatus": "actorpool.core.cluster.figures",
    "HostInfo": "actorpool.core.cluster.members",
}

__all__ = [
    "AsyncClusterLease",
    "AsyncClusterPool",
    "Cluster",
    "ClusterLease",
    "ClusterPool",
    "ClusterStatus",
    "HostInfo",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
