"""`actorpool doctor`: what of this machine, of a configuration file and of its servers stands in the way."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from actorpool.cli.nodes import json_option
from actorpool.cli.refusals import FAILED

if TYPE_CHECKING:
    from rich.text import Text

    from actorpool.cli.finding import Finding
    from actorpool.configuration import Configuration


@click.command(short_help="Look for what stands in the way.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False), metavar="[FILE.toml]", required=False)
@click.option("--show", is_flag=True, help="Print every value in force and where it comes from; no secret.")
@json_option
def command(file: str | None, show: bool, as_json: bool) -> int:
    """Look for what stands in the way: of this machine and, with FILE.toml, of that file and the servers it names.

    Exit code 1 only if something fails; a bad file is 2, with every problem.
    """
    from actorpool.configuration import load

    if show and file is None:
        raise click.UsageError("--show needs a FILE.toml")
    sys.path.insert(0, os.getcwd())  # as `up` does
    config = None if file is None else load(file)
    if show and config is not None:
        _show(config, as_json)
        return 0
    from actorpool.cli import examinations
    from actorpool.cli.output import document
    from actorpool.cli.output import show as write

    findings = [*examinations.of_machine(config), *(examinations.of_servers(config) if config else ())]
    if as_json:
        click.echo(document(checks=[vars(one) for one in findings]))
    else:
        write(*map(_line, findings))
    return FAILED if any(one.result == "fail" for one in findings) else 0


def _line(finding: Finding) -> Text:
    from rich.text import Text

    result, what, value, advice = vars(finding).values()
    text = Text(f"{result:<5}", style={"ok": "green", "warn": "yellow", "fail": "bold red"}[result])
    text.append(f"{what:<14} {value}", "default")
    if advice:
        text.append(f": {advice}", "default")
    return text


def _show(config: Configuration, as_json: bool) -> None:
    from actorpool.cli.output import document, show, table
    from actorpool.configuration.effective import effective

    found = effective(config)
    if as_json:
        click.echo(document(values=[vars(one) for one in found]))
    else:
        show(table(["TABLE", "KEY", "VALUE", "SOURCE"], [[one.table, one.key, one.value, one.source] for one in found]))
