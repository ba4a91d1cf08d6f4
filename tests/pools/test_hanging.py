"""Workers whose `open()` never returns: it is interrupted, or killed, and tried again; callers hear why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from actorpool.errors import WorkerUnavailable
from actorpool.workers import Worker, method
from tests.pools.conftest import StartPool


class Hanging(Worker):
    """Cannot be opened while that file exists; `deaf`: not even interrupted."""

    def __init__(self, blocked: str, deaf: bool = False) -> None:
        self.blocked = Path(blocked)
        self.deaf = deaf

    def open(self) -> None:
        while self.blocked.exists():
            with suppress(BaseException if self.deaf else TimeoutError):
                time.sleep(3600)

    @method
    def pid(self) -> int:
        return os.getpid()


@pytest.mark.parametrize("deaf", [False, True])
def test_an_open_that_hangs_is_ended_and_tried_again(
    start: StartPool, tmp_path: Path, eventually: Callable[..., Any], deaf: bool
) -> None:
    blocked = tmp_path / "blocked"
    blocked.touch()
    args = {"blocked": str(blocked), "deaf": deaf}
    limits = {"checkout_timeout": 0.5, "backoff_max": 0.5, "kill_after": 0.3, "max_restarts": 0}
    pool = start(Hanging, worker_args=args, size=1, **limits)
    first = pool.workers()[0].pid
    eventually(lambda: pool.status().connect_errors >= 2)
    with pytest.raises(WorkerUnavailable, match="killed" if deaf else "interrupted") as caught:
        pool.pid(checkout_timeout=0.05)
    assert "TimeoutError" in str(caught.value)
    blocked.unlink()
    assert (pool.pid(checkout_timeout=5.0) != first) == deaf
    assert pool.status().total == 1
