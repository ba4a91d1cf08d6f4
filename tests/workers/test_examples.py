"""The examples about workers run by themselves, and print what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "http_service.py",
            ["oslo: 4 °C", "atlantis: status 404", "at most: 4", "too slow: ReadTimeout", "***"],
        ),
        ("workloads.py", [": 26 for each", "the report: [('jam', 40), ('tea', 40)]", " write: 30 workers", "jobs: 5"]),
    ],
)
@pytest.mark.slow
def test_an_example_runs(name: str, says: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for part in says:
        assert part in done.stdout
    assert "kept to itself" not in done.stdout
