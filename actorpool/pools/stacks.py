"""The Python stack of a worker at this moment, also while it is stuck in C and holds the interpreter.

A real-time signal has `faulthandler` write it into a file in memory that a pool shares with all its workers: no ptrace,
no help of what runs there, and the call goes on. One worker is asked at a time.

Runs in: the pool's process.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from actorpool import _scrubbing, process
from actorpool.errors import ActorPoolError

if TYPE_CHECKING:
    from actorpool.pools.holders import Asker
    from actorpool.pools.shell import BasePoolShell

PATIENCE = 1.0
"""Seconds for a worker to write its stack."""
LOOK = 0.005
"""Seconds between two looks; what has not grown from one to the next is whole."""


class Stacks:
    """Asks workers for their stacks. Made before the first of them is forked.

    Args:
        pool: has the workers; its timers are used.
    """

    def __init__(self, pool: BasePoolShell) -> None:
        self._pool = pool
        self._waiting: deque[tuple[int | None, Asker]] = deque()
        if pool.is_process and process.STACK_SIGNAL is not None:
            process.stack_file = _file()

    def ask(self, worker: int | None, asker: Asker) -> None:
        """Have that worker write its stack; `asker` gets it, or an error."""
        self._waiting.append((worker, asker))
        if len(self._waiting) == 1:
            self._begin()

    def _begin(self) -> None:
        worker, _ = self._waiting[0]
        hand = self._pool.worker_handles.find(worker)
        file = process.stack_file
        if hand is None:
            known = ", ".join(str(hand.id) for hand in self._pool.worker_handles) or "none"
            self._answer(LookupError(f"{self._pool.name!r} has no worker {worker}; there are: {known}"))
        elif file is None or process.STACK_SIGNAL is None or not hand.tells_stacks:
            self._answer(ActorPoolError(f"worker {worker} of {self._pool.name!r} cannot tell its stack (yet)"))
        else:
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)  # the place is shared with the worker
            process.send_signal(hand.pid, process.STACK_SIGNAL)
            self._pool.set_timer(LOOK, lambda: self._look(file, 0, time.monotonic() + PATIENCE))

    def _look(self, file: int, before: int, deadline: float) -> None:
        size = os.fstat(file).st_size
        if size and size == before:
            self._answer(_scrubbing.scrub(os.pread(file, size, 0).decode(errors="replace")))
        elif time.monotonic() < deadline:
            self._pool.set_timer(LOOK, lambda: self._look(file, size, deadline))
        else:
            text = f"worker {self._waiting[0][0]} of {self._pool.name!r} has not told its stack within {PATIENCE:g} s"
            self._answer(TimeoutError(f"{text}: it is stopped, or in a call of the kernel that nothing interrupts"))

    def _answer(self, value: Any) -> None:
        _, asker = self._waiting.popleft()
        asker.answer(value)
        if self._waiting:
            self._begin()


def _file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("actorpool-stacks")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
