"""How commands write: tables that fit a terminal, whole lines in a pipe, JSON documents.

Colour is used on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`. `FORCE_COLOR` stands for a terminal, and
for nothing else. State words are words in every case.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Any

import click

from actorpool.attention import seconds as seconds
from actorpool.cli.refusals import SCHEMA

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_WIDE = 100_000
"""Columns of what is no terminal: nothing is cut."""
_LEAST_TEXT = 16
"""Columns that a text gets before others are left out for it."""

STYLES = {
    "ready": "green",
    "running": "green",
    "overflow": "yellow",
    "starting": "yellow",
    "restarting": "yellow",
    "suspended": "yellow",
    "draining": "yellow",
    "full": "bold yellow",
    "degraded": "bold red",
    "circuit_open": "bold red",
    "failed": "bold red",
}


def is_coloured(stream: IO[str]) -> bool:
    """Whether colour may be used on a stream."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def console(stream: IO[str] | None = None) -> Console:
    """A console for a stream; None is standard output."""
    from rich.console import Console  # not at the top: it takes longer to load than a completion may take

    stream = sys.stdout if stream is None else stream
    coloured = is_coloured(stream)
    return Console(
        file=stream,
        force_terminal=coloured,
        color_system=("auto" if stream.isatty() else "standard") if coloured else None,
        width=None if stream.isatty() else _WIDE,
        highlight=False,
        markup=False,
        emoji=False,
    )


def show(*parts: RenderableType) -> None:
    """Write to standard output, without blanks at the ends of lines."""
    out = console()
    with out.capture() as captured:
        for part in parts:
            out.print(part)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], width: int = _WIDE, dispensable: Sequence[str] = ()
) -> RenderableType:
    """A table without lines.

    Args:
        columns: headings; one that begins with `>` is of numbers, which are aligned to the right and never broken.
        rows: the cells; None is shown as `-`, a state in its colour.
        width: of the terminal.
        dispensable: headings of columns that are left out, the first ones first, where not all fit.
    """
    from rich.table import Table

    lines = [[cell(value) for value in row] for row in rows]
    kept = _fitting(columns, lines, width, dispensable)
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number in kept:
        right = columns[number].startswith(">")
        heading = columns[number].removeprefix(">")
        drawn.add_column(heading, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for line in lines:
        drawn.add_row(*(line[number] for number in kept))
    return drawn


def _fitting(columns: Sequence[str], lines: list[list[Text]], width: int, dispensable: Sequence[str]) -> list[int]:
    """The numbers of the columns that fit; texts that may be folded need no more than `_LEAST_TEXT`."""
    needs = []
    for number, column in enumerate(columns):
        need = max([len(column.removeprefix(">")), *(line[number].cell_len for line in lines)])
        needs.append(2 + (need if column.startswith(">") else min(need, _LEAST_TEXT)))
    kept = list(range(len(columns)))
    for heading in dispensable:
        if sum(needs[number] for number in kept) <= width + 2:
            break
        kept = [number for number in kept if columns[number].removeprefix(">") != heading]
    return kept


def cell(value: Any) -> Text:
    """What a table shows for a value."""
    from rich.text import Text

    if isinstance(value, Text):
        return value
    text = "-" if value is None or value == "" else str(value)
    return Text(text, style=STYLES.get(text, ""))


def document(**parts: Any) -> str:
    """A JSON document on one line."""
    return json.dumps({"schema": SCHEMA, **parts}, default=str)


def say(text: str) -> None:
    """Tell a person something that was not asked for."""
    click.echo(text, err=True)


def milliseconds(value: float | None) -> str:
    """A figure in milliseconds as a duration."""
    return seconds(None if value is None else value / 1000)


def size(value: int | None) -> str:
    """Bytes as KiB, MiB or GiB."""
    if value is None:
        return "-"
    for unit in ("KiB", "MiB"):
        value >>= 10
        if value < 10_000:
            return f"{value} {unit}"
    return f"{value >> 10} GiB"


def timestamp(unix: float | None) -> str | None:
    """A Unix time as RFC 3339 in UTC."""
    if unix is None:
        return None
    return datetime.fromtimestamp(unix, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
