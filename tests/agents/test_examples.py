"""The examples about agents run by themselves, and print what they promise."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "agents"


def run(name: str) -> list[str]:
    return run_both(name)[0]


def run_both(name: str) -> tuple[list[str], list[str]]:
    """What it prints, and what its workers do."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_tools_in_three_lines() -> None:
    primes, crash, many = run("tools_in_three_lines.py")
    assert primes == "primes below 20000: 2262"
    assert "may have taken effect" in crash
    assert "took too long" in many


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_interpreter_for_each_conversation() -> None:
    lines = run("interpreter_per_conversation.py")
    assert "anna: 'total + 2': 42" in lines
    assert "bert: 'print(total)': 1" in lines
    assert any("stopped after 0.5 s" in line for line in lines)
    assert any("ZeroDivisionError" in line for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_graph_goes_on_where_it_died() -> None:
    lines, steps = run_both("graph_that_goes_on.py")
    for name in ("ants", "bees"):
        assert [line for line in steps if line.startswith(name)] == [
            f"{name}: {step}" for step in ("research", "write", "write", "check")
        ]
        assert f"{name}: died; it goes on with the step that was not done" in lines
        assert f"an article about what is known of {name}, checked" in lines


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_model_is_loaded_once() -> None:
    workers, loaded, memory = run("model_loaded_once.py")
    assert int(workers.rpartition(" ")[2]) > 1
    assert loaded.endswith(": 1")
    assert int(memory.split()[-2]) < 40


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_pooled_tools_are_an_mcp_server() -> None:
    if importlib.util.find_spec("mcp") is None:
        pytest.skip("needs mcp: pip install 'actorpool[mcp]'")
    tools, crash, hang, add = run("mcp_server.py")
    assert tools == "tools: add, crash, hang"
    assert "may have taken effect" in crash
    assert "took too long" in hang
    assert add == "add: 42"
