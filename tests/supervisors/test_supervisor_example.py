"""The example of an agent team: its calculator dies three times, and the team reaches all its goals."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "agent_team.py"


def test_the_team_carries_on_when_a_tool_dies():
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 7 + 4
    assert "Kyiv: 20.3 h" in lines
    assert lines[-4:] == [
        "memory: running, restarted 0 time(s)",
        "library: running, restarted 0 time(s)",
        "calculator: running, restarted 3 time(s)",
        "planner: running, restarted 3 time(s)",
    ]
    assert "Traceback" not in done.stderr
