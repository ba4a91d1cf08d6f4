"""The ids of a pool's workers in a file, where a shell that completes them finds them without asking the pool.

Runs in: the pool's process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from actorpool.thespian_adapter.shell import Shell

WRITE_AFTER = 0.05
"""Seconds after a change in which others may follow it."""


class WorkerIds:
    """That file.

    Args:
        actor: the pool's actor, whose timer is used.
        path: the file; None: there is none.
        ids: tells the present ids.
    """

    def __init__(self, actor: Shell, path: str | None, ids: Callable[[], Iterable[int]]) -> None:
        self._actor = actor
        self._path = path
        self._ids = ids
        self._due = False

    def changed(self) -> None:
        """A worker has come or gone."""
        if self._path is not None and not self._due:
            self._due = True
            self._actor.set_timer(WRITE_AFTER, self._write)

    def _write(self) -> None:
        self._due = False
        assert self._path is not None
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW
        with contextlib.suppress(OSError):  # a full disk: then nothing is completed
            descriptor = os.open(self._path, flags, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(" ".join(map(str, self._ids())))

    def close(self) -> None:
        """The pool ends."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
