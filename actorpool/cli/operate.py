"""`actorpool resize`, `suspend`, `resume`, `drain` and `recycle`: what an operator does to one pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from actorpool.cli import nodes

if TYPE_CHECKING:
    from actorpool.client.pool import Pool

_timeout = click.option(
    "--timeout", default=5.0, show_default=True, metavar="SECONDS", type=click.FloatRange(0), help="Longest wait."
)


def _operate(name: str, pool: str, operation: Callable[[Pool], Any], done: str, as_json: bool) -> None:
    """Do it, and tell in what state the pool is then."""
    from actorpool.cli.output import document

    with nodes.connect(name) as system:
        handle = nodes.find_pool(system, pool)
        operation(handle)
        status = handle.status()
    if as_json:
        click.echo(document(node=name, pool=status.as_dict()))
    else:
        click.echo(f"{pool} {done}: {status.state}, size {status.size}+{status.max_overflow}, {status.total} workers")


@click.command(short_help="Change how many workers a pool keeps.")
@nodes.node_argument
@nodes.pool_argument
@click.argument("size", type=click.IntRange(0), required=False, metavar="[SIZE]")
@click.option("--max-overflow", type=click.IntRange(0), metavar="N", help="Workers above SIZE while demand lasts.")
@nodes.json_option
def resize(name: str, pool: str, size: int | None, max_overflow: int | None, as_json: bool) -> None:
    """Change how many workers a pool keeps, while it works; no lease breaks."""
    if size is None and max_overflow is None:
        raise click.UsageError("give a SIZE, --max-overflow N, or both")
    _operate(name, pool, lambda handle: handle.resize(size, max_overflow), "was resized", as_json)


@click.command(short_help="Serve no new caller of a pool.")
@nodes.node_argument
@nodes.pool_argument
@nodes.json_option
def suspend(name: str, pool: str, as_json: bool) -> None:
    """Serve no new caller; leases go on, waiters wait. `resume` ends it."""
    _operate(name, pool, lambda handle: handle.suspend(), "was suspended", as_json)


@click.command(short_help="End a suspension or a drain.")
@nodes.node_argument
@nodes.pool_argument
@nodes.json_option
def resume(name: str, pool: str, as_json: bool) -> None:
    """End a suspension or a drain."""
    _operate(name, pool, lambda handle: handle.resume(), "was resumed", as_json)


@click.command(short_help="Wait until every lease is back.")
@nodes.node_argument
@nodes.pool_argument
@_timeout
@nodes.json_option
def drain(name: str, pool: str, timeout: float, as_json: bool) -> None:
    """Suspend a pool and wait until every lease is back; at the end of SECONDS what still runs is interrupted."""
    _operate(name, pool, lambda handle: handle.drain(timeout), "was drained", as_json)


@click.command(short_help="Replace every connection of a pool.")
@nodes.node_argument
@nodes.pool_argument
@click.option("--restart", is_flag=True, help="Replace the processes as well.")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0), help="Longest wait; without it, no limit.")
@nodes.json_option
def recycle(name: str, pool: str, restart: bool, timeout: float | None, as_json: bool) -> None:
    """Replace every connection of a pool, one at a time; for after a deploy or a failover."""
    _operate(name, pool, lambda handle: handle.recycle(timeout, restart), "was recycled", as_json)
