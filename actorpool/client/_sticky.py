"""The sticky leases of this process: kept between two one-shot calls, until the pool wants the worker back.

Threads share them: who finds none free may wait in line for one, first come, first served. As with free lines, every
step is a single operation of a list or a deque, so threads need no lock around them, and may be interrupted anywhere.

A process that is busy with itself gains nothing by having several workers at once: its threads only take the
interpreter from each other. So they hand one lease on as long as that is quick, and let the others rest.

Nothing is told to the process when a lease is recalled; its next use is refused by the worker, and the pool is asked as
if there were none.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from actorpool.client._calls import LeaseHandle

FRESH = 0.5
"""Seconds; one that has rested for longer has probably been recalled: asking the pool first is quicker."""
ALL_FOR = 0.01
"""Seconds for which the pool's word counts that there is nothing but what this process has."""

QUICK = 1e-3
"""Seconds that a thread waits for a lease that others use, while there are some that rest."""
BUSY, WINDOW = 0.8, 0.01
"""A process that uses more than this share of a processor is busy; judged anew after so many seconds."""


class _Load:
    """How busy this process is with itself."""

    __slots__ = ("_busy", "_since", "_spent")

    def __init__(self) -> None:
        self._since = self._spent = 0.0
        self._busy = False

    def is_busy(self, now: float) -> bool:
        """Whether it was, when last judged."""
        elapsed = now - self._since
        if elapsed > WINDOW:
            spent = time.process_time()
            self._busy = spent - self._spent > BUSY * elapsed
            self._since, self._spent = now, spent
        return self._busy


_load = _Load()


class _Turn:
    """A thread that waits for one."""

    __slots__ = ("called", "hold", "since")

    def __init__(self) -> None:
        self.since = time.perf_counter()
        self.called = threading.Lock()
        self.called.acquire()
        self.hold: LeaseHandle | None = None

    def call(self, hold: LeaseHandle | None) -> None:
        """Its wait is over; None: there is nothing to wait for any more."""
        self.hold = hold
        self.called.release()


class _Home:
    """What this process has of one pool: leases that rest, those in use (by `id`), and who waits for one."""

    __slots__ = ("all_until", "kept", "line", "used")

    def __init__(self) -> None:
        self.kept: list[LeaseHandle] = []
        self.used: set[int] = set()
        self.line: deque[_Turn] = deque()
        self.all_until = 0.0

    def take(self) -> LeaseHandle | None:
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

    def has_enough(self, now: float) -> bool:
        """Whether whoever waits is better off with what others use than with one more: see above."""
        try:
            waited = now - self.line[0].since
        except IndexError:
            return False
        return bool(self.used) and waited < QUICK and _load.is_busy(now)

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


def take(path: str) -> LeaseHandle | None:
    """A sticky lease of the pool with that socket, for one use; None if there is none, or others wait for it."""
    home = _homes.get(path)
    if home is None or home.line or not home.kept:
        return None
    try:
        hold = home.kept.pop()
    except IndexError:  # another thread has just taken it
        return None
    if time.perf_counter() - hold.rested > FRESH:
        hold.give_back()
        give_all(path)  # this one was the last to be used
        return None
    hold.rested = 0.0
    home.used.add(id(hold))
    return hold


def use(path: str, hold: LeaseHandle) -> None:
    """A use begins."""
    hold.rested = 0.0
    _home(path).used.add(id(hold))


def drop(path: str, hold: LeaseHandle) -> None:
    """A use is over, and with it the lease."""
    _home(path).used.discard(id(hold))


def keep(path: str, hold: LeaseHandle) -> None:
    """A use is over: the lease is whoever's waits longest, or it is kept."""
    home = _homes.get(path) or _home(path)
    home.used.discard(id(hold))
    if home.line and not home.has_enough(hold.rested) and (turn := home.first()) is not None:
        use(path, hold)
        turn.call(hold)
        return
    home.kept.append(hold)
    if home.line and not home.used:  # somebody has come between
        again = home.take()
        if again is not None:
            keep(path, again)


def wait(path: str, seconds: float) -> LeaseHandle | None:
    """Wait in line for a sticky lease; None if there was none in time."""
    home, turn = _home(path), _Turn()
    home.line.append(turn)
    hold = None if home.used else home.take()  # one may have been kept meanwhile
    for patience in (min(QUICK, seconds), seconds - QUICK):
        if hold is None and patience > 0:
            if turn.called.acquire(timeout=patience):
                return turn.hold
            hold = home.take()  # those in use are not so quick
    if not home.leave(turn):
        turn.called.acquire(timeout=FRESH)  # who was about to call may have been interrupted
        if hold is None:
            return turn.hold
        if turn.hold is not None:
            turn.hold.rested = time.perf_counter()
            keep(path, turn.hold)
    if hold is not None:
        use(path, hold)
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
    home.used.clear()  # also those that an interrupt has left in it
    give_all(path)
    while (turn := home.first()) is not None:
        turn.call(None)


def forget(prefix: str) -> None:
    """Drop what is kept of pools whose path begins so: their system has ended."""
    for path in [path for path in list(_homes) if path.startswith(prefix)]:
        home = _homes.pop(path)
        while (hold := home.take()) is not None:
            hold.end()


os.register_at_fork(after_in_child=_homes.clear)  # they are the parent's; `LeaseHandle` knows that
