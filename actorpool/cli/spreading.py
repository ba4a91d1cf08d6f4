"""The part of a node in a cluster, for `actorpool up`: its pools with `spread = true`.

What is asked of the cluster is asked by a process of its own, which ends. A process that takes part in a Ray cluster
ends with Ray's part of its host, or a minute after the head; with `up`, the node and all its pools would end, too.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from actorpool.cli.refusals import Refusal
from actorpool.configuration import Configuration
from actorpool.errors import ActorPoolError, PoolAlreadyExists
from actorpool.serialization import pickling

if TYPE_CHECKING:
    from actorpool.cluster import Cluster
    from actorpool.configuration.settings import SpreadPool

LEAVING = 10.0
"""Seconds that a node which ends waits until its host has left; a cluster whose head is gone does not answer."""


class Part(NamedTuple):
    """What the processes of a node and of its cluster have to know of each other."""

    name: str
    address: str
    pools: Mapping[str, SpreadPool]


def part_of(config: Configuration) -> Part | None:
    """The part in a cluster that a file describes; None without `[cluster]`."""
    return None if config.cluster is None else Part(config.system.name, config.cluster.address, config.spread)


def join(config: Configuration) -> None:
    """Take part in the cluster of the file, whose agents use this node; start those of its pools that do not run yet.

    Every host runs the same file, and the first one starts the pools.

    Raises:
        Refusal: there is no cluster, or a pool did not start.
    """
    part = part_of(config)
    if part is not None:
        _apart(take_part, part, None)


def leave(config: Configuration) -> None:
    """Have the other hosts take over what this one has."""
    part = part_of(config)
    if part is not None:
        try:
            _apart(withdraw, part, LEAVING)
        except (Refusal, subprocess.TimeoutExpired):  # the cluster ends by itself, and so does our part in it
            pass


# -- in the process for it --------------------------------------------------------------------------------------


def take_part(part: Part) -> None:
    """As `join`, in this process."""
    try:
        cluster = open_cluster(part.name, part.address)
    except (ActorPoolError, ImportError) as error:
        raise Refusal(f"[cluster] {error}", "start_failed") from error
    with cluster:
        cluster.join()
        for name, pool in part.pools.items():
            try:
                cluster.start_pool(name, pool.config, most=pool.most)
            except PoolAlreadyExists:  # another host was first
                pass
            except ActorPoolError as error:
                cluster.leave()
                raise Refusal(f"[pools.{name}] {type(error).__name__}: {error}", "start_failed") from error


def withdraw(part: Part) -> None:
    """As `leave`, in this process."""
    try:
        with open_cluster(part.name, part.address, start=False) as cluster:
            cluster.leave()
    except (ActorPoolError, ImportError) as error:
        raise Refusal(str(error)) from error


def open_cluster(name: str, address: str, start: bool = True) -> Cluster:
    """A cluster that goes on without this process, and uses only nodes that run anyway."""
    from actorpool.cluster import Cluster

    return Cluster(name, address, detached=True, attach=True) if start else Cluster.connect(name, address)


def _apart(work: Callable[[Part], None], part: Part, timeout: float | None) -> None:
    """Have a process of its own do it; raises its `Refusal`."""
    told = pickle.dumps((sys.path, pickling.dumps((work, part))))
    command = [sys.executable, "-m", "actorpool.cli.spreading"]
    done = subprocess.run(command, input=told, stdout=subprocess.PIPE, timeout=timeout, check=False)
    if done.returncode != 0:
        raise Refusal(f"[cluster] the process that asks it has ended with {done.returncode}", "start_failed")
    refusal = pickling.loads(done.stdout)
    if refusal is not None:
        raise Refusal(*refusal)


def _main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what Ray or a worker's module may print is no answer
    sys.path[:], packed = pickle.load(sys.stdin.buffer)
    work, part = pickling.loads(packed)
    try:
        work(part)
        answers.write(pickling.dumps(None))
    except Refusal as refusal:
        answers.write(pickling.dumps((refusal.message, refusal.code)))
    answers.close()


if __name__ == "__main__":
    _main()
