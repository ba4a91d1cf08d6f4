"""`actorpool hosts` and `actorpool leave`: the hosts of a cluster."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from actorpool.cli import nodes

if TYPE_CHECKING:
    from actorpool.cluster import Cluster

address_option = click.option(
    "--address", metavar="IP:PORT", default="auto", help="Of the Ray cluster's head; without it, this host's cluster."
)


def connect(name: str | None, address: str = "auto") -> Cluster:
    """Take part in a cluster (None: in the only one there is) for the time of a command."""
    from actorpool.cluster import Cluster

    try:
        return Cluster.connect(name, address)
    except ImportError as error:
        raise click.ClickException(str(error)) from error


@click.command(short_help="Show the hosts of a cluster.")
@click.argument("name", metavar="[NAME]", required=False)
@address_option
@nodes.json_option
def hosts(name: str | None, address: str, as_json: bool) -> None:
    """Show the hosts of a cluster, of the only one if no NAME is given, and how many workers of each pool they have."""
    from actorpool.cli.output import document, show, table

    with connect(name, address) as cluster:
        known = cluster.hosts()
    if as_json:
        click.echo(document(cluster=cluster.name, hosts=[asdict(one) for one in known]))
        return
    rows = [[one.name, one.state, _pools(one.pools), _labels(one.labels), one.reason or None] for one in known]
    show(table(["HOST", "STATE", "WORKERS", "LABELS", "REASON"], rows))


def _pools(pools: Any) -> str | None:
    return ", ".join(f"{pool} {size}" for pool, size in sorted(pools.items())) or None


def _labels(labels: Any) -> str | None:
    given = {key: value for key, value in labels.items() if not key.startswith("ray.io/")}
    return ", ".join(key if value is True else f"{key}={value}" for key, value in sorted(given.items())) or None


@click.command(short_help="Have a host leave a cluster in order.")
@click.argument("name", metavar="NAME")
@click.option("--host", metavar="HOST", help="Another host than this one.")
@address_option
@nodes.json_option
def leave(name: str, host: str | None, address: str, as_json: bool) -> None:
    """Have this host leave a cluster: the others take over its workers, then its agent ends."""
    from actorpool.cli.output import document

    with connect(name, address) as cluster:
        try:
            cluster.leave(host)
        except LookupError as error:
            raise click.ClickException(str(error)) from error
    who = "this host" if host is None else f"host {host}"
    click.echo(document(cluster=name, host=host, left=True) if as_json else f"{who} leaves {name}")


def show_pool(name: str, pool: str, as_json: bool) -> Any:
    """Show the figures of a pool on each of its hosts, and their sum, which is returned."""
    from actorpool.cli.output import document, milliseconds, show, table

    with connect(name) as cluster:
        status = cluster.pool(pool).status()
    if as_json:
        click.echo(document(cluster=name, pool=asdict(status)))
        return status
    rows = [
        [host, *([one.state, one.monitors, one.workers, f"{one.size}+{one.max_overflow}", one.waiting,
                  milliseconds(one.wait_ms_p99), one.restarts] if one else ["no answer"] + [None] * 6)]
        for host, one in [*sorted(status.hosts.items()), ("(all)", status)]
    ]  # fmt: skip
    show(table(["HOST", "STATE", ">OUT", ">IDLE", ">SIZE", ">WAITING", ">P99", ">RESTARTS"], rows))
    return status
