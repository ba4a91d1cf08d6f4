"""`actorpool bench`: how fast the pool is beside its peers, in one interleaved run on this machine."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command(short_help="Measure the pool beside its peers.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Turns each contender takes.")
@click.option("--seconds", default=0.5, show_default=True, type=click.FloatRange(0.05), help="Length of a turn.")
@click.option("--only", default="", help="Comma-separated beginnings of row names, e.g. floor,pool.run")
@click.option("--list", "listing", is_flag=True, help="Name the rows and what each measures, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--write", is_flag=False, flag_value="docs/performance.md", type=click.Path(path_type=Path),
              help="Also write the report to a file (docs/performance.md unless named).")  # fmt: skip
def command(rounds: int, seconds: float, only: str, listing: bool, as_json: bool, write: Path | None) -> int:
    """Measure the pool beside the floor and its peers, in turns, and print ratios."""
    from actorpool.benchmarks import report, run

    rows = run.select([name for name in only.split(",") if name])
    if not rows:
        raise click.UsageError(f"--only {only!r} names no row; --list names them all")
    if listing:
        click.echo("\n".join(f"{row.name:24} {row.title}" for row in rows))
        return 0
    results = run.measure(rows, rounds, seconds, progress=lambda text: click.echo(text, err=True))
    click.echo(report.as_json(results) if as_json else report.as_text(results))
    if write is not None:
        write.write_text(report.as_markdown(results, rounds, seconds), encoding="utf-8")
    return 0
