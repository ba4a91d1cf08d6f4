"""What the log says of a pool that does not start: the reason, once."""

from __future__ import annotations

from pathlib import Path

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
