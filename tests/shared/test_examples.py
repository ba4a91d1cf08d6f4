"""The examples run as they are, each by itself; the page of examples is executed line by line."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SHOWN = {
    "shared_text_protocol": [
        "counted by 20 threads: 1000",
        "connections the server has seen: 1",
        "after that: NoResource (resource)",
        "resources left: []",
    ],
    "shared_mirrors": [
        "both up: all pages were served: True",
        "the fast one has served more: True",
        "all the others went to the slow one: True",
        "the resource is there all the time: ['pages']",
        "it is back, under its old id, and serves more again: True",
    ],
    "shared_feed": [
        "50 callers, 20 calls each, rightly answered: 1000",
        "logins it has cost: 1",
        "and all go on over a new one: 1000",
        "calls on connection 1: 2001, of which failed: 1, logins: 2",
    ],
}


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.slow
def test_an_example_shows_what_it_says(name: str) -> None:
    command = [sys.executable, "-W", "error::ResourceWarning", str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in SHOWN[name] if line not in lines] == []
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_page_of_examples_is_true_line_by_line() -> None:
    page = ROOT / "docs" / "shared-pools-by-example.md"
    command = [sys.executable, "-m", "doctest", "-o", "ELLIPSIS", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    examples = doctest.DocTestParser().get_examples(page.read_text())
    assert len(examples) > 50
