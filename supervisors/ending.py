"""Ending processes from inside an actor that is itself about to end, when Thespian delivers nothing any more."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence

from actorpool import process

ASK_AGAIN = 0.2
"""Seconds between two SIGTERMs: a process that is just being forked loses the first one."""
LOOK = 0.01
"""Seconds between two looks where there is no pidfd."""
DYING = 5.0
"""Seconds to wait for a killed process; only one that hangs in the kernel needs them."""


def end_processes(pids: Sequence[int], within: float | str) -> None:
    """End child processes side by side and wait until they are gone.

    Args:
        pids: children of this process that no other code waits for meanwhile.
        within: seconds after which they are killed, `"brutal_kill"` (now) or `"infinity"` (never).
    """
    left = list(pids)
    if within != "brutal_kill":
        deadline = float("inf") if within == "infinity" else time.monotonic() + float(within)
        while left and time.monotonic() < deadline:
            for pid in left:
                process.send_signal(pid, signal.SIGTERM)  # Thespian's exit request
            left = _wait(left, min(deadline, time.monotonic() + ASK_AGAIN))
    for pid in left:
        process.kill(pid)
    _wait(left, time.monotonic() + DYING)


def _wait(pids: list[int], deadline: float) -> list[int]:
    """Wait for their deaths until `deadline`; those that live on."""
    poll = select.poll()
    descriptors: dict[int, int] = {}
    polled = []
    for pid in pids:
        try:
            descriptor = process.watch_descriptor(pid)
        except ProcessLookupError:
            continue
        if descriptor is None:
            polled.append(pid)
        else:
            descriptors[descriptor] = pid
            poll.register(descriptor, select.POLLIN)
    try:
        while (descriptors or polled) and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(1000 * (min(left, LOOK) if polled else left)):
                poll.unregister(descriptor)
                os.close(descriptor)
                del descriptors[descriptor]
            polled = [pid for pid in polled if process.alive(pid)]
        return [*descriptors.values(), *polled]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
