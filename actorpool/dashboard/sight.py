"""What a node tells at one moment, as plain values. The one place that asks a node for what the dashboard shows."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from actorpool._protocol.requests import Histogram
from actorpool.attention import holder, need, sentence
from actorpool.client import insight
from actorpool.errors import ActorPoolError, PoolNotFound, SystemDown
from actorpool.messages import Event
from actorpool.process import HOST, memory
from actorpool.status import LeaseInfo, PoolStatus, TreeNode, WorkerInfo

if TYPE_CHECKING:
    from actorpool.client.system import System

MOST_EVENTS = 1000
"""Events that a manager keeps."""


@dataclass(frozen=True)
class Sight:
    """A node at one moment.

    Attributes:
        node: its name.
        time: when it was looked at, Unix time.
        pools: the figures of each pool that answered.
        silent: the pools that did not answer, each with the reason.
        tree: the supervision tree; None if it was not asked for.
    """

    node: str
    time: float
    pools: tuple[PoolStatus, ...] = ()
    silent: dict[str, str] = field(default_factory=dict)
    tree: TreeNode | None = None


@dataclass(frozen=True)
class Tally:
    """What is counted since pools began, and of use to Prometheus alone.

    Attributes:
        waits, holds: of each pool that lends workers, how long callers waited for them and held them.
        dropped: events that sinks have not taken, by the sink's name.
    """

    waits: dict[str, Histogram] = field(default_factory=dict)
    holds: dict[str, Histogram] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


def tally(system: System, pools: Iterable[PoolStatus]) -> Tally:
    """Ask each of these pools for what it has counted, once; for its sinks only if the node has any.

    Raises:
        SystemDown: the node is gone.
    """
    found = Tally(dropped=insight.dropped(system))
    has_sinks = bool(found.dropped)
    for pool in pools:
        try:
            if has_sinks:
                for sink, count in insight.dropped(system, pool.name).items():
                    found.dropped[sink] = found.dropped.get(sink, 0) + count
            found.waits[pool.name], found.holds[pool.name] = insight.histograms(system, pool.name)
        except SystemDown:
            raise
        except ActorPoolError:  # stopped meanwhile, or it lends nothing
            continue
    return found


def look(system: System, *, tree: bool = True) -> Sight:
    """Ask the manager for its pools and each pool for its figures, once.

    Args:
        system: the node.
        tree: whether to ask for the tree as well, which costs more than all the rest.

    Raises:
        SystemDown: the node is gone.
    """
    pools, silent = [], {}
    for name in system.pools():
        try:
            status: Any = system.status(name)
        except PoolNotFound:
            continue  # stopped meanwhile
        except SystemDown:
            raise
        except (ActorPoolError, TimeoutError, TypeError) as error:
            silent[name] = f"{type(error).__name__}: {error}"
        else:
            if isinstance(status, PoolStatus):
                pools.append(status)
    return Sight(system.name, time.time(), tuple(pools), silent, system.tree() if tree else None)


def event_document(event: Event) -> dict[str, Any]:
    """An event, for JSON."""
    return {
        "number": event.number,
        "time": event.time,
        "name": event.name,
        "pool": event.pool,
        "measurements": event.measurements,
        "metadata": event.metadata,
    }


def tree_document(node: TreeNode) -> dict[str, Any]:
    """A node of the tree and what is below it, for JSON."""
    return asdict(node)


def state_document(sight: Sight, leases: dict[str, list[LeaseInfo]]) -> dict[str, Any]:
    """The pools by need, and a sentence with commands for each that needs attention, for JSON.

    Args:
        sight: the node.
        leases: those of pools in need, where they were asked for.
    """
    ordered = sorted(sight.pools, key=lambda pool: (-need(pool), pool.name))
    return {
        "node": sight.node,
        "host": HOST,
        "time": sight.time,
        "attention": [*_silences(sight), *_needs(sight.node, ordered, leases)],
        "pools": [pool.as_dict() | {"need": need(pool)} for pool in ordered],
    }


def _silences(sight: Sight) -> Iterable[dict[str, Any]]:
    for name, reason in sight.silent.items():
        commands = [f"actorpool status {sight.node} {name}"]
        yield {"pool": name, "text": f"{name}: does not answer ({reason})", "commands": commands}


def _needs(node: str, pools: Iterable[PoolStatus], leases: dict[str, list[LeaseInfo]]) -> Iterable[dict[str, Any]]:
    for pool in pools:
        text = sentence(pool, leases.get(pool.name, ()))
        if text is not None:
            yield {"pool": pool.name, "text": text, "commands": _commands(node, pool, leases.get(pool.name, []))}


def _commands(node: str, pool: PoolStatus, leases: list[LeaseInfo]) -> list[str]:
    """What an operator would type next."""
    commands = [f"actorpool status {node} {pool.name}"]
    if leases:
        oldest = max(leases, key=lambda lease: lease.age)
        commands.append(f"actorpool stack {node} {pool.name} {oldest.worker_id}")
    if pool.state == "full":
        commands.append(f"actorpool resize {node} {pool.name} {pool.size + max(1, pool.size // 2)}")
    elif pool.state in ("suspended", "draining"):
        commands.append(f"actorpool resume {node} {pool.name}")
    return commands


def samples_document(system: System, name: str) -> list[dict[str, Any]]:
    """The last samples of a pool, oldest first, for JSON."""
    return [asdict(sample) for sample in system.metrics(name).samples]


def leases(system: System, name: str) -> list[LeaseInfo]:
    """The leases of a pool that are out; a shared pool lends none."""
    try:
        pool: Any = system.pool(name)
    except PoolNotFound:
        return []
    return list(pool.leases())


def pool_document(system: System, name: str) -> dict[str, Any]:
    """All that is known of one pool, and nothing of any other, for JSON.

    Raises:
        PoolNotFound: there is none of that name.
    """
    status = system.status(name)
    workers, leases = _of_workers(system, name)
    return {
        "node": system.name,
        "time": time.time(),
        "status": status.as_dict() | {"need": need(status)},
        "attention": list(_needs(system.name, [status], {name: leases})),
        "config": insight.settings(system, name),
        "workers": [asdict(worker) | {"memory_bytes": memory(worker.pid)} for worker in workers],
        "leases": [asdict(lease) | {"holder": holder(lease)} for lease in leases],
        "samples": samples_document(system, name),
    }


def _of_workers(system: System, name: str) -> tuple[list[WorkerInfo], list[LeaseInfo]]:
    """The workers of a pool, and its leases, oldest first; a shared pool lends none."""
    try:
        pool: Any = system.pool(name)
    except PoolNotFound:
        return [], []
    return pool.workers(), sorted(pool.leases(), key=lambda lease: -lease.age)
