"""The frame of the benchmarks, on the contenders that need no pool."""

from __future__ import annotations

import json

import pytest

from actorpool.benchmarks import meter, report, run
from actorpool.benchmarks.rows import ROWS, Goal, Row
from actorpool.cli import main

FLOOR = Row("floor.blocking", "the floor", "floor:echo")
SPIN = Row("floor.spinning", "the floor, spinning", "floor:echo", {"spin": 50e-6}, goal=Goal(100))
RATE = Row("floor.rate", "echoes", "floor:echo", figure="rate", unit="/s", against=None)


def test_contenders_take_turns_and_rows_of_one_contender_share_them():
    told: list[str] = []
    results = run.measure([FLOOR, SPIN, RATE], rounds=2, seconds=0.05, progress=told.append)
    assert told == ["round 1 of 2, 2 contenders", "round 2 of 2, 2 contenders"]
    floor, spin, rate = results
    assert floor.ratio == 1.0
    assert spin.met is (spin.ratio <= 100)  # a pinned spin beside other tests may well be slower
    assert rate.ratio is None
    assert [len(result.figures) for result in results] == [2, 2, 2]
    assert rate.figure == pytest.approx(1e6 / floor.figure, rel=0.9)


@pytest.mark.parametrize("lasting", [True, False])
def test_a_contender_that_cannot_be_opened_costs_only_its_own_row(lasting):
    broken = Row("broken", "broken", "floor:echo", {"no_such_option": 1}, lasting=lasting)
    floor, failed = run.measure([FLOOR, broken], rounds=1, seconds=0.05)
    assert floor.figure is not None
    assert failed.figure is None
    assert "no_such_option" in (failed.problem or "")
    assert "no_such_option" in report.as_text([floor, failed])


def test_a_row_whose_peer_is_not_installed_says_so():
    (result,) = run.measure([Row("peer", "peer", "peers:nobody", needs="no_such_peer")], rounds=1, seconds=0.05)
    assert result.problem == "no_such_peer is not installed"


def test_a_selection_includes_what_it_is_compared_with():
    assert [row.name for row in run.select(["message"])] == ["floor.blocking", "thespian.ask", "message.ask"][1:]
    assert len(run.select([])) == len(ROWS)
    assert run.select(["nothing"]) == []


def test_every_row_has_its_own_name_and_a_baseline_that_exists():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {row.against for row in ROWS if row.against} <= set(names)


@pytest.mark.parametrize(
    ("goal", "figure", "ratio", "met"),
    [
        (Goal(0.65), 30, 0.6, True),
        (Goal(0.65), 30, 0.7, False),
        (Goal(0.65), 30, None, None),
        (Goal(32_000, at_most=False, ratio=False), 33_000, None, True),
        (Goal(50, ratio=False), 51, None, False),
    ],
)
def test_goals(goal, figure, ratio, met):
    assert goal.met(figure, ratio) is met


def test_a_goal_may_be_what_a_row_is_beyond_another():
    goal = Goal(80, beyond=True)
    row = Row("postgres.run", "a round trip", "floor:echo", goal=goal)
    result = run.Result(row, figures=[130.0, 150.0, 900.0], baseline=[60.0, 75.0, 830.0])
    assert (result.more, result.met) == (70.0, True)
    assert goal.text("µs") == "≤ +80 µs"
    assert "+70 µs" in report.as_text([result])
    assert goal.met(1.0, 1.0, 81.0) is False
    assert goal.met(1.0, 1.0) is None


def test_a_ratio_is_taken_within_each_round():
    result = run.Result(SPIN, figures=[10.0, 40.0, 15.0], baseline=[20.0, 80.0, 10.0])
    assert result.ratio == 0.5
    assert result.figure == 15.0


def test_reports_say_the_same_in_three_ways():
    results = [
        run.Result(FLOOR, [48.0, 50.0], baseline=[48.0, 50.0]),
        run.Result(SPIN, [8.0, 9.0], baseline=[48.0, 50.0]),
        run.Result(RATE, problem="it broke"),
    ]
    text, page = report.as_text(results), report.as_markdown(results, 2, 0.5)
    for part in ("0.17 ×", "8.5 µs", "8.0–9.0", "≤ 100 ×", "met", "echoes: it broke", report.machine()):
        assert part in text
        assert part in page
    facts = json.loads(report.as_json(results))
    assert [row["turns"] for row in facts["rows"]] == [[48.0, 50.0], [8.0, 9.0], []]


def test_latency_and_counting():
    figures = meter.latency(lambda: None, 0.01)
    assert 0 < figures["p50"] <= figures["p99"]
    assert meter.count(lambda: None, 0.01) > 0
    assert meter.threads(lambda: None, 2, 0.01)["rate"] > 0
    assert meter.quantile([1, 2, 3, 4], 0.5) == 3


def test_waiting_for_something_that_never_comes_ends():
    assert meter.until(lambda: True) < 1000
    with pytest.raises(TimeoutError):
        meter.until(lambda: False, limit=0.01)


def test_the_command_writes_the_page_it_is_asked_for(tmp_path, capsys):
    page = tmp_path / "performance.md"
    assert main(["bench", "--only", "floor", "--rounds", "1", "--seconds", "0.05", "--write", str(page)]) == 0
    assert "two plain processes" in capsys.readouterr().out
    assert page.read_text().startswith("# Performance\n")


def test_the_command_names_its_rows_and_refuses_unknown_ones(capsys):
    assert main(["bench", "--list"]) == 0
    assert "pool.run" in capsys.readouterr().out
    assert main(["bench", "--only", "nothing"]) == 2


def test_a_start_is_measured_beside_plain_thespian():
    rows = [
        Row("ours", "ours", "starting:ours", figure="start", lasting=False),
        Row("plain", "plain", "starting:thespians", figure="start", lasting=False),
        Row("child", "child", "starting:thespian_children", {"size": 2}, figure="pss", lasting=False),
    ]
    assert [result.problem for result in run.measure(rows, rounds=1, seconds=0.05)] == [None, None, None]
