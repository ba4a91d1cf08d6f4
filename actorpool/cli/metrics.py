"""`actorpool metrics`: a node's figures for Prometheus, without a dashboard."""

from __future__ import annotations

import click

from actorpool.cli import nodes


@click.command(short_help="Print a node's figures for Prometheus.")
@nodes.node_argument
def command(name: str) -> None:
    """Print the figures of a node in the text format of Prometheus, as the dashboard serves them at /metrics."""
    from actorpool.dashboard.metrics import render

    with nodes.connect(name) as system:
        click.echo(render(system), nl=False)
