"""`actorpool events`: what has happened in a node, from the history that its manager keeps."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from actorpool.cli import nodes
from actorpool.cli.refusals import INTERRUPTED

if TYPE_CHECKING:
    from rich.console import RenderableType

    from actorpool.client.system import System
    from actorpool.messages import Event


LOOK_EVERY = 0.5
"""Seconds between two questions for new events; asking costs the pools nothing."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or a number with a unit: `90`, `10m`, `2h`, `1d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
        if found is None:
            self.fail(f"{value!r} is no duration: write 90s, 10m, 2h or 1d", param, ctx)
        return float(found[1]) * _UNITS[found[2] or "s"]


@click.command(short_help="List what has happened in a node.")
@nodes.node_argument
@click.argument("pattern", default="*", metavar="[PATTERN]")
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come, until Ctrl-C.")
@click.option("--since", type=Duration(), metavar="10m", help="Only those of that time: 90s, 10m, 2h, 1d.")
@nodes.json_option
def command(name: str, pattern: str, follow: bool, since: float | None, as_json: bool) -> int:
    """List the last events of a node whose names match PATTERN, such as 'worker.*'; each call's own are not kept."""
    with nodes.connect(name) as system:
        oldest = None if since is None else time.time() - since
        found = [event for event in system.events(pattern) if oldest is None or event.time >= oldest]
        if follow:
            with contextlib.suppress(KeyboardInterrupt):  # the way in which this ends
                _follow(system, pattern, found, as_json)
            return INTERRUPTED
        if as_json:
            from actorpool.cli.output import document

            click.echo(document(node=name, events=[as_document(event) for event in found]))
        elif found:
            from actorpool.cli.output import show

            show(event_table(found))
        else:
            from actorpool.cli.output import say

            say(f"No event of {name!r} matches {pattern!r}.")
    return 0


def _follow(system: System, pattern: str, found: list[Event], as_json: bool) -> None:
    """A line for each event, as it comes."""
    from actorpool.cli.output import document

    last = max((event.number for event in system.events("*", limit=1)), default=0) if not found else 0
    while True:
        for event in found:
            click.echo(document(event=as_document(event)) if as_json else as_line(event))
            last = max(last, event.number)
        time.sleep(LOOK_EVERY)
        found = system.events(pattern, after=last)


def as_document(event: Event) -> dict[str, Any]:
    """An event for JSON."""
    from actorpool.cli.output import timestamp

    facts = {"number": event.number, "time": timestamp(event.time), "name": event.name, "pool": event.pool}
    return {**facts, "measurements": event.measurements, "metadata": event.metadata}


def event_table(events: Iterable[Event]) -> RenderableType:
    """A line for each event, the latest last."""
    from actorpool.cli.output import table

    return table(["TIME", "EVENT", "POOL", "WHAT"], [_cells(event) for event in events])


def as_line(event: Event) -> str:
    """The same as one line of text."""
    return "  ".join(text or "-" for text in _cells(event))


def _cells(event: Event) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    facts = {**event.measurements, **event.metadata}
    what = " ".join(f"{key}={_short(value)}" for key, value in facts.items() if value is not None)
    return [when, event.name, event.pool or "", what]


def _short(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value).replace("\n", " ")
