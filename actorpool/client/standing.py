"""The standing leases of this process: kept between two one-shot calls, until the pool wants the worker back.

As with free lines, taking and keeping are single operations of a list, so threads need no lock. Nothing is told to the
process when a lease is recalled; its next use is refused by the worker, and the pool is asked as if there were none.
"""

from __future__ import annotations

import os
import time

from actorpool.client.work import Hold

FRESH = 0.5
"""Seconds; one that has rested for longer has probably been recalled: asking the pool first is quicker."""

_kept: dict[str, list[Hold]] = {}


def take(path: str) -> Hold | None:
    """A standing lease of the pool with that socket, for one use; None if there is none."""
    hold = _take(path)
    if hold is None:
        return None
    if time.perf_counter() - hold.rested > FRESH:
        hold.give_back()
        give_all(path)  # this one was the last to be used
        return None
    hold.rested = 0.0
    return hold


def _take(path: str) -> Hold | None:
    try:
        return _kept[path].pop()
    except (KeyError, IndexError):
        return None


def keep(path: str, hold: Hold) -> None:
    """Keep a standing lease whose use is over."""
    try:
        _kept[path].append(hold)
    except KeyError:
        _kept.setdefault(path, []).append(hold)


def give_all(path: str) -> None:
    """Give back to the pool what is kept of it."""
    while (hold := _take(path)) is not None:
        hold.give_back()


def forget(prefix: str) -> None:
    """Drop what is kept of pools whose path begins so: their system has ended."""
    for path in [path for path in list(_kept) if path.startswith(prefix)]:
        while (hold := _take(path)) is not None:
            hold.end()
        _kept.pop(path, None)


os.register_at_fork(after_in_child=_kept.clear)  # they are the parent's; `Hold` knows that
