"""Functions that tests have workers run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def note(path: str, line: Any) -> Any:
    """Append a line to a file, at once and as a whole."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
    return line


def noted(path: Any) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def note_then_sleep(path: str, line: Any, seconds: float) -> Any:
    note(path, line)
    time.sleep(seconds)
    return line


def note_then_exit(path: str, line: Any) -> None:
    note(path, line)
    os._exit(7)


def wait_for(path: str, seconds: float = 30.0) -> str:
    deadline = time.monotonic() + seconds
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.002)
    return "found"


def touch(path: str) -> str:
    Path(path).touch()
    return "made"


def fork_and_leave(value: Any) -> Any:
    """A forked copy that leaves the function, as its parent does."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return value


_prepared: list[Any] = []


def prepare(value: Any) -> None:
    _prepared.append(value)


def prepared() -> tuple[int, list[Any]]:
    return os.getpid(), _prepared


def fail_to_prepare() -> None:
    raise ValueError("no licence")


class Unloadable:
    """Pickles, and fails to load."""

    def __reduce__(self) -> Any:
        return (_refuse, ())


def _refuse() -> None:
    raise RuntimeError("not to be loaded")
