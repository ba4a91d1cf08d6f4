"""`actorpool down`: end a node, whatever started it."""

from __future__ import annotations

import click

from actorpool.cli import nodes


@click.command()
@nodes.node_argument
@click.option("--drain-timeout", "seconds", metavar="SECONDS", type=click.FloatRange(0),
              help="How long running calls may go on; without it, as the node's file says, or 7.")  # fmt: skip
@click.option("--now", is_flag=True, help="Do not drain.")
@nodes.json_option
def command(name: str, seconds: float | None, now: bool, as_json: bool) -> None:
    """Drain the pools of a node and end it."""
    from actorpool.cli import draining
    from actorpool.cli.output import document, say
    from actorpool.node import launch

    with nodes.connect(name) as system:
        longest = 0.0 if now else draining.limit(system) if seconds is None else seconds
        if not now:
            say(f"draining {name}: {draining.leases_out(system)} leases out, {longest:g} s at most")
            draining.drain(system, longest)
    launch.stop(name)
    click.echo(document(node=name, ended=True) if as_json else f"{name} has ended")
