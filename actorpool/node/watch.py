"""What a node waits for: a reason to end."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from actorpool import process
from actorpool.node.order import Order, Stop
from actorpool.node.runtime import TEND_EVERY
from actorpool.process import Caller
from actorpool.supervisors.monitor import POLL_EVERY, DeathWatch

log = logging.getLogger("actorpool")

ORPHANED_GRACE = 1.0
"""Seconds for an orderly end once the owner is gone: nothing may be left two seconds after its death."""


class Watch:
    """Waits for the owner's word or death, for SIGTERM, and for the root supervisor's death.

    Runs in: the node, once its actors are started (what is made here is not inherited by them).

    Args:
        order: names the owner, and the grace of an orderly end.
        owner: the pipe to it.
        root: pid of the root supervisor.
        tend: called with monotonic seconds every `runtime.TEND_EVERY` seconds.
    """

    def __init__(self, order: Order, owner: Connection, root: int, tend: Callable[[float], None]) -> None:
        self._order = order
        self._tend = tend
        self._tend_at = time.monotonic()
        self._owner: Connection | None = owner
        self._root = Caller(process.HOST, root, process.start_time(root) or 0.0)
        self._deaths = DeathWatch()
        self._root_died = False
        self._deadline = float("inf")
        self._poll = select.poll()
        for child in filter(None, (order.owner, self._root)):
            self._watch(child)
        if order.owner is not None:
            self._poll.register(owner, select.POLLIN)
        self._signals = _signal_pipe()
        self._poll.register(self._signals, select.POLLIN)
        reap()

    def _watch(self, process: Caller) -> None:
        try:
            descriptor = self._deaths.watch(process)
        except ProcessLookupError:
            self._on_death(process)
        else:
            if descriptor is not None:
                self._poll.register(descriptor, select.POLLIN)

    def wait(self) -> bool:
        """Wait for a reason to end; whether it is the root supervisor's death, which nothing above it could mend."""
        if self._order.owner is None:
            self._drop_owner()
        while not self._root_died and self._deadline == float("inf"):
            self._step()
        return self._root_died

    def wait_for_root(self) -> None:
        """Wait for the root supervisor's end, as long as the grace allows; the owner's death shortens it."""
        while not self._root_died and time.monotonic() < self._deadline:
            self._step()

    def _step(self) -> None:
        now = time.monotonic()
        if now >= self._tend_at:
            self._tend(now)
            self._tend_at = now + TEND_EVERY
        limit = min(self._deadline, self._tend_at) - now
        if self._deaths.polled:
            limit = min(limit, POLL_EVERY)
        for descriptor, _ in self._poll.poll(max(limit, 0) * 1000):
            if descriptor == self._signals:
                self._on_signal()
            elif self._owner is not None and descriptor == self._owner.fileno():
                self._on_owner()
            else:
                self._poll.unregister(descriptor)
                if (dead := self._deaths.died(descriptor)) is not None:
                    self._on_death(dead)
        for dead in self._deaths.poll(time.monotonic()):
            self._on_death(dead)

    def _on_death(self, dead: Caller) -> None:
        if dead == self._root:
            self._root_died = True
            log.log(logging.ERROR if self._deadline == float("inf") else logging.DEBUG, "the root supervisor is gone")
        else:
            self._end(f"its owner (pid {dead.pid}) died", ORPHANED_GRACE)

    def _on_signal(self) -> None:
        numbers = os.read(self._signals, 4096)
        if signal.SIGTERM in numbers:
            self._end("SIGTERM", self._order.grace)
        reap()

    def _on_owner(self) -> None:
        assert self._owner is not None
        try:
            word: Stop = self._owner.recv()
        except (EOFError, OSError):
            self._drop_owner()
            self._end("its owner closed the pipe", ORPHANED_GRACE)
        else:
            self._end("its owner said so", word.timeout)

    def _drop_owner(self) -> None:
        assert self._owner is not None
        with contextlib.suppress(KeyError):
            self._poll.unregister(self._owner)
        self._owner.close()
        self._owner = None

    def _end(self, why: str, grace: float) -> None:
        deadline = time.monotonic() + grace
        if deadline < self._deadline:
            log.info("the node ends: %s (%.1f s for an orderly end)", why, grace)
            self._deadline = deadline


def _signal_pipe() -> int:
    """A descriptor that gives the numbers of the signals that arrive."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reader


def reap() -> None:
    """Bury the dead children; the node adopts what its actors orphan, so they are not all its own."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
