"""The frames of `actorpool top`: what is asked for, what of it is shown, and how the keys change that."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from actorpool.attention import holder, need, sentence
from actorpool.cli.events import event_table
from actorpool.cli.output import seconds, size, table
from actorpool.cli.status import (
    WORKER_COLUMNS,
    Member,
    members,
    memory_of,
    pool_rows,
    pool_table,
    statuses,
    worker_rows,
)
from actorpool.errors import ActorPoolError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from actorpool.status import LeaseInfo, PoolStatus

HELP = (
    "q       quit",
    "s       sort by need, name, leases out, waiting, restarts, memory",
    "/       filter by a part of the name; Enter ends, Escape clears",
    "up down choose a pool",
    "Enter   leases of the pool, oldest first; again to close",
    "w       workers of the pool, the largest first; again to close",
    "e       the last events; again to close",
    "?       this help",
)
_VIEWS = {"enter": "leases", "w": "workers", "e": "events", "?": "help"}
SORTS = ("need", "name", "out", "waiting", "restarts", "memory")


@dataclass
class Frame:
    """What was seen at one moment.

    Attributes:
        pools: each with the name of its node.
        workers: of each pool.
        ended: the nodes that have ended, or do not answer, with the reason.
        leases, events: those that the screen shows, if it shows any.
    """

    pools: list[tuple[str, PoolStatus]] = field(default_factory=list)
    workers: dict[tuple[str, str], list[Member]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    leases: list[LeaseInfo] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    def memory(self, node: str, pool: str) -> int | None:
        """Bytes that the workers of a pool have together; None if that is not known."""
        return memory_of(self.workers.get((node, pool), ()))


def look(systems: Mapping[str, Any]) -> Frame:
    """Ask every pool of these nodes for its figures and its workers, and the kernel for their memory."""
    frame = Frame()
    for name, system in systems.items():
        try:
            found = statuses(system)
            frame.pools += [(name, status) for status in found]
            frame.workers |= {(name, status.name): members(system, status) for status in found}
        except ActorPoolError as error:
            frame.ended[name] = str(error)
    return frame


class Screen:
    """What a person has chosen to see.

    Attributes:
        sort: one of `SORTS`.
        wanted: a part of the names shown.
        view: `"pools"`, `"leases"`, `"workers"`, `"events"` or `"help"`.
    """

    def __init__(self) -> None:
        self.sort = "need"
        self.wanted = ""
        self.view = "pools"
        self._typing = False
        self._chosen: tuple[str, str] | None = None
        self._shown: list[tuple[str, str]] = []

    # -- keys -------------------------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """Follow a key."""
        if self._typing:
            self._type(key)
        elif key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        elif key == "/":
            self._typing, self.wanted = True, ""
        elif key in ("up", "down"):
            self._choose(1 if key == "down" else -1)
        elif key in _VIEWS:
            view = _VIEWS[key]
            self.view = "pools" if self.view == view else view
        elif key == "escape":
            self.view, self.wanted = "pools", ""

    def _type(self, key: str) -> None:
        if key in ("enter", "escape"):
            self._typing = False
            self.wanted = "" if key == "escape" else self.wanted
        elif key == "backspace":
            self.wanted = self.wanted[:-1]
        elif len(key) == 1 and key.isprintable():
            self.wanted += key

    def _choose(self, step: int) -> None:
        if self._shown:
            at = self._shown.index(self._chosen) if self._chosen in self._shown else -1 if step > 0 else 0
            self._chosen = self._shown[(at + step) % len(self._shown)]

    def follow(self, frame: Frame, systems: Mapping[str, Any]) -> None:
        """Ask for what the view needs besides the pools."""
        try:
            if self.view == "leases" and self._chosen is not None:
                node, pool = self._chosen
                frame.leases = sorted(systems[node].pool(pool).leases(), key=lambda lease: -lease.age)
            elif self.view == "events":
                frame.events = [event for system in systems.values() for event in _events(system)]
        except ActorPoolError:
            pass  # the pool or the node has gone; its line says so

    # -- drawing ----------------------------------------------------------------------------------------------

    def ordered(self, frame: Frame) -> list[tuple[str, PoolStatus]]:
        """The pools in the order and with the names that were chosen."""
        found = [(node, pool) for node, pool in frame.pools if self.wanted in pool.name]
        keys: dict[str, Any] = {
            "need": lambda line: -need(line[1]),
            "name": lambda line: 0,
            "out": lambda line: -(line[1].monitors or 0),
            "waiting": lambda line: -(line[1].waiting or 0),
            "restarts": lambda line: -(line[1].restarts or 0),
            "memory": lambda line: -(frame.memory(line[0], line[1].name) or 0),
        }
        key = keys[self.sort]
        return sorted(found, key=lambda line: (key(line), line[0], line[1].name))

    def plain(self, frame: Frame, width: int) -> list[RenderableType]:
        """The whole frame as text, in lines of that width."""
        lines = self.ordered(frame)
        parts: list[RenderableType] = [_heading(frame), self._table(frame, lines, width)]
        troubles = _troubles(frame, lines)
        return [*parts, Text(), *troubles] if troubles else parts

    def drawn(self, frame: Frame, size: Any) -> RenderableType:
        """The frame in a terminal of that size: what does not fit is left out, and counted."""
        lines = self.ordered(frame)
        self._shown = [(node, pool.name) for node, pool in lines]
        if self._chosen not in self._shown:
            self._chosen = self._shown[0] if self._shown else None
        head = _heading(frame)
        head.truncate(size.width)
        foot = self._foot()
        room = max(size.height - 2, 1)
        troubles = _troubles(frame, lines) if self.view == "pools" else []
        body: list[RenderableType] = []
        if self.view == "help":
            body = [Text(line) for line in HELP[:room]]
        elif self.view == "events":
            body = [event_table(frame.events[-(room - 1) :]) if frame.events else Text("No events are kept.")]
        elif self.view == "leases":
            body = self._leases(frame, room)
        elif self.view == "workers":
            body = self._workers(frame, room)
        else:
            troubles = troubles[: max(room - 4, 0) // 2]
            most = max(room - 1 - len(troubles) - bool(troubles), 1)
            hidden = len(lines) - most if len(lines) > most else 0
            kept = lines[: most - 1] if hidden else lines
            body = [self._table(frame, kept, size.width)]
            if hidden:
                body.append(Text(f"... and {len(lines) - len(kept)} more; / filters", style="dim"))
            body += [Text(), *troubles] if troubles else []
        return _fitting([head, *body], size, foot)

    def _table(self, frame: Frame, lines: Iterable[tuple[str, PoolStatus]], width: int) -> RenderableType:
        lines = list(lines)
        several = len({node for node, _ in lines}) > 1
        rows = []
        figures = pool_rows((pool, frame.memory(node, pool.name)) for node, pool in lines)
        for (node, pool), row in zip(lines, figures, strict=True):
            name = f"{node}/{pool.name}" if several else pool.name
            style = "reverse" if (node, pool.name) == self._chosen and self._shown else ""
            rows.append([Text(name, style=style), *row[1:]])
        return pool_table(rows, width)

    def _leases(self, frame: Frame, room: int) -> list[RenderableType]:
        if self._chosen is None:
            return [Text("No pool is chosen.")]
        title = Text(f"leases of {self._chosen[1]}, oldest first", style="bold")
        rows = [[one.id, one.worker_id, seconds(one.age), holder(one)] for one in frame.leases[: room - 2]]
        return [title, table([">LEASE", ">WORKER", ">AGE", "HOLDER"], rows) if rows else Text("None is out.")]

    def _workers(self, frame: Frame, room: int) -> list[RenderableType]:
        if self._chosen is None:
            return [Text("No pool is chosen.")]
        found = sorted(frame.workers.get(self._chosen, ()), key=lambda one: -(one.memory or 0))
        title = Text(f"workers of {self._chosen[1]}, the largest first", style="bold")
        rows = worker_rows(found[: room - 2])
        return [title, table(WORKER_COLUMNS, rows) if rows else Text("It lends none.")]

    def _foot(self) -> Text:
        if self._typing:
            return Text(f"/{self.wanted}_", style="bold")
        chosen = f"filter {self.wanted!r}, " if self.wanted else ""
        keys = "q quit s sort / find Enter leases w workers e events ? help"
        return Text(f"{chosen}sorted by {self.sort}  {keys}", "dim")


def _heading(frame: Frame) -> Text:
    pools = [pool for _, pool in frame.pools]
    names = ", ".join(sorted({node for node, _ in frame.pools}))
    waiting = sum(pool.waiting or 0 for pool in pools)
    out = sum(pool.monitors or 0 for pool in pools)
    troubled = sum(need(pool) > 1 for pool in pools)
    taken = memory_of(worker for workers in frame.workers.values() for worker in workers)
    text = Text(f"{names or 'no node'}  ", style="bold")
    text.append(f"{time.strftime('%H:%M:%S')}  {len(pools)} pools, {out} leases out, {waiting} waiting", "not bold")
    text.append("" if taken is None else f", {size(taken)}", "not bold")
    if troubled:
        text.append(f", {troubled} need attention", "bold red")
    return text


def _troubles(frame: Frame, lines: Iterable[tuple[str, PoolStatus]]) -> list[Text]:
    gone = [Text(f"{name}: {reason}", style="bold red") for name, reason in frame.ended.items()]
    return gone + [Text(text) for text in (sentence(pool) for _, pool in lines) if text]


def _events(system: Any) -> list[Any]:
    return list(system.events(limit=100))


def _fitting(parts: list[RenderableType], size: Any, foot: Text) -> RenderableType:
    """Parts cut to the height of the terminal, above a last line."""
    return _Cut(Group(*parts), foot)


class _Cut:
    """A renderable that shows as many lines of another as fit, and a last line."""

    def __init__(self, body: RenderableType, foot: Text) -> None:
        self._body, self._foot = body, foot

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.segment import Segment

        height = max(options.height or options.size.height, 1)
        free = options.update(height=None)
        lines = console.render_lines(self._body, free, pad=False)[: height - 1]
        lines += [[]] * (height - 1 - len(lines))
        for line in lines:
            yield from line
            yield Segment.line()
        self._foot.truncate(options.max_width)
        yield from console.render_lines(self._foot, free, pad=False)[0]
