"""What this process has started: found and ended, children, their children and daemons alike.

On Linux each actor's process adopts what is orphaned below it (`process.adopt_orphans`), so whatever it has ever
started is below it, however it was detached. Elsewhere a process whose parent has ended cannot be found any more.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import sys
import time
from collections.abc import Callable, Mapping

from actorpool import process

WITHIN = 0.5
"""Seconds to wait until killed processes are gone; only one that hangs in the kernel needs them."""
LOOK = 0.0005
"""Seconds between two looks at them."""
UNCLAIMED = 32
"""Dead children that may wait to be asked for. Of more, those without a known owner are forgotten."""
CLEANERS = b"multiprocessing.resource_tracker"
"""In the command line of a process that removes what a dead process has left in shared memory, and ends then."""
_LISTED = os.path.exists("/proc/thread-self/children")

kept: set[int] = set()
"""Children that our own code has started in this process, beside actors."""


def children() -> list[int]:
    """The children of this process, with the dead that were not waited for; off Linux all that is below it."""
    if not _LISTED:
        import psutil  # not at the top: on Linux only kernels that were built without that list need it

        return [running.pid for running in psutil.Process().children(recursive=not process.CAN_LINK)]
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            found += map(int, file.read().split())
    return found


def births() -> dict[int, float]:
    """The living children, and when each was started (see `process.start_time`)."""
    started = ((pid, process.start_time(pid)) for pid in children())
    return {pid: moment for pid, moment in started if moment is not None}


def end_all() -> None:
    """End everything that was ever started here.

    Runs in: an actor's process, just before it ends.
    """
    _end(lambda pid: True)


def end_strangers(own: set[int]) -> None:
    """End what was adopted from children that are dead.

    Runs in: pools and supervisors. Off Linux nothing is adopted.

    Args:
        own: the actors that were started here; what `subprocess` and `multiprocessing` have started is known as well.
    """
    if process.CAN_LINK and not own >= (found := set(children())):
        known = {*own, *kept, *_claimed()}
        if not known >= found:
            _end(lambda pid: pid not in known)


def end_since(moment: float, spared: Mapping[int, float]) -> None:
    """End what was started here at `moment` or later, with all that is below it. Its exit status is kept.

    The kernel tells starts in hundredths of a second: what was started less than that before `moment` goes, too.

    Runs in: a worker, also inside of a signal handler.

    Args:
        moment: monotonic seconds.
        spared: what is not to be ended, as `births` tells it.
    """
    first = _start_time_at(moment)

    def wanted(pid: int) -> bool:
        started = process.start_time(pid)
        return started is not None and started >= first and spared.get(pid) != started

    _end(wanted, bury=False)


def bury(own: set[int]) -> None:
    """Wait for dead children that were adopted, and that no other code waits for.

    The kernel does not tell the former parent of a process. So as long as there are few, each may still be asked for
    its status; then `subprocess` and `multiprocessing` are told of theirs, and the others are forgotten.

    Args:
        own: the actors that were started here.
    """
    dead = [pid for pid in children() if pid not in own and not process.alive(pid)]
    if len(dead) > UNCLAIMED:
        _claimed()
        for pid in dead:
            _reap(pid)


def _end(wanted: Callable[[int], bool], bury: bool = True) -> None:
    """Kill until no child is wanted: a killed process leaves its own children to this process."""
    deadline = time.monotonic() + WITHIN
    while left := [pid for pid in children() if wanted(pid) and not _is_cleaner(pid)]:
        for pid in left:
            with contextlib.suppress(PermissionError):  # it has become another user
                process.kill(pid)
            if bury:
                _reap(pid)
        if time.monotonic() > deadline:
            return
        time.sleep(LOOK)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # not ours: elsewhere all descendants are listed
        os.waitpid(pid, os.WNOHANG)


def _is_cleaner(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return CLEANERS in file.read()
    except OSError:
        return False


def _claimed() -> set[int]:
    """What the standard library has started here and is still referred to; it is told which of that is dead."""
    pids: set[int] = set()
    if (multiprocessing := sys.modules.get("multiprocessing")) is not None:  # else it has started nothing
        pids.update(child.pid for child in multiprocessing.active_children())
    if (subprocess := sys.modules.get("subprocess")) is not None:
        for value in gc.get_objects():
            if issubclass(type(value), subprocess.Popen) and hasattr(value, "pid"):
                value.poll()
                pids.add(value.pid)
    return pids


def _start_time_at(moment: float) -> float:
    """The start time of a process that was started at that monotonic moment."""
    ago = time.monotonic() - moment
    if process.LINUX:
        return math.floor((time.clock_gettime(time.CLOCK_BOOTTIME) - ago) * os.sysconf("SC_CLK_TCK"))
    return time.time() - ago
