"""How the demo looks: a live display on a terminal, plain lines everywhere else."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import click

from actorpool.cli.demo.storm import Outcome, Settings, Tally
from actorpool.status import PoolStatus, TreeNode

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Group


class PlainScreen:
    """A line each second."""

    def __init__(self) -> None:
        self._next = 1.0

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to tidy up."""

    def say(self, text: str) -> None:
        click.echo(text)

    def show(self, elapsed: float, tree: TreeNode, status: PoolStatus, tally: Tally) -> None:
        if elapsed < self._next:
            return
        if self._next == 1.0:
            click.echo(tree)
        self._next = int(elapsed) + 1.0
        click.echo(f"{elapsed:5.1f} s  " + "  ".join(f"{name} {value}" for name, value in figures(status, tally)))


class LiveScreen:
    """A progress bar, the supervision tree and the figures, redrawn in place."""

    def __init__(self, settings: Settings) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(TextColumn("{task.completed:.1f} of {task.total:g} s"), BarColumn())
        self._task = self._progress.add_task("", total=settings.seconds)
        self._live = Live(self._progress, refresh_per_second=10)

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False)

    def show(self, elapsed: float, tree: TreeNode, status: PoolStatus, tally: Tally) -> None:
        self._progress.update(self._task, completed=elapsed)
        self._live.update(self._drawn(tree, status, tally))

    def _drawn(self, tree: TreeNode, status: PoolStatus, tally: Tally) -> Group:
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, value in figures(status, tally):
            table.add_row(name, Text(value, style="bold"))
        return Group(self._progress, Panel(Text(str(tree)), title="supervision"), Panel(table, title="pool bank"))


def make(settings: Settings, terminal: bool) -> PlainScreen | LiveScreen:
    """The screen that fits; a context manager."""
    return LiveScreen(settings) if terminal else PlainScreen()


def figures(status: PoolStatus, tally: Tally) -> list[tuple[str, str]]:
    """What is shown while the storm lasts."""
    return [
        ("calls", str(status.checkins)),
        ("waiting", str(status.waiting)),
        ("workers", f"{status.total} ({status.state})"),
        ("killed", f"{tally.workers_killed} workers, {tally.callers_killed} callers"),
        ("restarted", f"{status.restarts}{_others(tally.workers_killed - status.restarts)}"),
        ("reclaimed", str(status.reclaimed)),
        ("recovery", times(tally.recoveries)),
    ]


def _others(number: int) -> str:
    """Why fewer workers were restarted than were killed."""
    if number <= 0:
        return ""
    return f" (the other {number} were overflow: above the pool's size, a worker is started only while a caller waits)"


def times(seconds: list[float]) -> str:
    """Median and worst of some durations."""
    if not seconds:
        return "-"
    return f"median {median(seconds) * 1e3:.1f} ms, worst {max(seconds) * 1e3:.1f} ms"


def report(outcome: Outcome) -> list[str]:
    """The last lines: what happened, then each promise with its figures."""
    books, tally, status = outcome.books, outcome.tally, outcome.status
    rate = books.calls / outcome.settings.seconds
    lines = [
        "",
        f"calls done          {books.calls} ({rate:.0f} a second): {len(books.done)} writes, {books.reads} reads",
        f"faults injected     {tally.workers_killed} workers and {tally.callers_killed} callers killed with SIGKILL",
        f"leases reclaimed    {status.reclaimed}",
        f"workers restarted   {status.restarts}{_others(tally.workers_killed - status.restarts)}",
        f"time to recover     killed worker replaced: {times(tally.recoveries)}",
        f"                    killed caller's lease back: {times(tally.releases)}",
        "",
    ]
    for promise in outcome.promises:
        lines.append(f"{'kept  ' if promise.kept else 'BROKEN'}  {promise.text} ({promise.figures})")
    broken = sum(not promise.kept for promise in outcome.promises)
    lines += ["", f"{broken} promise(s) broken" if broken else "every promise was kept"]
    return lines
