"""A run's results as text, JSON or the page docs/performance.md: ratios first, and the machine named."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from actorpool.benchmarks.run import Result

HEAD = ("ratio", "figure", "range", "goal", "", "what")


def as_text(results: Sequence[Result]) -> str:
    """An aligned table."""
    lines = [HEAD, *(_cells(result) for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD) - 1)]
    table = []
    for line in lines:
        aligned = [cell.rjust(width) for cell, width in zip(line, widths, strict=False)]
        table.append("  ".join([*aligned, line[-1]]))
    return "\n".join([machine(), "", *table])


def as_json(results: Sequence[Result]) -> str:
    """Every figure of every turn."""
    rows = [
        {
            "name": result.row.name,
            "title": result.row.title,
            "unit": result.row.unit,
            "figure": result.figure,
            "ratio": result.ratio,
            "against": result.row.against,
            "more": result.more,
            "goal": None if result.row.goal is None else result.row.goal.text(result.row.unit),
            "met": result.met,
            "turns": result.figures,
            "problem": result.problem,
        }
        for result in results
    ]
    return json.dumps({"machine": machine(), "rows": rows}, indent=1)


def as_markdown(results: Sequence[Result], rounds: int, seconds: float) -> str:
    """The page for the documentation."""
    lines = [
        "# Performance",
        "",
        f"Measured by `actorpool bench --rounds {rounds} --seconds {seconds:g} --write`: all contenders take turns of",
        f"{seconds:g} s, each in a process of its own; figures are medians over the turns, ratios are medians of the",
        "ratios within a round. A ratio compares with the row that is named in brackets, by default the floor: two",
        "plain processes that echo a pickle over a unix socket, blocking reads. With a + it is the difference instead.",
        "Ratios below 1.3 × are noise; so is much of the floor, whose range says what it costs to wake a processor",
        "that sleeps, and one that does not.",
        "",
        "All rows pay for what is kept for who watches: durations, what runs now, history, last words. What that is",
        "of a call says the row with all of it, beside the one without: `actorpool bench --only pool.watched`.",
        "",
        f"Machine: {machine()}",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---:|" * (len(HEAD) - 1) + "---|",
    ]
    lines += ["| " + " | ".join(_cells(result)) + " |" for result in results]
    return "\n".join([*lines, ""])


def machine() -> str:
    """Where this was measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} core(s) of {_processor()}, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cells(result: Result) -> tuple[str, ...]:
    row = result.row
    versus = f" [{row.against}]" if row.against not in (None, "floor.blocking") else ""
    what = f"{row.title}{versus}"
    if result.figure is None:
        return "", "", "", "", "", f"{what}: {result.problem}"
    return (
        _compared(result),
        f"{_number(result.figure)} {row.unit}",
        f"{_number(min(result.figures))}–{_number(max(result.figures))}",
        "" if row.goal is None else row.goal.text(row.unit),
        {True: "met", False: "missed", None: ""}[result.met],
        what,
    )


def _compared(result: Result) -> str:
    if result.row.goal is not None and result.row.goal.beyond and result.more is not None:
        return f"{result.more:+.0f} {result.row.unit}"
    return "" if result.ratio is None else f"{result.ratio:.2f} ×"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
