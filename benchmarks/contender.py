"""The process of one contender: `python -m actorpool.benchmarks.contender MODULE:FACTORY OPTIONS`.

Says "ready", then answers each line of seconds with its figures as JSON, until its input ends. One process each:
no contender shares an interpreter, a heap or a thread with another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from importlib import import_module
from types import TracebackType

from actorpool import process
from actorpool.benchmarks.meter import Figures


class Contender:
    """One contender's process, seen from the run. A context manager.

    Raises:
        ContenderFailed: it could not be opened, or a turn failed; the text is its last line of errors.
    """

    def __init__(self, contender: str, options: str) -> None:
        command = [sys.executable, "-m", "actorpool.benchmarks.contender", contender, options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Contender:
        self._answer()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def turn(self, seconds: float) -> Figures:
        """Let it measure for so long."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        figures: Figures = json.loads(self._answer())
        return figures

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            raise ContenderFailed(errors.strip().rpartition("\n")[2] or f"exit code {self._process.returncode}")
        return line


class ContenderFailed(Exception):
    """A contender ended by itself."""


def main() -> None:
    """The process."""
    process.link_to_parent()
    warnings.simplefilter("ignore")  # peers that fork with threads running are warned about it
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed is no answer
    module, _, factory = sys.argv[1].partition(":")
    make = getattr(import_module(f"actorpool.benchmarks.{module}"), factory)
    with make(**json.loads(sys.argv[2])) as measure:
        print("ready", file=answers)
        for line in sys.stdin:
            print(json.dumps(measure(float(line))), file=answers)


if __name__ == "__main__":
    main()
