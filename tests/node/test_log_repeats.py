"""Equal lines of a node's log: ten a second, and the number left out."""

from __future__ import annotations

import logging
from pathlib import Path

from actorpool.node.log_repeats import Repeats
from actorpool.node.server import LogFile


def line(text: str) -> logging.LogRecord:
    return logging.LogRecord("actorpool", logging.WARNING, "x.py", 1, text, (), None)


def test_ten_thousand_equal_lines_are_a_hundred_at_most_and_the_number_left_out() -> None:
    now = 0.0
    repeats = Repeats(lambda: now)
    written = []
    for number in range(10_000):
        now = number / 2000
        written += [one.getMessage() for one in repeats.admit(line(f"worker {number} cannot connect"))]
    written += [one.getMessage() for one in repeats.left_out(now + 1)]
    assert len(written) <= 100
    left_out = [int(text.split()[0]) for text in written if "left out" in text]
    assert sum(left_out) + len(written) - len(left_out) == 10_000


def test_other_lines_are_written_meanwhile() -> None:
    repeats = Repeats(lambda: 0.0)
    for _ in range(50):
        list(repeats.admit(line("the same")))
    assert [one.getMessage() for one in repeats.admit(line("another"))] == ["another"]


def test_what_workers_print_is_written_whole() -> None:
    repeats = Repeats(lambda: 0.0)
    printed = logging.LogRecord("actorpool", logging.INFO, "x.py", 1, "worker 1 of pool db: line", (), None)
    assert sum(1 for _ in range(100) for _ in repeats.admit(printed)) == 100


def test_the_number_left_out_is_in_the_file_at_the_end(tmp_path: Path) -> None:
    handler = LogFile(str(tmp_path / "node.log"))
    for _ in range(25):
        handler.handle(line("the same"))
    handler.close()
    written = (tmp_path / "node.log").read_text().splitlines()
    assert written == ["the same"] * 10 + ["15 more lines like this were left out: the same"]


def test_a_log_that_was_moved_is_begun_anew(tmp_path: Path) -> None:
    handler = LogFile(str(tmp_path / "node.log"))
    handler.handle(line("before"))
    (tmp_path / "node.log").rename(tmp_path / "node.log.1")
    handler.handle(line("after"))
    handler.close()
    assert (tmp_path / "node.log.1").read_text() == "before\n"
    assert (tmp_path / "node.log").read_text() == "after\n"


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    handler = LogFile("/dev/full")
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        handler.handle(line("lost"))
    finally:
        logging.raiseExceptions = raising
        handler.close()
