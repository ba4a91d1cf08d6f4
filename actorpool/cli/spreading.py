"""The part of a node in a cluster, for `actorpool up`: its pools with `spread = true`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorpool.cli.refusals import Refusal
from actorpool.configuration import Configuration
from actorpool.errors import ActorPoolError, PoolAlreadyExists

if TYPE_CHECKING:
    from actorpool.cluster import Cluster


def join(config: Configuration) -> Cluster | None:
    """Take part in the cluster of the file, whose agents use this node; start those of its pools that do not run yet.

    Every host runs the same file, and the first one starts the pools. None without `[cluster]`.

    Raises:
        Refusal: there is no cluster, or a pool did not start.
    """
    if config.cluster is None:
        return None
    try:
        cluster = open_cluster(config.system.name, config.cluster.address)
    except ActorPoolError as error:
        raise Refusal(f"[cluster] {error}", "start_failed") from error
    cluster.join()
    for name, pool in config.spread.items():
        try:
            cluster.start_pool(name, pool.config, most=pool.most)
        except PoolAlreadyExists:  # another host was first
            pass
        except ActorPoolError as error:
            leave(cluster)
            raise Refusal(f"[pools.{name}] {type(error).__name__}: {error}", "start_failed") from error
    return cluster


def open_cluster(name: str, address: str) -> Cluster:
    """A cluster that goes on without this process, and uses only nodes that run anyway."""
    from actorpool.cluster import Cluster

    return Cluster(name, address, detached=True, attach=True)


def leave(cluster: Cluster | None) -> None:
    """Have the other hosts take over what this one has."""
    if cluster is not None:
        try:
            cluster.leave()
        except ActorPoolError:  # it ends by itself, and so does our part in it
            pass
        cluster.close()
