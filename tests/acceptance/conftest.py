"""One node for each module, one pool for each test: as an outside user would hold them."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import actorpool
from tests.acceptance.kit import Toy

_numbers = itertools.count()


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    """A running system that the tests of one module share; they stop the pools that they start."""
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


@pytest.fixture
def pool(node: actorpool.System) -> Iterator[Callable[..., actorpool.Pool]]:
    """A function that starts a pool of `Toy` workers (or what is said) under a fresh name, stopped after the test."""
    names: list[str] = []

    def start(worker: Any = Toy, /, **fields: Any) -> actorpool.Pool:
        name = f"pool{next(_numbers)}"
        names.append(name)
        fields.setdefault("size", 1)
        fields.setdefault("max_overflow", 0)
        return node.start_pool(name, worker=worker, **fields)

    yield start
    for name in names:
        try:
            node.stop_pool(name, timeout=0.2)
        except actorpool.PoolNotFound:
            pass


@pytest.fixture
def script() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that runs Python text in a process of its own: `script(text, *argv)`; killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(text: str, *argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", text, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def kill() -> Callable[[int], None]:
    """A function that sends SIGKILL and returns once the process is dead."""

    def kill_and_wait(pid: int) -> None:
        try:
            process = psutil.Process(pid)
            os.kill(pid, signal.SIGKILL)
            psutil.wait_procs([process], timeout=5)
        except (psutil.NoSuchProcess, ProcessLookupError):
            pass

    return kill_and_wait


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"
