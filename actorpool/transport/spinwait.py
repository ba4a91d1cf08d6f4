"""Waiting without sleeping, decided in one place: how long a side of the channel looks before it blocks.

Most of the time of a small call is the wake-up of a sleeping process. A side that looks again for some microseconds
before it blocks, giving the processor away between two looks, is usually still awake when the answer comes.

Giving away is what keeps this harmless among ourselves, and what makes it dear beside other programs: a process that
computes keeps the processor for milliseconds. Nor is there anything to give away where more of our own processes have
work than there are processors: what is waited for comes, but after the look. So each process keeps an account of what
looking has saved and lost of late, and pauses it while it does not pay.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

SPIN = 50e-6
"""Seconds of looking; about twice what a checkout and a call take together."""
LOOKS = 500
"""Looks, each of which takes a microsecond at most where no other process has work. The number ends the looking where a
test has stopped the clock."""
TAKEN = 50e-6
"""Giving way for longer means that another process has work: leave it the processor."""
LOST = 500e-6
"""Giving way for longer was a loss: our own processes answer sooner, so a stranger had the processor."""
SAVED = 30e-6
"""What a look that finds something saves: a wake-up."""
WASTED = 30e-6
"""What a look wastes that finds nothing although it comes soon after: every other look has to find something."""
SOON = 2e-3
"""Seconds; when it comes later than that there was nothing else to do, and looking has cost nothing."""
OPENING = 300e-6
"""What a new process may lose before it has saved anything: its first calls wake all processes up."""
CREDIT = 6e-3
"""Savings that are remembered; two lost slices of a scheduler use them up."""
SHORTEST_PAUSE, LONGEST_PAUSE = 50e-3, 1.0
"""Seconds without looking once the account is overdrawn; four times longer each time that happens in a row."""


def spin_seconds(enabled: bool = True) -> float:
    """How long to look before blocking, in seconds; 0.0 is off.

    Args:
        enabled: what the system was started with (`start(spin=...)`); the environment's `ACTORPOOL_SPIN=0` wins.
    """
    return SPIN if enabled and os.environ.get("ACTORPOOL_SPIN", "1") != "0" else 0.0


class Account:
    """What looking has saved and lost a process, in seconds.

    Attributes:
        resume: looking is paused until then (`time.perf_counter()`).
        gave_up: when a look has ended with nothing, unless something was found since.
    """

    __slots__ = ("balance", "gave_up", "pause", "resume")

    def __init__(self) -> None:
        self.balance = OPENING
        self.gave_up = 0.0
        self.pause = SHORTEST_PAUSE
        self.resume = 0.0

    def saved(self) -> None:
        """A look has found something."""
        if self.balance < CREDIT:
            self.balance += SAVED
            if self.balance >= CREDIT:
                self.pause = SHORTEST_PAUSE

    def begins(self, now: float) -> bool:
        """Whether to look now. Where it is soon after a look that found nothing, that one has missed what came."""
        if now < self.resume:
            return False
        if now - self.gave_up < SOON:
            self.lost(WASTED, now)
        self.gave_up = 0.0
        return now >= self.resume

    def lost(self, seconds: float, now: float) -> None:
        """A stranger had the processor meanwhile, or it was used for nothing."""
        self.balance -= seconds
        if self.balance < 0.0:
            self.balance = 0.0
            self.resume = now + self.pause
            self.pause = min(self.pause * 4, LONGEST_PAUSE)


_account = Account()


def look(attempt: Callable[[], Any], seconds: float, account: Account = _account) -> Any:
    """Look again and again, giving the processor away between two looks.

    Args:
        attempt: one look; what it finds, or something false.
        seconds: longest time to look.
        account: of this process.

    Returns:
        What was found; None when it is time to block.
    """
    clock, give_way = time.perf_counter, os.sched_yield
    now = clock()
    if not account.begins(now):
        return None
    end = now + seconds
    for _ in range(LOOKS):
        before = now
        give_way()
        found = attempt()
        now = clock()
        away = now - before
        if away > LOST:
            account.lost(away, now)
            return found or None
        if found:
            account.saved()
            return found
        if away > TAKEN or now > end:
            break
    account.gave_up = now
    return None
