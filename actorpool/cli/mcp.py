"""`actorpool mcp`: serve the tools of a module by the Model Context Protocol."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(short_help="Serve tools by the Model Context Protocol.")
@click.argument("target", metavar="MODULE:TOOLS")
@click.option("--http", "port", type=click.IntRange(1, 65535), help="Serve http://127.0.0.1:PORT/mcp instead of stdio.")
def command(target: str, port: int | None) -> int:
    """Serve the `Tools` (or `Sessions`) that a module has, over standard input and output.

    It ends with its client, and its workers end with it.
    """
    from actorpool.agents import mcp_server

    with mcp_server.nothing_on_stdout():
        tools = mcp_server.find(target)
    mcp_server.serve(tools, target.partition(":")[0], port)
    return 0
