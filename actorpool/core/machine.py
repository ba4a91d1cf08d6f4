"""What all decisions share: state machines whose steps return effects, timers, backoff, intensity, quantiles.

Nothing here has a clock or chance of its own: `now` and random numbers are arguments.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from math import floor
from typing import Any, ParamSpec

from actorpool._dataclass import dataclass
from actorpool.core.effects import Answer, Emit
from actorpool.errors import InvalidConfig

P = ParamSpec("P")


class Effects:
    """The effects of the step that is being taken, in order."""

    def __init__(self) -> None:
        self._list: list[Any] = []

    def do(self, effect: Any) -> None:
        """Ask the shell for something."""
        self._list.append(effect)

    def emit(self, name: str, /, *, metadata: dict[str, Any] | None = None, **measurements: Any) -> None:
        """Tell an event."""
        self._list.append(Emit(name, measurements, metadata or {}))

    def answer(self, refs: list[Any], value: Any = None) -> None:
        """Answer administrative requests, and forget them."""
        for ref in refs:
            self._list.append(Answer(ref, value))
        refs.clear()

    def take(self) -> list[Any]:
        """All there are, removed."""
        effects, self._list = self._list, []
        return effects


class StateMachine:
    """Base of an object with steps that return effects. A machine made of parts gives them its `effects`."""

    def __init__(self) -> None:
        self.effects = Effects()
        self._do = self.effects.do
        self._emit = self.effects.emit


def step(method: Callable[P, None]) -> Callable[P, list[Any]]:
    """A public step of a `StateMachine`: what it decided is returned as effects, in order."""

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> list[Any]:
        method(*args, **kwargs)
        effects: Effects = args[0].effects  # type: ignore[attr-defined]
        return effects.take()

    return wrapper


class TimerQueue:
    """Reminders, earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Any]] = []
        self._count = 0
        self._many = 64

    def at(self, when: float, what: Any) -> None:
        """Remind of `what` at the monotonic time `when`."""
        self._count += 1  # keeps entries of the same moment in order, and the heap from comparing them
        heapq.heappush(self._heap, (when, self._count, what))

    def due(self, now: float) -> list[Any]:
        """All entries that are due, removed, in order."""
        ready = []
        while self._heap and self._heap[0][0] <= now:
            ready.append(heapq.heappop(self._heap)[2])
        return ready

    def tidy(self, wanted: Callable[[Any], bool]) -> None:
        """Forget the reminders that `wanted` says no to, once there are twice as many as last time: O(1) amortised."""
        if len(self._heap) > self._many:
            self._heap = [entry for entry in self._heap if wanted(entry[2])]
            heapq.heapify(self._heap)
            self._many = 2 * len(self._heap) + 64

    def next(self) -> float | None:
        """When the next reminder is due."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._heap)


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


class Intensity:
    """How many restarts happened lately, and whether that is still within the limit.

    OTP's `add_restart`: time is taken in whole seconds, a restart counts while it is at most `max_seconds` old
    (inclusive), and more than `max_restarts` of them is too many. So with 0 the first restart is already one too many,
    and the window is between `max_seconds` and `max_seconds + 1` seconds long.

    Args:
        max_restarts: tolerated within the window, at least 0.
        max_seconds: length of the window; a fraction is dropped, as OTP knows whole seconds only (0.5 is 0: restarts
            within the same second).
    """

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self._period = floor(max_seconds)
        self._restarts: deque[int] = deque()

    def add(self, now: float) -> bool:
        """Count a restart (or a failed attempt at one); True while the limit is kept.

        Args:
            now: monotonic seconds.
        """
        self._restarts.append(floor(now))
        return self.count(now) <= self.max_restarts

    def count(self, now: float) -> int:
        """How many restarts the window that ends at `now` (monotonic seconds) holds."""
        oldest = floor(now) - self._period
        while self._restarts and self._restarts[0] < oldest:
            self._restarts.popleft()
        return len(self._restarts)

    def clear(self) -> None:
        """Forget the past."""
        self._restarts.clear()

    def __repr__(self) -> str:
        return f"<Intensity {len(self._restarts)} of {self.max_restarts} restart(s) in {self.max_seconds} s>"


class Quantiles:
    """The last `size` numbers, sorted only when a quantile is read."""

    __slots__ = ("_ring", "add")

    add: Callable[[float], None]

    def __init__(self, size: int = 1000) -> None:
        self._ring: deque[float] = deque(maxlen=size)
        self.add = self._ring.append  # bound once: no Python frame for each number

    def __len__(self) -> int:
        return len(self._ring)

    def __repr__(self) -> str:
        return f"<Quantiles of {len(self)} numbers, median {self.quantile(0.5):.6g}>"

    def last(self, number: int) -> list[float]:
        """The last `number` of them, oldest first; fewer if there are not that many."""
        return list(self._ring)[-number:] if number > 0 else []

    def quantile(self, q: float) -> float:
        """The smallest kept number that at least the share `q` (0 to 1) of them does not exceed (nearest rank).

        Returns:
            0.0 when there are none.
        """
        ordered = sorted(self._ring)
        return ordered[max(math.ceil(q * len(ordered)) - 1, 0)] if ordered else 0.0
