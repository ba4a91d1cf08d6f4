"""`actorpool dashboard`: the page of a node, served by a process of its own, for a node that was started without."""

from __future__ import annotations

import click

from actorpool.cli import nodes
from actorpool.cli.refusals import Refusal


@click.command()
@nodes.node_argument
@click.option("--port", default=8420, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A further name that browsers may ask for.")
def command(name: str, port: int, host: str, hosts: tuple[str, ...]) -> None:
    """Serve the page of a node, which tells what needs attention, until Ctrl-C. It is read-only.

    Whoever can reach the address can read it: on a shared machine, every user of that machine.
    """
    from actorpool.cli.output import say

    try:
        from actorpool.dashboard.server import serve
    except ImportError as error:
        raise Refusal(str(error), "not_installed", "Install it: pip install 'actorpool[dashboard]'") from error
    from actorpool.dashboard.sockets import listen, url_of, warning_of

    nodes.connect(name).shutdown()
    try:
        ours = listen(host, port)
    except OSError as error:
        hint = "Choose another one: --port 0"
        raise Refusal(f"cannot listen on {host}:{port}: {error.strerror}.", "address_taken", hint) from error
    if warning := warning_of(ours):
        say(warning)
    serve(name, ours, hosts, lambda: click.echo(f"{name}: {url_of(ours)}"))
