"""The frame of the command line: exit codes, no tracebacks, nothing loaded that is not asked for."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from actorpool import __version__, cli
from actorpool.errors import InvalidConfig, SystemDown


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "actorpool", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_the_version_is_told():
    assert run("--version").stdout.split()[-1] == __version__


def test_help_lists_every_command_with_a_line_each():
    text = run("--help").stdout
    for name in cli.COMMANDS:
        assert f"  {name} " in text


@pytest.mark.parametrize("arguments", [["frobnicate"], ["--frobnicate"]])
def test_an_unknown_command_or_option_exits_with_2(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert "frobnicate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidConfig("pool", {"size": "must be a number"}), 2),
        (SystemDown("the node has ended"), 1),
        (click.UsageError("no such thing"), 2),
        (click.ClickException("no such thing"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_is_a_line_and_an_exit_code(monkeypatch, capsys, error, code):
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(cli._actorpool, "main", fail)
    assert cli.main([]) == code
    said = capsys.readouterr().err
    assert "Error: " in said
    assert "Traceback" not in said


def test_a_reader_that_has_seen_enough_causes_no_traceback():
    command = f"{sys.executable} -u -m actorpool demo --help | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30)
    assert "Traceback" not in done.stderr


def test_asking_for_help_loads_no_heavy_library():
    heavy = "rich thespian psycopg httpx starlette sqlite3"
    code = (
        "import sys; from actorpool.cli import main; main(['--help'])\n"
        f"print('loaded:', *[name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines()[-1].split() == ["loaded:"], done.stderr
