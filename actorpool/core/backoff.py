"""How long to wait before the next attempt: exponential, with jitter, bounded. No clock, no randomness of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from actorpool.errors import InvalidConfig

# 2 ** 40 times the smallest delay is beyond every maximum that makes sense; it keeps the power from growing for ever.
_MOST_DOUBLINGS = 40


class Series:
    """One series of attempts with fixed delays: the n-th in a row waits the n-th of them, the last one repeated.

    Args:
        delays: seconds, at least one; no jitter.
    """

    def __init__(self, delays: Sequence[float]) -> None:
        self.delays = tuple(delays)
        self.longest = max(self.delays)
        self.attempts = 0

    def next(self, _random: float) -> float:
        """The delay before the next attempt, in seconds; as `Retry.next`."""
        self.attempts += 1
        return self.delays[min(self.attempts, len(self.delays)) - 1]

    def again(self, random: float) -> float:
        """The delay before what had been open for a moment only is opened again: the first time it is at once."""
        if self.attempts:
            return self.next(random)
        self.attempts = 1
        return 0.0

    def reset(self) -> None:
        """As `Retry.reset`."""
        self.attempts = 0


@dataclass(frozen=True)
class Backoff:
    """Bounds of the delays between attempts.

    Args:
        minimum: the shortest delay, seconds, above 0.
        maximum: the longest delay, seconds, at least `minimum`.

    Raises:
        InvalidConfig: a bound is no number, not above 0, or the two are the wrong way round.
    """

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        problems = {
            name: f"must be a number of seconds above 0, not {value!r}"
            for name, value in (("minimum", self.minimum), ("maximum", self.maximum))
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf")
        }
        if not problems and self.maximum < self.minimum:
            problems["maximum"] = f"must be at least minimum ({self.minimum}), not {self.maximum!r}"
        if problems:
            raise InvalidConfig("Backoff", problems)


class Retry:
    """One series of attempts under a `Backoff`.

    The n-th delay in a row (n from 1) is drawn evenly from `minimum` to `min(maximum, minimum * 2**n)`: the "full
    jitter" of Marc Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015), raised to a floor of
    `minimum` so that no attempt follows at once. Jitter keeps clients that failed together from returning together.
    """

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.longest = backoff.maximum
        self.attempts = 0

    def next(self, random: float) -> float:
        """The delay before the next attempt, in seconds.

        Args:
            random: evenly distributed in [0, 1), drawn by the caller.
        """
        self.attempts += 1
        low = self.backoff.minimum
        high = min(self.backoff.maximum, low * 2.0 ** min(self.attempts, _MOST_DOUBLINGS))
        return low + (high - low) * random

    def again(self, random: float) -> float:
        """The delay before what had been open for a moment only is opened again; as `next`."""
        return self.next(random)

    def reset(self) -> None:
        """An attempt succeeded: the next series starts at the shortest delays again."""
        self.attempts = 0

    def __repr__(self) -> str:
        return f"<Retry {self.backoff.minimum}..{self.backoff.maximum} s, {self.attempts} attempt(s)>"
