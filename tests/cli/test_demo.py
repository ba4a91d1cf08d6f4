"""The demo as a user runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from actorpool.cli import main

DEMO = [sys.executable, "-m", "actorpool", "demo"]


@pytest.mark.slow
def test_the_demo_keeps_every_promise_while_workers_and_callers_are_killed():
    done = subprocess.run(
        [*DEMO, "--seconds", "2.5", "--rows", "5000", "--workers", "3", "--callers", "3", "--seed", "4"],
        capture_output=True,
        text=True,
        timeout=50,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "every promise was kept" in done.stdout
    assert "supervisor" in done.stdout
    assert "0 workers and" not in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_the_demo_at_its_full_size():
    done = subprocess.run(DEMO, capture_output=True, text=True, timeout=55)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--workers", "many"], ["--unknown"]])
def test_wrong_usage_is_told_in_a_line_and_exits_with_2(arguments, capsys):
    assert main(["demo", *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err
