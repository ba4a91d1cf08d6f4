"""Workers whose `open()` never returns: it is interrupted, or killed, and tried again; callers hear why."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool.client import _messages
from actorpool.errors import PoolDown, WorkerUnavailable
from actorpool.workers import EchoWorker, Worker, method
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


def _three(_: Any) -> int:
    return 3


def _slowly_three(_: Any) -> int:
    time.sleep(1.5)
    return 3


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.slow
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


@pytest.mark.slow
def test_a_call_by_messages_hears_that_the_pool_itself_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_messages, "MANAGER_PATIENCE", 0.5)
    with actorpool.start(base="multiprocUDPBase", log_level="CRITICAL") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1, checkout_timeout=0.3)
        assert pool.run(_three) == 3
        pid = system.tree().children[0].children[0].pid or 0
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(PoolDown, match="may or may not have taken effect"):
                pool.run(_three)
            assert time.monotonic() - began < 15
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
def test_a_call_by_messages_that_takes_long_is_waited_for() -> None:
    with actorpool.start(base="multiprocUDPBase", log_level="CRITICAL") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1, checkout_timeout=0.1)
        assert pool.run(_slowly_three) == 3
