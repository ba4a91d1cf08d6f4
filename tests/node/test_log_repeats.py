"""Equal lines of a node's log: ten a second, and the number left out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool.node.log_repeats import Repeats
from actorpool.node.server import LogFile
from actorpool.workers import EchoWorker


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
    assert counted(written) == 10_000


def test_a_forked_process_does_not_tell_what_its_parent_has_left_out() -> None:
    repeats = Repeats(lambda: 0.0)
    for number in range(50):
        repeats.admit(line(f"worker {number} cannot connect"))
    pid = os.fork()
    if not pid:
        told = repeats.left_out(10.0) + repeats.admit(line("worker 51 cannot connect"))
        os._exit(len(told))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1, "its own line alone"
    assert [counted([one.getMessage()]) for one in repeats.left_out(10.0)] == [40]


@pytest.mark.parametrize("seconds", [0.0, 10.0, 60.0, 250.0, 900.0])
def test_a_long_outage_writes_no_more_than_a_short_one_may(seconds: float) -> None:
    now = 0.0
    repeats = Repeats(lambda: now)
    written = []
    for number in range(10_000):
        now = seconds * number / 10_000
        written += [one.getMessage() for one in repeats.admit(line(f"worker {number} cannot connect"))]
    written += [one.getMessage() for one in repeats.left_out(float("inf"))]
    assert len(written) <= 100
    assert counted(written) == 10_000


def test_after_a_second_of_silence_the_number_left_out_is_known_and_ten_a_second_are_written_again() -> None:
    now = 0.0
    repeats = Repeats(lambda: now)
    for number in range(500):
        now = number / 100
        repeats.admit(line("the same"))
    assert repeats.left_out() == []
    now += 1
    assert [one.getMessage() for one in repeats.left_out()] == ["199 more lines like this were left out: the same"]
    for _ in range(3):
        now += 1
        written = [one.getMessage() for _ in range(10) for one in repeats.admit(line("the same"))]
        assert written == ["the same"] * 10


def counted(written: list[str]) -> int:
    """How many lines those stand for."""
    left_out = [int(text.split()[0]) for text in written if "left out" in text]
    return sum(left_out) + len(written) - len(left_out)


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


class Away(EchoWorker):
    """Its server is away until a file is there, and each failure has the same text."""

    def __init__(self, gate: str) -> None:
        self.gate = Path(gate)

    def open(self) -> None:
        if not self.gate.exists():
            raise ConnectionError("the server is away")


def complain(_: object, times: int) -> None:
    for number in range(times):
        logging.getLogger("actorpool").warning("attempt %d has failed", number)


@pytest.mark.slow
def test_equal_errors_of_a_node_are_a_hundred_lines_at_most_which_count_all(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    """Ten thousand of a worker; and those of a pool whose server is away: also counted when there are no more."""
    log, gate = tmp_path / "node.log", tmp_path / "gate"

    def written(of: str) -> list[str]:
        found = [text.partition(" actorpool: ")[2] for text in log.read_text().splitlines()]
        return [text for text in found if of in text]

    with actorpool.start(log_file=str(log), log_level="CRITICAL", metrics_interval=0.2) as system:
        system.start_pool("db", worker=EchoWorker, size=1).run(complain, 10_000)
        backoff = {"backoff_min": 0.001, "backoff_max": 0.002}
        away = system.start_pool(
            "away", worker=Away, worker_args={"gate": str(gate)}, size=4, checkout_timeout=0.1, **backoff
        )
        eventually(lambda: away.status().connect_errors >= 200, timeout=60)
        gate.touch()
        eventually(lambda: away.status().state == "ready", timeout=20)
        eventually(lambda: counted(written("cannot connect")) == away.status().connect_errors, timeout=20)
        assert len(written("cannot connect")) <= 100
    assert len(written("has failed")) <= 100
    assert counted(written("has failed")) == 10_000
