"""What the demo shows: on a terminal, elsewhere, and at the end."""

from __future__ import annotations

import pytest

from actorpool.cli.demo import screen
from actorpool.cli.demo.books import Books, Promise
from actorpool.cli.demo.storm import Outcome, Settings, Tally
from actorpool.status import PoolStatus, TreeNode

TREE = TreeNode("root", "supervisor", 10, "running", 0, (TreeNode("bank", "pool", 11, "ready", 1),))
STATUS = PoolStatus("bank", "full", 4, 1, 0, 2, 5, total=5, checkins=1234, restarts=3, reclaimed=2)
TALLY = Tally(workers_killed=3, callers_killed=2, recoveries=[0.010, 0.030, 0.012], releases=[0.002])


def test_elsewhere_a_line_is_printed_each_second_and_the_tree_once(capsys):
    with screen.make(Settings(), terminal=False) as shown:
        for tenth in range(35):
            shown.show(tenth / 10, TREE, STATUS, TALLY)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["supervisor", "└─", "1.0", "2.0", "3.0"]
    assert "calls 1234" in lines[2]
    assert "median 12.0 ms, worst 30.0 ms" in lines[2]


def test_on_a_terminal_everything_is_redrawn_in_place(capsys):
    with screen.make(Settings(seconds=5), terminal=True) as shown:
        shown.say("a line that stays [not markup]")
        shown.show(2.5, TREE, STATUS, TALLY)
    text = capsys.readouterr().out
    for part in ("a line that stays [not markup]", "2.5 of 5 s", "pool bank pid 11", "1234", "5 (full)"):
        assert part in text


@pytest.mark.parametrize(
    ("kept", "last"), [([True, True], "every promise was kept"), ([True, False], "1 promise(s) broken")]
)
def test_the_report_has_all_figures_and_a_verdict(kept, last):
    promises = [Promise(f"promise {number}", good, "figures") for number, good in enumerate(kept)]
    books = Books(tried={(0, 1), (0, 2)}, done={(0, 1), (0, 2)}, reads=4)
    lines = screen.report(Outcome(Settings(seconds=2), books, TALLY, STATUS, promises))
    text = "\n".join(lines)
    for part in (
        "6 (3 a second): 2 writes, 4 reads",
        "3 workers and 2 callers killed",
        "leases reclaimed    2",
        "workers restarted   3",
        "median 12.0 ms, worst 30.0 ms",
        "kept    promise 0 (figures)",
    ):
        assert part in text
    assert lines[-1] == last
    assert ("BROKEN  promise 1" in text) == (not kept[1])


def test_why_fewer_workers_were_restarted_than_killed_is_said():
    tally = Tally(workers_killed=7, callers_killed=0)
    text = "\n".join(screen.report(Outcome(Settings(seconds=2), Books(), tally, STATUS, [])))
    assert "workers restarted   3 (the other 4 were overflow" in text


def test_without_a_kill_there_are_no_times():
    assert screen.times([]) == "-"
