"""`actorpool demo`: real work on a real database while workers and callers are killed; then the books are checked."""

from __future__ import annotations

import sys

import click

__all__ = ["command"]


@click.command(short_help="Show it on a database, with crashes.")
@click.option("--seconds", default=6.0, show_default=True, type=click.FloatRange(1), help="How long the load lasts.")
@click.option("--workers", default=4, show_default=True, type=click.IntRange(1, 64), help="Size of the pool.")
@click.option("--callers", default=6, show_default=True, type=click.IntRange(1, 64), help="Processes that call it.")
@click.option("--rows", default=100_000, show_default=True, type=click.IntRange(10), help="Accounts in the database.")
@click.option("--seed", default=1, show_default=True, help="Of everything that is left to chance.")
def command(seconds: float, workers: int, callers: int, rows: int, seed: int) -> int:
    """Show supervised workers on a database, with crashes, and check that nothing was lost.

    Makes an SQLite file, calls a pool from several processes, kills workers and callers with SIGKILL meanwhile.
    Exits with 1 if any promise was broken.
    """
    from actorpool.cli.demo import screen, storm

    settings = storm.Settings(seconds, workers, callers, rows, seed)
    with screen.make(settings, sys.stdout.isatty()) as shown:
        outcome = storm.run(settings, shown)
    for line in screen.report(outcome):
        click.echo(line)
    return 0 if all(promise.kept for promise in outcome.promises) else 1
