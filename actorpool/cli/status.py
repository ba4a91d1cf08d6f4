"""`actorpool status`: nodes, the pools of a node, or one pool with its workers, leases and last events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from actorpool.cli import nodes
from actorpool.cli.refusals import FAILED
from actorpool.process import memory

if TYPE_CHECKING:
    from rich.console import RenderableType

    from actorpool.client.system import System
    from actorpool.status import LeaseInfo, PoolStatus, WorkerInfo

LAST_EVENTS = 5


@click.command(short_help="Show nodes, the pools of a node, or one pool.")
@nodes.optional_node
@click.argument("pool", type=nodes.PoolName(), metavar="[POOL]", required=False)
@nodes.json_option
@click.option("--check", is_flag=True, help="Exit with 1 unless every pool asked about serves (ready, overflow, full).")
@click.option("--hosts", "by_host", is_flag=True, help="NAME is a cluster: show POOL on each of its hosts.")
def command(name: str | None, pool: str | None, as_json: bool, check: bool, by_host: bool) -> int:
    """Show your nodes, the pools of a node (those in need first), or one pool in detail."""
    if by_host:
        return _by_host(name, pool, as_json, check)
    if name is None:
        return _nodes(as_json, check)
    with nodes.connect(name) as system:
        if pool is not None:
            return _pool(system, pool, as_json, check)
        return _pools(system, as_json, check)


def statuses(system: System) -> list[PoolStatus]:
    """The figures of every pool, those in need first; a pool that ends meanwhile is left out."""
    from actorpool.attention import worst_first
    from actorpool.errors import PoolDown, PoolNotFound

    found = []
    for name in system.pools():
        try:
            found.append(system.status(name))
        except PoolNotFound:
            continue  # stopped meanwhile
        except PoolDown:
            found.append(_without_figures(name, "failed"))
    return worst_first(found)


def _starting(system: System) -> list[PoolStatus]:
    """The pools that are on their way in, which have no figures yet."""
    names = system.pools()
    managers = (node for node in system.tree().children if node.id == "manager")
    children = [child for manager in managers for child in manager.children if child.kind == "pool"]
    return [_without_figures(child.id, "starting") for child in children if child.id not in names]


def _without_figures(name: str, state: str) -> PoolStatus:
    """A pool that cannot be asked: every figure is None, for it is not known."""
    from actorpool.status import PoolStatus

    unknown: dict[str, Any] = dict.fromkeys((item.name for item in fields(PoolStatus)), None)
    return PoolStatus(**{**unknown, "name": name, "state": state})


def _by_host(name: str | None, pool: str | None, as_json: bool, check: bool) -> int:
    from actorpool.attention import SERVING
    from actorpool.cli import hosts

    if name is None or pool is None:
        raise click.UsageError("--hosts needs the name of a cluster and of a pool: actorpool status NAME POOL --hosts")
    return FAILED if hosts.show_pool(name, pool, as_json).state not in SERVING and check else 0


# -- nodes --------------------------------------------------------------------------------------------------------


def _nodes(as_json: bool, check: bool) -> int:
    from actorpool.attention import SERVING
    from actorpool.cli.output import document, say, show, table
    from actorpool.node import runtime

    facts = []
    for name in nodes.running():
        with nodes.connect(name) as system:
            found = runtime.find(name)[1]
            pools = statuses(system)
            facts.append({
                "name": name,
                "pid": found.pid,
                "version": found.version,
                "directory": system.directory,
                "pools": len(pools),
                "serving": sum(one.state in SERVING for one in pools),
                "waiting": sum(one.waiting or 0 for one in pools),
                "leases": sum(one.monitors or 0 for one in pools),
                "restarts": sum(one.restarts or 0 for one in pools),
            })  # fmt: skip
    if as_json:
        click.echo(document(nodes=facts))
    elif facts:
        columns = ["NODE", ">PID", "VERSION", ">POOLS", ">SERVING", ">LEASES", ">WAITING", ">RESTARTS"]
        keys = ["name", "pid", "version", "pools", "serving", "leases", "waiting", "restarts"]
        show(table(columns, [[one[key] for key in keys] for one in facts]))
    else:
        say("No node of yours runs. Start one: actorpool up FILE.toml")
    healthy = bool(facts) and all(one["serving"] == one["pools"] for one in facts)
    return FAILED if check and not healthy else 0


# -- the pools of a node --------------------------------------------------------------------------------------------


COLUMNS = ("POOL", "STATE", ">OUT", ">IDLE", ">SIZE", ">WAITING", ">OLDEST", ">P99", ">MEMORY", ">RESTARTS", ">SINCE")
"""OLDEST is how long the first of those who wait has waited, P99 what 99 of 100 have waited at most; MEMORY is of all
workers together."""
_DISPENSABLE = ("P99", "SINCE", "SIZE", "IDLE", "OLDEST", "MEMORY", "RESTARTS", "OUT")
WORKER_COLUMNS = (">WORKER", ">PID", "STATE", ">CALLS", ">RESTARTS", ">MEMORY", ">CONNECTED")


@dataclass(frozen=True)
class Member:
    """A worker, and the memory of its process in bytes, as the kernel says; None if it does not."""

    info: WorkerInfo
    memory: int | None


def members(system: System, status: PoolStatus) -> list[Member]:
    """The workers of a pool; none of a shared pool, or of one that cannot be asked."""
    from actorpool.errors import ActorPoolError

    if not status.total:  # or that is not known
        return []
    try:
        return [Member(one, memory(one.pid)) for one in system.pool(status.name).workers()]
    except ActorPoolError:
        return []


def memory_of(workers: Iterable[Member]) -> int | None:
    """What workers have together; None if that of none is known."""
    known = [one.memory for one in workers if one.memory is not None]
    return sum(known) if known else None


def worker_rows(workers: Iterable[Member]) -> list[list[Any]]:
    """A row of a table for each worker."""
    import time

    from actorpool.cli.output import seconds, size

    now = time.time()
    return [
        [one.id, one.pid, one.state, one.calls, one.restarts, size(member.memory),
         seconds(now - one.connected_at) if one.connected_at else "never"]
        for member in workers for one in [member.info]
    ]  # fmt: skip


def pool_table(rows: Sequence[Sequence[Any]], width: int) -> RenderableType:
    """A line for each pool, with as many figures as there is room for."""
    from actorpool.cli.output import table

    return table(COLUMNS, rows, width, _DISPENSABLE)


def pool_rows(pools: Iterable[tuple[PoolStatus, int | None]]) -> list[list[Any]]:
    """A row of a table for each pool and the memory of its workers."""
    from actorpool.cli.output import milliseconds, seconds, size

    return [
        [
            pool.name,
            pool.state,
            pool.monitors,
            pool.workers,
            None if pool.size is None else f"{pool.size}+{pool.max_overflow}",
            pool.waiting,
            seconds(getattr(pool, "oldest_wait", None)) if pool.waiting else None,
            milliseconds(pool.wait_ms_p99),
            size(taken),
            pool.restarts,
            seconds(pool.since),
        ]
        for pool, taken in pools
    ]


def _pools(system: System, as_json: bool, check: bool) -> int:
    from actorpool.attention import SERVING, sentence
    from actorpool.cli.output import console, document, say, show

    pools = [*_starting(system), *statuses(system)]
    if as_json:
        click.echo(document(node=system.name, pools=[pool.as_dict() for pool in pools]))
    elif pools:
        lines = [(pool, memory_of(members(system, pool))) for pool in pools]
        show(pool_table(pool_rows(lines), console().width))
        troubles = [text for text in map(sentence, pools) if text]
        if troubles:
            click.echo("\n" + "\n".join(troubles))
    else:
        say(f"Node {system.name!r} has no pools.")
    return FAILED if check and any(pool.state not in SERVING for pool in pools) else 0


# -- one pool -------------------------------------------------------------------------------------------------------


def _pool(system: System, name: str, as_json: bool, check: bool) -> int:
    from actorpool.attention import SERVING
    from actorpool.errors import PoolNotFound

    try:
        status = system.status(name)
    except PoolNotFound as error:
        raise nodes.no_pool(system, name) from error
    workers, leases = members(system, status), _leases(system, name)
    events = _events(system, name)
    if as_json:
        from actorpool.cli.events import as_document as event_document
        from actorpool.cli.output import document

        told = {
            "workers": [{**asdict(one.info), "memory_bytes": one.memory} for one in workers],
            "leases": [asdict(one) for one in leases],
        }
        recent = [event_document(event) for event in events]
        click.echo(document(node=system.name, pool=status.as_dict(), **told, events=recent))
    else:
        _show_pool(status, workers, leases, events)
    return FAILED if check and status.state not in SERVING else 0


def _leases(system: System, name: str) -> list[LeaseInfo]:
    """The leases with the oldest first; a shared pool has none."""
    from actorpool.errors import PoolNotFound

    try:
        return sorted(system.pool(name).leases(), key=lambda lease: -lease.age)
    except PoolNotFound:
        return []


def _events(system: System, name: str) -> list[Any]:
    return [event for event in system.events() if event.pool == name][-LAST_EVENTS:]


def _show_pool(status: PoolStatus, workers: list[Member], leases: list[LeaseInfo], events: list[Any]) -> None:
    from rich.text import Text

    from actorpool.attention import holder, sentence
    from actorpool.cli.output import STYLES, milliseconds, seconds, show, size, table

    head = Text(f"{status.name}  ", style="bold")
    head.append(status.state, STYLES.get(status.state, ""))
    head.append(f"  up {seconds(status.since)}" if status.since else "", "not bold")
    trouble = sentence(status, leases)
    counters = f"checkouts {status.checkouts}, timeouts {status.timeouts}, shed {status.shed}"
    facts = [
        ("workers", f"{status.total} alive, {status.workers} idle, {status.monitors} out "
                    f"(size {status.size}, overflow {status.max_overflow})"),
        ("waiting", f"{status.waiting}"),
        ("wait", f"p50 {milliseconds(status.wait_ms_p50)}, p99 {milliseconds(status.wait_ms_p99)}"),
        ("hold", f"p50 {milliseconds(status.hold_ms_p50)}"),
        ("counted", f"{counters}, reclaimed {status.reclaimed}"),
        ("failures", f"restarts {status.restarts}, connect errors {status.connect_errors}"),
        ("memory", f"{size(memory_of(workers))} of all workers"),
    ]  # fmt: skip
    show(head, *(Text(f"  {name:<10}{text}") for name, text in facts))
    if trouble:
        show(Text(trouble))
    if workers:
        show(Text(), table(WORKER_COLUMNS, worker_rows(workers)))
    if leases:
        rows = [[one.id, one.worker_id, seconds(one.age), holder(one)] for one in leases]
        show(Text(), table([">LEASE", ">WORKER", ">AGE", "HOLDER"], rows))
    if events:
        from actorpool.cli.events import event_table

        show(Text(), event_table(events))
