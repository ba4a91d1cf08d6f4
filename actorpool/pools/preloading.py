"""Modules that are loaded once, in the pool's process: workers are forked from it and share what they have loaded."""

from __future__ import annotations

import gc
import importlib
import os
import threading
from collections.abc import Sequence

from actorpool.thespian_adapter.shell import log


def preload(pool: str, modules: Sequence[str]) -> None:
    """Import the modules, and keep the garbage collector from touching, and so copying, what they have made.

    Runs in: the pool's process, before its first worker; of a `LocalPool`, in the program's.

    Raises:
        BaseException: whatever a module raises.
    """
    if not modules:
        return
    before = _threads()
    for name in modules:
        importlib.import_module(name)
    if started := _threads() - before:
        names = sorted(thread.name for thread in threading.enumerate() if thread.native_id in started)
        log.warning(
            "pool %s: preload has left %s thread(s) running (%s): a worker is forked without them, and a lock that one "
            "has then is never free there; have the modules start threads when they are first used",
            pool, len(started), ", ".join(names) or "not Python's",
        )  # fmt: skip
    gc.collect()
    gc.freeze()


def _threads() -> set[int]:
    try:
        return set(map(int, os.listdir("/proc/self/task")))
    except OSError:
        return {thread.native_id or 0 for thread in threading.enumerate()}
