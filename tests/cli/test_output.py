"""Durations, sizes and tables for people."""

from __future__ import annotations

import pytest
from rich.console import Console

from actorpool.cli.output import milliseconds, seconds, size, table, timestamp


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0, "0"), (0.0004, "0"), (0.0123, "12ms"), (0.999, "999ms"), (1, "1.0s"), (9.96, "10s"),
        (59, "59s"), (99, "99s"), (100, "1.7m"), (3600, "60m"), (7200, "2.0h"), (172800, "2d"), (1e9, "11574d"),
    ],
)  # fmt: skip
def test_a_duration_is_short_and_has_its_unit(value, text):
    assert seconds(value) == text


def test_milliseconds_are_durations_too():
    assert (milliseconds(None), milliseconds(1500)) == ("-", "1.5s")


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (2048, "2 KiB"), (50 << 20, "50 MiB"), (20 << 30, "20 GiB")])
def test_a_size_has_its_unit(value, text):
    assert size(value) == text


def test_a_time_is_told_in_utc():
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(None) is None


def drawn(width, rows):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(table(["NAME", ">COUNT", ">AGE"], rows, width, ["AGE"]))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_columns_that_can_be_spared_are_left_out_where_there_is_no_room():
    assert drawn(80, [["db", 3, "4s"]]) == ["NAME  COUNT  AGE", "db        3   4s"]
    assert drawn(12, [["db", 3, "4s"]]) == ["NAME  COUNT", "db        3"]


def test_a_name_that_is_too_long_is_folded_and_no_figure_is_cut():
    lines = drawn(24, [["a" * 30, 12345, None]])
    assert "12345" in lines[1]
    assert "".join(line.split()[0] for line in lines[1:]) == "a" * 30
