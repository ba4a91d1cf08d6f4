"""Which nodes this user has, by their directories alone: it imports nothing that a shell would have to wait for."""

from __future__ import annotations

import fcntl
import os
import re

from actorpool.errors import InvalidConfig

NODE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")


def top() -> str:
    """Where the nodes of this user are; it need not exist."""
    base = os.environ.get("ACTORPOOL_RUNTIME_DIR")
    if not base:
        session = os.environ.get("XDG_RUNTIME_DIR", "")
        base = session if os.path.isdir(session) and os.access(session, os.W_OK) else "/tmp"
    return os.path.join(os.path.abspath(base), f"actorpool-{os.geteuid()}")


def is_held(path: str) -> bool:
    """Whether a node that lives has locked its directory."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def held() -> list[str]:
    """The names of the nodes that live, those that are about to serve included."""
    try:
        found = sorted(os.listdir(top()))
    except OSError:
        return []
    return [name for name in found if is_held(os.path.join(top(), name))]


def check(name: str | None) -> None:
    """Refuse a name that cannot be a directory's.

    Raises:
        InvalidConfig: it is not `[A-Za-z][A-Za-z0-9_.-]{0,63}` (or None).
    """
    if name is not None and not (isinstance(name, str) and NODE_NAME.match(name)):
        raise InvalidConfig("system", {"name": f"must be [A-Za-z][A-Za-z0-9_.-]{{0,63}} or None, not {name!r}"})
