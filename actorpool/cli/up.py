"""`actorpool up`: run the node that a configuration file describes."""

from __future__ import annotations

import os
import sys
from typing import Any

import click


@click.command(short_help="Run the node of a file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True), metavar="FILE.toml")
@click.option("--daemon", is_flag=True, help="Return once it serves; end it with `actorpool down`.")
@click.option("--name", metavar="NODE", help="The node's name.")
@click.option("--drain-timeout", "drain", type=float, metavar="SECONDS", help="How long calls may go on at its end.")
@click.option("--log-level", metavar="LEVEL", help="From which level on lines go to standard error.")
@click.option("--log-format", metavar="text|json", help="Lines of text, or JSON objects.")
def command(file: str, daemon: bool, **settings: Any) -> int:
    """Run the node that FILE.toml describes, in the foreground.

    Options count before ACTORPOOL_NAME, ACTORPOOL_DRAIN, ACTORPOOL_LOG_LEVEL and ACTORPOOL_LOG_FORMAT, those before
    the file.

    The first SIGINT, SIGTERM or SIGHUP drains its pools and ends it (exit code 0); the second ends it at once.
    """
    from actorpool.cli import foreground
    from actorpool.configuration import load

    sys.path.insert(0, os.getcwd())  # as with `python -m`: an application's own workers are found
    given = {key: (value, "command line") for key, value in settings.items() if value is not None}
    config = load(file, overrides=given)
    return foreground.detach(config) if daemon else foreground.Foreground(config).run()
