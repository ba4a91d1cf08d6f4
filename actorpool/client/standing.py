"""The standing leases of this process: kept between two one-shot calls, until the pool wants the worker back.

Threads share them: who finds none free may wait in line for one, first come, first served. As with free lines, every
step is a single operation of a list or a deque, so threads need no lock around them, and may be interrupted anywhere.

Nothing is told to the process when a lease is recalled; its next use is refused by the worker, and the pool is asked as
if there were none.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from actorpool.client.work import Hold

FRESH = 0.5
"""Seconds; one that has rested for longer has probably been recalled: asking the pool first is quicker."""
ALL_FOR = 0.01
"""Seconds for which the pool's word counts that there is nothing but what this process has."""


class _Turn:
    """A thread that waits for one."""

    __slots__ = ("called", "hold")

    def __init__(self) -> None:
        self.called = threading.Lock()
        self.called.acquire()
        self.hold: Hold | None = None

    def call(self, hold: Hold | None) -> None:
        """Its wait is over; None: there is nothing to wait for any more."""
        self.hold = hold
        self.called.release()


class _Home:
    """What this process has of one pool."""

    __slots__ = ("all_until", "kept", "line")

    def __init__(self) -> None:
        self.kept: list[Hold] = []
        self.line: deque[_Turn] = deque()
        self.all_until = 0.0

    def take(self) -> Hold | None:
        """The one that was used last."""
        try:
            return self.kept.pop()
        except IndexError:
            return None

    def first(self) -> _Turn | None:
        """Whoever waits longest, out of the line."""
        try:
            return self.line.popleft()
        except IndexError:
            return None

    def leave(self, turn: _Turn) -> bool:
        """Leave the line; False: somebody has taken the turn out of it, and is about to call."""
        try:
            self.line.remove(turn)
        except ValueError:
            return False
        return True


_homes: dict[str, _Home] = {}


def _home(path: str) -> _Home:
    home = _homes.get(path)
    if home is None:
        _clear_out()
        home = _homes.setdefault(path, _Home())
    return home


def _clear_out() -> None:
    """Give back what is kept of pools that are not used any more, and may not even exist: it has descriptors."""
    for path, home in list(_homes.items()):
        newest = max((hold.rested for hold in list(home.kept)), default=0.0)
        if not home.line and time.perf_counter() - newest > FRESH:
            _homes.pop(path, None)
            _give_back(home)


def _give_back(home: _Home) -> None:
    while (hold := home.take()) is not None:
        hold.give_back()


def take(path: str) -> Hold | None:
    """A standing lease of the pool with that socket, for one use; None if there is none, or others wait for it."""
    home = _homes.get(path)
    if home is None or home.line:
        return None
    hold = home.take()
    if hold is None:
        return None
    if time.perf_counter() - hold.rested > FRESH:
        hold.give_back()
        give_all(path)  # this one was the last to be used
        return None
    hold.rested = 0.0
    return hold


def keep(path: str, hold: Hold) -> None:
    """A use is over: the lease is whoever's waits longest, or it is kept."""
    home = _home(path)
    turn = home.first()
    if turn is not None:
        hold.rested = 0.0
        turn.call(hold)
        return
    home.kept.append(hold)
    if home.line:  # somebody has come between
        again = home.take()
        if again is not None:
            keep(path, again)


def wait(path: str, seconds: float) -> Hold | None:
    """Wait in line for a standing lease; None if there was none in time."""
    home, turn = _home(path), _Turn()
    home.line.append(turn)
    hold = home.take()  # one may have been kept meanwhile
    if hold is None and turn.called.acquire(timeout=seconds):
        return turn.hold
    if not home.leave(turn):
        turn.called.acquire(timeout=FRESH)  # who was about to call may have been interrupted
        if hold is None:
            return turn.hold
        if turn.hold is not None:
            turn.hold.rested = time.perf_counter()
            keep(path, turn.hold)
    if hold is not None:
        hold.rested = 0.0
    return hold


def note_all(path: str) -> None:
    """The pool says that this process has all there is."""
    _home(path).all_until = time.perf_counter() + ALL_FOR


def is_all(path: str) -> bool:
    """Whether the pool has said so a moment ago."""
    home = _homes.get(path)
    return home is not None and time.perf_counter() < home.all_until


def give_all(path: str) -> None:
    """Give back to the pool what is kept of it."""
    home = _homes.get(path)
    if home is not None:
        _give_back(home)


def disband(path: str) -> None:
    """The pool has recalled its workers: give the others back, and have everybody who waits ask for himself."""
    home = _home(path)
    home.all_until = 0.0
    give_all(path)
    while (turn := home.first()) is not None:
        turn.call(None)


def forget(prefix: str) -> None:
    """Drop what is kept of pools whose path begins so: their system has ended."""
    for path in [path for path in list(_homes) if path.startswith(prefix)]:
        home = _homes.pop(path)
        while (hold := home.take()) is not None:
            hold.end()


os.register_at_fork(after_in_child=_homes.clear)  # they are the parent's; `Hold` knows that
