"""Where what workers print goes: with the program's own output, into the log, or never to its standard output."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import InvalidConfig, WorkerDied
from actorpool.workers import EchoWorker

PROGRAM = """
import sys, actorpool
from actorpool.workers import EchoWorker
from tests.pools.test_output import say
with actorpool.start(output=sys.argv[1], log_file=sys.argv[2]) as system:
    system.start_pool("db", worker=EchoWorker, size=1).run(say)
    print("the program's own")
"""


def say(_: Any) -> None:
    print("printed")
    print("complained", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo by a child"], check=True)


def last_words(_: Any) -> None:
    os.write(2, b"no end of line")
    os.abort()


def flood(_: Any) -> None:
    for number in range(20_000):
        print("line", number)
    print("x" * 20_000)


OUT, ERR = {"printed", "by a child"}, {"complained"}


@pytest.mark.parametrize(
    ("output", "out", "err", "logged"),
    [("inherit", OUT, ERR, set()), ("stderr", set(), OUT | ERR, set()), ("log", set(), set(), OUT | ERR)],
)
@pytest.mark.slow
def test_what_workers_print_goes_where_the_program_wants_it(
    tmp_path: Path, output: str, out: set[str], err: set[str], logged: set[str]
) -> None:
    log = tmp_path / "node.log"
    command = [sys.executable, "-c", PROGRAM, output, str(log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.splitlines()) == {"the program's own"} | out
    assert set(done.stderr.splitlines()) == err
    mark = ": worker 1 of pool db: "
    assert {line.partition(mark)[2] for line in log.read_text().splitlines() if mark in line} == logged


def test_the_last_words_of_a_worker_that_dies_are_in_the_log(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    log = tmp_path / "node.log"
    with actorpool.start(output="log", log_file=log, log_level="CRITICAL") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1)
        with pytest.raises(WorkerDied):
            pool.run(last_words)
        eventually(lambda: "worker 1 of pool db: no end of line" in log.read_text())


def test_a_worker_that_prints_much_is_heard_to_the_end_and_serves_on(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    log = tmp_path / "node.log"
    with actorpool.start(output="log", log_file=log, log_level="CRITICAL") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1)
        pool.run(flood)
        assert pool.echo(1) == 1
        eventually(lambda: log.read_text().count("x" * 100) >= 3, timeout=20)
        assert sum(": line " in line for line in log.read_text().splitlines()) == 20_000


def test_another_output_is_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidConfig) as refused:
        actorpool.start(output="nowhere")
    assert "inherit, log, stderr" in refused.value.problems["output"]
