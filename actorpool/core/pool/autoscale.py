"""How many workers a pool should keep, judged by how many leases were out lately. Pure; the pool resizes in place."""

from __future__ import annotations

from collections.abc import Sequence

from actorpool.config import Autoscale


def target_size(autoscale: Autoscale, samples: Sequence[int], current: int) -> int | None:
    """The size to change to, or None to leave the pool as it is.

    `trunc(average * headroom)`, at least `minimum`, at most `maximum`, and only when it differs from `current` by
    more than `threshold`: a pool does not follow every ripple.

    Args:
        autoscale: the settings.
        samples: leases out at each of the last samples.
        current: the present size.
    """
    if not samples:
        return None
    # Rounded before it is cut off: 55 * 1.4 is 76.99999999999999 in floating point.
    target = max(int(round(sum(samples) / len(samples) * autoscale.headroom, 9)), autoscale.minimum)
    if autoscale.maximum is not None:
        target = min(target, autoscale.maximum)
    return target if abs(target - current) > autoscale.threshold else None


class Scaler:
    """When to ask for a new size: every `interval` seconds, never to catch up.

    Args:
        autoscale: the settings; None never asks.
        now: monotonic seconds of the pool's start.
    """

    def __init__(self, autoscale: Autoscale | None, now: float) -> None:
        self.autoscale = autoscale
        self._next = None if autoscale is None else now + autoscale.interval

    def due(self, now: float) -> bool:
        """Whether it is time; True only once for each interval."""
        if self.autoscale is None or self._next is None or now < self._next:
            return False
        self._next = now + self.autoscale.interval
        return True

    def next_due(self) -> float | None:
        """When `due` will say so next."""
        return self._next
