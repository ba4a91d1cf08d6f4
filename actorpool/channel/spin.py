"""Waiting without sleeping, decided in one place: how long a side of the channel looks before it blocks.

Most of the time of a small call is the wake-up of a sleeping process. A side that looks again for some microseconds
before it blocks, yielding the processor between two looks, is usually still awake when the answer comes. The yield is
what keeps this harmless: with more callers than processors the others run at once instead of waiting for the spinner.
"""

from __future__ import annotations

import os

SPIN = 50e-6
"""Seconds; about twice what a checkout and a call take together."""


def spin_seconds(enabled: bool = True) -> float:
    """How long to look before blocking, in seconds; 0.0 is off.

    Args:
        enabled: what the system was started with (`start(spin=...)`); the environment's `ACTORPOOL_SPIN=0` wins.
    """
    return SPIN if enabled and os.environ.get("ACTORPOOL_SPIN", "1") != "0" else 0.0
