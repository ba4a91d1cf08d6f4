"""Locks that a forked child can take, whichever thread of its parent had them at that moment.

The thread that had one does not exist in the child, so it would never be released there. What a lock protects is then
as that thread left it, in the middle of something perhaps: its owner must keep apart what belongs to which process.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_renewed: weakref.WeakKeyDictionary[Any, dict[str, Callable[[], Any]]] = weakref.WeakKeyDictionary()


def renewed(owner: Any, attribute: str, make: Callable[[], T]) -> T:
    """A lock for that attribute of `owner`, which has a new one in each forked child.

    Args:
        owner: whose it is; compared by identity, and not kept alive.
        attribute: its name.
        make: makes one.
    """
    _renewed.setdefault(owner, {})[attribute] = make
    return make()


def _renew() -> None:
    for owner, locks in list(_renewed.items()):
        for attribute, make in locks.items():
            setattr(owner, attribute, make())


os.register_at_fork(after_in_child=_renew)


def condition() -> threading.Condition:
    """One whose lock is reentrant: a lease may be dropped while its own thread has it."""
    return threading.Condition(threading.RLock())
