"""Draining every pool of a node at the same time, before it ends."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from actorpool.cli import memo
from actorpool.errors import ActorPoolError

if TYPE_CHECKING:
    from actorpool.client.system import System

_MARGIN = 0.5

Result = TypeVar("Result")


def at_once(
    calls: Mapping[str, Callable[[], Result]], timeout: float | None = None
) -> dict[str, Result | BaseException]:
    """Run functions in a thread each, and what each returned or raised; without those that take longer than `timeout`.

    The threads never keep this process from ending, and a signal is handled while it waits.
    """
    results: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def run(name: str, call: Callable[[], Result]) -> None:
        try:
            results.put((name, call()))
        except BaseException as error:
            results.put((name, error))

    for name, call in calls.items():
        threading.Thread(target=run, args=(name, call), daemon=True).start()
    deadline = None if timeout is None else time.monotonic() + timeout
    done: dict[str, Result | BaseException] = {}
    while len(done) < len(calls):
        try:
            name, outcome = results.get(timeout=None if deadline is None else max(deadline - time.monotonic(), 0))
        except queue.Empty:
            break
        done[name] = outcome
    return done


def drain(system: System, seconds: float) -> None:
    """Drain every pool; returns after `seconds` and a moment, whatever is left."""
    drains = {name: functools.partial(_drain, system, name, seconds) for name in system.pools()}
    at_once(drains, seconds + _MARGIN)


def _drain(system: System, name: str, seconds: float) -> None:
    with contextlib.suppress(ActorPoolError):  # a shared pool, or one that has just ended
        system.pool(name).drain(seconds)


def leases_out(system: System) -> int:
    """How many leases are out in all pools."""
    count = 0
    for name in system.pools():
        with contextlib.suppress(ActorPoolError):
            count += system.status(name).monitors
    return count


def limit(system: System) -> float:
    """The limit that a node was started with, or the usual one."""
    from actorpool.configuration.settings import DRAIN  # not at the top: it knows every worker

    found = memo.recall(system.directory or "").get("drain")
    return float(found) if isinstance(found, (int, float)) else DRAIN
