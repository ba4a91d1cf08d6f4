"""What the log says of a pool that does not start: the reason, once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool.errors import PermanentError
from actorpool.workers import Worker


class Unmade(Worker):
    def __init__(self) -> None:
        raise ValueError("no such mode")


class Barred(Worker):
    def open(self) -> None:
        raise PermanentError("wrong password")


@pytest.mark.parametrize(
    ("worker", "error", "told"),
    [(Unmade, ValueError, "ValueError: no such mode"), (Barred, PermanentError, "PermanentError: wrong password")],
)
def test_a_pool_that_does_not_start_is_one_line_of_the_log(
    tmp_path: Path, worker: type[Worker], error: type[Exception], told: str
) -> None:
    log = tmp_path / "node.log"
    with actorpool.start(log_level="CRITICAL", log_file=log) as system, pytest.raises(error):
        system.start_pool("orders", worker=worker, size=1)
    lines = [line for line in log.read_text().splitlines() if "orders" in line]
    assert len(lines) == 1, lines
    assert lines[0].endswith(f"Failed to start pool orders: {told}")


def test_the_reason_is_told_however_many_workers_are_still_to_be_forked(node: actorpool.System) -> None:
    with pytest.raises(ValueError, match="no such mode"):
        node.start_pool("many", worker=Unmade, size=60)


class Gone(Worker):
    def __init__(self) -> None:
        os._exit(3)


def test_a_worker_that_ends_before_it_has_said_anything_leaves_no_socket(
    node: actorpool.System, eventually: Callable[..., Any]
) -> None:
    def sockets() -> set[str]:
        return {name for name in os.listdir(node.directory) if name.startswith("@")}

    before = sockets()
    with pytest.raises(actorpool.ActorPoolError, match="exit status 3"):
        node.start_pool("gone", worker=Gone, size=2)
    eventually(lambda: not sockets() - before)  # that of the pool goes last
