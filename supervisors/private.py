"""The directory of the sockets of a manager that was given none: made for it, and removed when it ends."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import stat
import tempfile
import time
from contextlib import suppress

from actorpool.transport import paths

PREFIX = "actorpool-"
OLD = 60.0
"""Seconds after which a socket that no process serves is abandoned; a young one may be about to be served."""


def private_directory() -> str:
    """A new directory, for this user alone. Those of managers that were killed are removed."""
    base = _base()
    for manager in glob.glob(os.path.join(glob.escape(base), paths.manager(f"{PREFIX}*"))):
        with suppress(OSError):  # it is gone, or another user's
            if _is_abandoned(manager):
                shutil.rmtree(os.path.dirname(manager))
    return tempfile.mkdtemp(prefix=PREFIX, dir=base)


def _base() -> str:
    """The directory for temporary files, or /tmp if the path of a pool's socket in there could be too long."""
    base = tempfile.gettempdir()
    longest = paths.pool(os.path.join(base, f"{PREFIX}12345678"), "x" * paths.LONGEST_NAME)
    return base if paths.fits(longest) else "/tmp"


def _is_abandoned(path: str) -> bool:
    facts = os.lstat(path)
    if not stat.S_ISSOCK(facts.st_mode) or facts.st_uid != os.geteuid() or time.time() - facts.st_mtime < OLD:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False
