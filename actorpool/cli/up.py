"""`actorpool up`: run the node that a configuration file describes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def _file_option(flag: str, key: str, help: str, **more: Any) -> Callable[[Command], Command]:
    """A flag over a key of `[system]`, which an `ACTORPOOL_*` variable may set as well."""
    return click.option(flag, key, envvar=f"ACTORPOOL_{key.upper()}", show_envvar=True, help=help, **more)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True), metavar="FILE.toml")
@click.option("--daemon", is_flag=True, help="Return once it serves; end it with `actorpool down`.")
@_file_option("--name", "name", "The node's name.", metavar="NODE")
@_file_option("--drain-timeout", "drain", "How long running calls may go on at its end.", type=float, metavar="SECONDS")
@_file_option("--log-level", "log_level", "From which level on lines go to standard error.", metavar="LEVEL")
@_file_option("--log-format", "log_format", "Lines of text, or JSON objects.", metavar="text|json")
@click.pass_context
def command(ctx: click.Context, /, file: str, daemon: bool, **settings: Any) -> int:
    """Run the node that FILE.toml describes, in the foreground.

    The first SIGINT, SIGTERM or SIGHUP drains its pools and ends it (exit code 0); the second ends it at once.
    """
    from actorpool.cli import foreground
    from actorpool.configuration import load

    sys.path.insert(0, os.getcwd())  # as with `python -m`: an application's own workers are found
    given = {key: (value, _source(ctx, key)) for key, value in settings.items() if value is not None}
    config = load(file, overrides=given)
    return foreground.detach(config) if daemon else foreground.Foreground(config).run()


def _source(ctx: click.Context, key: str) -> str:
    if ctx.get_parameter_source(key) is click.core.ParameterSource.ENVIRONMENT:
        return f"environment variable ACTORPOOL_{key.upper()}"
    return "command line"
