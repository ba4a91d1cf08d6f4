"""The command line: `actorpool COMMAND`. One module for each command, loaded when it is asked for.

Exit codes: 0 done, 1 the world says no, 2 wrong usage or a bad file, 130 interrupted. A user's mistake never shows a
traceback. What was asked for goes to standard output, everything else to standard error; with `--json` errors go to
standard output too, as a document.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from actorpool import __version__
from actorpool.cli.refusals import FAILED, as_document, as_text, exit_code
from actorpool.errors import ActorPoolError

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "demo": "demo",
    "up": "up",
    "down": "down",
    "status": "status",
    "tree": "tree",
    "top": "top",
    "events": "events",
    "stack": "stack",
    "metrics": "metrics",
    "resize": "operate",
    "suspend": "operate",
    "resume": "operate",
    "drain": "operate",
    "recycle": "operate",
    "hosts": "hosts",
    "leave": "hosts",
    "dashboard": "dashboard",
    "doctor": "doctor",
    "mcp": "mcp",
    "completion": "completion",
    "bench": "bench",
}
"""The commands in the order of the help, and the module of this package that has each: as `command`, or by its name."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"{__name__}.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name, None) or module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a name that is none, say which one is near."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="actorpool")
def _actorpool() -> None:
    """Supervised pools of worker actors."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: without the program's name; None takes `sys.argv`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot draw a tree shows question marks
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = _actorpool.main(given, prog_name="actorpool", standalone_mode=False)
        sys.stdout.flush()  # so that a reader that has gone is noticed here
        return result if isinstance(result, int) else 0
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (click.ClickException, click.Abort, ActorPoolError, KeyboardInterrupt) as error:
        from actorpool._scrubbing import scrub, scrub_value  # not at the top: completion does without

        if "--json" in given:
            click.echo(json.dumps(scrub_value(as_document(error))))
        else:
            click.echo(scrub(as_text(error)), err=True)
        return exit_code(error)
