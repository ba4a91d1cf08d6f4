"""The verbs that exist twice take the same arguments: of threads and of asyncio, of one host and of several."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from actorpool.client.aio import AsyncLease, AsyncPool
from actorpool.client.lease import Lease
from actorpool.client.pool import Pool
from actorpool.client.shared import SharedPool
from actorpool.client.shared_aio import AsyncSharedPool
from actorpool.cluster.aio import AsyncClusterPool
from actorpool.cluster.lease import AsyncClusterLease, ClusterLease
from actorpool.cluster.pool import ClusterPool

IN_THREADS = {"submit", "map"}
"""Those that have no twin: asyncio has tasks."""


def verbs(cls: type) -> dict[str, list[tuple[Any, ...]]]:
    """The public methods, and of each its parameters."""
    return {
        name: [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(method).parameters.values()
        ]
        for name, method in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("threads", "asyncio"),
    [(Pool, AsyncPool), (Lease, AsyncLease), (SharedPool, AsyncSharedPool), (ClusterPool, AsyncClusterPool),
     (ClusterLease, AsyncClusterLease)],
)  # fmt: skip
def test_what_blocks_and_what_is_awaited_take_the_same_arguments(threads: type, asyncio: type) -> None:
    blocking, awaited = verbs(threads), verbs(asyncio)
    assert blocking.keys() - awaited.keys() <= IN_THREADS
    assert {name: taken for name, taken in blocking.items() if name in awaited} == awaited


@pytest.mark.parametrize(("here", "far"), [(Pool, ClusterPool), (AsyncPool, AsyncClusterPool)])
def test_a_pool_of_several_hosts_takes_what_one_of_this_host_takes_and_perhaps_a_host(here: type, far: type) -> None:
    assert verbs(here) == {
        name: [parameter for parameter in taken if parameter[0] != "host"] for name, taken in verbs(far).items()
    }
