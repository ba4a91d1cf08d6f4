"""A user's code in a process that others need: a look at a value, which may take a moment and no more."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

MOMENT = 0.1
"""Seconds that a function or a comparison of a user's may take."""
AGAIN = 0.02
"""Seconds until one that has caught the interruption is interrupted again."""


class _TooLong(BaseException):
    """Raised by the alarm: no `except Exception` of a user's is to catch it."""


def limited(look: Callable[[], T]) -> T:
    """What `look` returns, within `MOMENT` seconds.

    An alarm breaks into it, so it ends what Python runs, but no call that never comes back from C, and no code that
    catches everything in a loop. Without the main thread there is no alarm, and no limit.

    Raises:
        TimeoutError: it took longer.
        Exception: what `look` raises; anything else that it raises is told as a `ValueError`.
    """
    if threading.current_thread() is not threading.main_thread():
        return look()
    armed = True

    def interrupt(*_: Any) -> None:
        if armed:
            raise _TooLong

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, MOMENT, AGAIN)
        try:
            return look()
        finally:
            armed = False
    except _TooLong:
        raise TimeoutError(f"it took longer than {MOMENT} s, in the process that serves all callers") from None
    except Exception:
        raise
    except BaseException as error:  # a user's code may raise anything, SystemExit included
        raise ValueError(f"it raised {error!r}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
