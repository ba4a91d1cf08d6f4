"""What a node tells at one moment, as plain values. The one place that asks a node for what the dashboard shows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from actorpool import __version__
from actorpool._protocol.requests import Histogram
from actorpool.attention import SERVING, holder, need, sentence, worst_first
from actorpool.client import insight
from actorpool.errors import ActorPoolError, PoolNotFound, SystemDown
from actorpool.messages import Event
from actorpool.process import HOST, memory
from actorpool.status import LeaseInfo, PoolStatus, TreeNode, WorkerInfo

if TYPE_CHECKING:
    from actorpool.client.system import System

MOST_EVENTS = 1000
"""Events that a manager keeps."""
PATIENCE = 2.0
"""Seconds that a pool may take to tell its figures; then it is told of as one that does not answer."""
WORST = 4
"""The need of what serves nobody, as of a degraded pool."""
_SECTIONS = {"degraded": "degraded", "circuit_open": "degraded"}
"""Of the runbook, by the state of a pool that does not serve."""


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
            status: Any = insight.status(system, name, PATIENCE)
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


def nodes_of(node: TreeNode) -> Iterator[TreeNode]:
    """A node of the tree and all below it."""
    yield node
    for child in node.children:
        yield from nodes_of(child)


def tree_document(node: TreeNode) -> dict[str, Any]:
    """A node of the tree and what is below it, for JSON."""
    return asdict(node)


def state_document(
    sight: Sight,
    leases: Mapping[str, list[LeaseInfo]],
    memories: Mapping[str, int] = MappingProxyType({}),
    troubles: Iterable[str] = (),
) -> dict[str, Any]:
    """The pools by need, and a sentence with commands for each that needs attention, for JSON.

    Args:
        sight: the node.
        leases: those of pools in need, where they were asked for.
        memories: bytes that the workers of each pool have, where that is known.
        troubles: what is the matter with supervisors.
    """
    ordered = worst_first(sight.pools)
    needs = [*_troubles(sight.node, troubles), *_silences(sight), *_needs(sight.node, ordered, leases)]
    return {
        "node": sight.node,
        "host": HOST,
        "version": __version__,
        "time": sight.time,
        "attention": needs,
        "pools": [pool.as_dict() | {"need": need(pool), "memory_bytes": memories.get(pool.name)} for pool in ordered],
    }


def memories(tree: TreeNode) -> dict[str, int]:
    """How many bytes the workers of each pool have together, as far as that can be seen."""
    found: dict[str, int] = {}
    for node in nodes_of(tree):
        if node.kind == "pool":
            known = [seen for child in node.children if child.pid and (seen := memory(child.pid)) is not None]
            if known:
                found[node.id] = sum(known)
    return found


def _attention(pool: str | None, text: str, commands: list[str], need: int, section: str) -> dict[str, Any]:
    runbook = f"docs/runbook.md#{section}" if section else None
    return {"pool": pool, "text": text, "commands": commands, "need": need, "runbook": runbook}


def _troubles(node: str, troubles: Iterable[str]) -> Iterable[dict[str, Any]]:
    commands = [f"actorpool tree {node}", f"actorpool events {node} 'supervisor.*'"]
    return [_attention(None, text, commands, WORST, "a-supervisor-gave-up") for text in troubles]


def _silences(sight: Sight) -> Iterable[dict[str, Any]]:
    for name, reason in sight.silent.items():
        commands = [f"actorpool status {sight.node} {name}", f"actorpool events {sight.node}"]
        yield _attention(name, f"{name}: does not answer ({reason})", commands, WORST, "")


def _needs(node: str, pools: Iterable[PoolStatus], leases: Mapping[str, list[LeaseInfo]]) -> Iterable[dict[str, Any]]:
    for pool in pools:
        text = sentence(pool, leases.get(pool.name, ()))
        if text is not None:
            commands = _commands(node, pool, leases.get(pool.name, []))
            section = "callers-wait" if pool.state in SERVING else _SECTIONS.get(pool.state, "")
            yield _attention(pool.name, text, commands, need(pool), section)


def _commands(node: str, pool: PoolStatus, leases: list[LeaseInfo]) -> list[str]:
    """What an operator would type next."""
    commands = [f"actorpool status {node} {pool.name}"]
    if leases:
        oldest = max(leases, key=lambda lease: lease.age)
        commands.append(f"actorpool stack {node} {pool.name} {oldest.worker_id}")
    if pool.state == "full":
        commands.append(f"actorpool resize {node} {pool.name} {pool.size + max(1, pool.size // 2)}")
    elif need(pool) == WORST:
        commands.append(f"actorpool events {node} 'worker.*'")
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
    status = insight.status(system, name, PATIENCE)
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
