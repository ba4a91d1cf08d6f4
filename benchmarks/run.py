"""One interleaved run: all contenders take turns, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from statistics import median

from actorpool.benchmarks.contender import Contender, ContenderFailed
from actorpool.benchmarks.meter import Figures
from actorpool.benchmarks.rows import ROWS, Row

FLEETING_ROUNDS = 3  # turns of contenders that are opened anew for each

Key = tuple[str, str]  # contender and options: rows with the same key share its turns


@dataclass
class Result:
    """A row and what its turns gave; `problem` says why there is nothing."""

    row: Row
    figures: list[float] = field(default_factory=list)
    problem: str | None = None
    baseline: list[float] = field(default_factory=list)

    @property
    def figure(self) -> float | None:
        """The median of all turns."""
        return median(self.figures) if self.figures else None

    @property
    def ratio(self) -> float | None:
        """The median of the ratios to the baseline's turn of the same round."""
        pairs = list(zip(self.figures, self.baseline, strict=False))
        return median(mine / theirs for mine, theirs in pairs) if pairs else None

    @property
    def more(self) -> float | None:
        """The median of the differences to the baseline's turn of the same round."""
        pairs = list(zip(self.figures, self.baseline, strict=False))
        return median(mine - theirs for mine, theirs in pairs) if pairs else None

    @property
    def met(self) -> bool | None:
        """Whether the row's goal is reached; None without goal or figure."""
        goal = self.row.goal
        return None if goal is None or self.figure is None else goal.met(self.figure, self.ratio, self.more)


def select(beginnings: Sequence[str], rows: Sequence[Row] = ROWS) -> list[Row]:
    """The rows whose names begin with one of these (all, for none), and those they are compared with."""
    chosen = {row.name for row in rows if not beginnings or row.name.startswith(tuple(beginnings))}
    chosen |= {row.against for row in rows if row.name in chosen and row.against}
    return [row for row in rows if row.name in chosen]


def measure(
    rows: Sequence[Row], rounds: int, seconds: float, progress: Callable[[str], object] = lambda text: None
) -> list[Result]:
    """Let the contenders of all rows take turns.

    Args:
        rows: what to measure.
        rounds: turns of each.
        seconds: length of a turn.
        progress: told what goes on.
    """
    present = [row for row in rows if row.needs is None or find_spec(row.needs) is not None]
    turns: dict[Key, list[Figures]] = {}
    problems: dict[Key, str] = {}
    _lasting({_key(row) for row in present if row.lasting}, rounds, seconds, turns, problems, progress)
    for key in dict.fromkeys(_key(row) for row in present if not row.lasting):
        progress(f"{key[0]} {key[1]}")
        _fleeting(key, min(rounds, FLEETING_ROUNDS), seconds, turns, problems)
    results = [_result(row, turns, problems) for row in rows]
    by_name = {result.row.name: result for result in results}
    for result in results:
        if result.row.against in by_name:
            result.baseline = by_name[result.row.against].figures
    return results


def _key(row: Row) -> Key:
    return row.contender, json.dumps(row.options)


def _lasting(
    keys: set[Key],
    rounds: int,
    seconds: float,
    turns: dict[Key, list[Figures]],
    problems: dict[Key, str],
    progress: Callable[[str], object],
) -> None:
    with ExitStack() as stack:
        contenders: dict[Key, Contender] = {}
        for key in sorted(keys):
            try:
                contenders[key] = stack.enter_context(Contender(*key))
            except ContenderFailed as error:
                problems[key] = str(error)
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}, {len(contenders)} contenders")
            for key, contender in list(contenders.items()):
                try:
                    turns.setdefault(key, []).append(contender.turn(seconds))
                except ContenderFailed as error:
                    problems[key] = str(error)
                    del contenders[key]


def _fleeting(key: Key, rounds: int, seconds: float, turns: dict[Key, list[Figures]], problems: dict[Key, str]) -> None:
    for _ in range(rounds):
        try:
            with Contender(*key) as contender:
                turns.setdefault(key, []).append(contender.turn(seconds))
        except ContenderFailed as error:
            problems[key] = str(error)
            return


def _result(row: Row, turns: dict[Key, list[Figures]], problems: dict[Key, str]) -> Result:
    key = _key(row)
    figures = [turn[row.figure] for turn in turns.get(key, ())]
    if row.needs is not None and find_spec(row.needs) is None:
        return Result(row, problem=f"{row.needs} is not installed")
    return Result(row, figures, problems.get(key))
