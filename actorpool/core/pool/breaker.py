"""The circuit breaker of a pool: closed, open, half-open. A plain value; time is an argument.

Only failures of the *resource* are reported here (a connection that cannot be opened, a failed check, a lost
connection), never a query's or a caller's error. Nygard's circuit breaker ("Release It!", 2007) with a sliding
window of failures: a success does not wipe out the failures around it, so an intermittent resource opens it too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sized

from actorpool.config import Breaker


class Circuit:
    """Whether callers are let through to the resource.

    Args:
        breaker: its settings; None is a circuit that is always closed and costs next to nothing.
    """

    def __init__(self, breaker: Breaker | None = None) -> None:
        self._breaker = breaker
        self._recent: deque[float] = deque(maxlen=breaker.failures if breaker else 0)
        self._until: float | None = None  # open until then, half-open afterwards; None while closed
        self._trials = 0

    def __repr__(self) -> str:
        if self._until is None:
            return f"<Circuit closed, {len(self._recent)} recent failure(s)>"
        return f"<Circuit open until {self._until:.3f}, {self._trials} trial(s) out>"

    def state(self, now: float) -> str:
        """`"closed"`, `"open"` or `"half_open"`."""
        if self._until is None:
            return "closed"
        return "open" if now < self._until else "half_open"

    def allows(self, now: float, waiting: Sized = ()) -> bool:
        """Whether one more caller may come in: not while open, and while half-open only as a trial.

        Args:
            now: monotonic seconds.
            waiting: the callers let in before that still wait; they will be trials, and are counted only if needed.
        """
        if self._until is None or self._breaker is None:
            return True
        return now >= self._until and self._trials + len(waiting) < self._breaker.half_open

    def trial_begins(self, now: float) -> bool:
        """Report that a caller is being served. True: it is a trial, and `trial_ends` is due when its lease ends."""
        if self._until is None or now < self._until:
            return False
        self._trials += 1
        return True

    def trial_ends(self, now: float) -> None:
        """Report the end of a trial at `now`, however it ended; its verdict comes by `failure` or `success`."""
        self._trials -= 1

    def failure(self, now: float) -> bool:
        """Report a connection-class failure; True when it opened the circuit (again).

        While open it changes nothing: retries in the background must not keep the circuit open for ever.
        """
        breaker = self._breaker
        if breaker is None or (self._until is not None and now < self._until):
            return False
        self._recent.append(now)
        often = len(self._recent) == breaker.failures and now - self._recent[0] <= breaker.window
        if self._until is None and not often:
            return False
        self._until = now + breaker.reset_after
        self._recent.clear()
        return True

    def success(self, now: float) -> bool:
        """Report that the resource worked; True when it closed the circuit.

        While open it changes nothing: it may be the late end of what began before the failures.
        """
        if self._until is None or now < self._until:
            return False
        self._until = None
        self._recent.clear()
        return True

    def retry_in(self, now: float) -> float:
        """Seconds until a trial is allowed; 0.0 when the circuit is not open."""
        return 0.0 if self._until is None else max(self._until - now, 0.0)

    def next_change(self, now: float) -> float | None:
        """When an open circuit becomes half-open; None when time alone changes nothing."""
        return self._until if self._until is not None and now < self._until else None
