"""`actorpool top`: what runs, live, with the pools that need attention first."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from actorpool.cli import nodes
from actorpool.cli.refusals import Refusal

if TYPE_CHECKING:
    from actorpool.cli.top_screen import Frame, Screen
    from actorpool.status import PoolStatus

EVERY = 1.0
"""Seconds between two frames. A frame asks each pool twice, and never a worker."""


@click.command(short_help="Watch pools, the worst first.")
@nodes.optional_node
@click.option("--once", is_flag=True, help="Print one frame as plain text; so it is also where this is no terminal.")
@nodes.json_option
def command(name: str | None, once: bool, as_json: bool) -> int:
    """Watch the pools of a node, or of all your nodes: the worst first.

    Keys: q quit, s sort, / filter, up and down choose, Enter the pool's leases, w its workers, e events, ? help.
    """
    from actorpool.cli.top_screen import Screen, look

    names = nodes.chosen(name)
    if not names:
        raise Refusal("No node of yours runs.", "node_not_found", "Start one: actorpool up FILE.toml")
    systems = {node: nodes.connect(node) for node in names}
    try:
        screen = Screen()
        if as_json:
            return _documents(systems, once)
        if once or not (sys.stdout.isatty() and sys.stdin.isatty()):
            from actorpool.cli.output import console, show

            show(*screen.plain(look(systems), console().width))
            return 0
        return _live(systems, screen)
    finally:
        for system in systems.values():
            system.shutdown()


def _documents(systems: Mapping[str, Any], once: bool) -> int:
    """A document for each frame, one a line; on a pipe it goes on until the reader has seen enough."""
    from actorpool.cli.output import document
    from actorpool.cli.top_screen import look

    while True:
        frame = look(systems)
        pools = [_document(frame, node, status) for node, status in frame.pools]
        click.echo(document(pools=pools, ended=frame.ended))
        sys.stdout.flush()
        if once or (not frame.pools and len(frame.ended) == len(systems)):
            return 0
        time.sleep(EVERY)


def _document(frame: Frame, node: str, status: PoolStatus) -> dict[str, Any]:
    workers = frame.workers.get((node, status.name), ())
    told = [{**asdict(one.info), "memory_bytes": one.memory} for one in workers]
    return {"node": node, **status.as_dict(), "memory_bytes": frame.memory(node, status.name), "processes": told}


def _live(systems: Mapping[str, Any], screen: Screen) -> int:
    from actorpool.cli.keyboard import Keyboard
    from actorpool.cli.output import console
    from actorpool.cli.top_screen import look

    shown = console()
    with Keyboard() as keyboard, shown.screen(hide_cursor=True) as alternate:
        frame = look(systems)
        while True:
            alternate.update(screen.drawn(frame, shown.size))
            key = keyboard.read(EVERY)
            if key == "q" or keyboard.ended:
                return 0
            if key is not None:
                screen.press(key)
                continue  # what is there already is drawn at once
            frame = look(systems)
            screen.follow(frame, systems)
