"""The command line: `actorpool COMMAND`. One module for each command, loaded when it is asked for.

Exit codes: 0 done, 1 failed, 2 wrong usage or a bad file. A user's mistake never shows a traceback.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from actorpool import __version__
from actorpool.errors import ActorPoolError, InvalidConfig

__all__ = ["COMMANDS", "main"]

COMMANDS = ("demo", "bench")
"""Each is a module of this package whose `command` is a click command."""

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name}").command
        return command


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
    try:
        result = _actorpool.main(arguments, prog_name="actorpool", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except InvalidConfig as error:
        return _say(error, WRONG_USAGE)
    except ActorPoolError as error:
        return _say(error, FAILED)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _say(what: object, code: int) -> int:
    click.echo(f"Error: {what}", err=True)
    return code
