"""`actorpool completion`: the script that teaches a shell the commands, and the names of nodes and pools."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_HOW = {
    "bash": 'eval "$(actorpool completion bash)"',
    "zsh": 'eval "$(actorpool completion zsh)"',
    "fish": "actorpool completion fish | source",
}


@click.command(
    short_help="Print the script that completes names.",
    epilog="\b\n" + "\n".join(f"{shell + ':':6}{how}" for shell, how in _HOW.items()),
)
@click.argument("shell", type=click.Choice(sorted(_HOW)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell; put the line below into its startup file."""
    kind = get_completion_class(shell)
    assert kind is not None  # one of click's own
    click.echo(kind(ctx.find_root().command, {}, "actorpool", "_ACTORPOOL_COMPLETE").source())
