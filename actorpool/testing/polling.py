"""`eventually`: wait for what happens elsewhere, for as long as it takes and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(fn: Callable[[], T], timeout: float = 5.0, every: float = 0.005) -> T:
    """Call `fn` again and again until it returns something true, and return that.

    Args:
        fn: what is asked; an exception of it (a failed `assert`, say) counts as not yet.
        timeout: longest wait in seconds.
        every: seconds between two calls.

    Raises:
        AssertionError: not in time; the text has what came last, the cause is what was raised last.
    """
    deadline = time.monotonic() + timeout
    while True:
        problem: Exception | None = None
        try:
            value = fn()
            if value:
                return value
            last = f"returned {value!r}"
        except Exception as error:
            problem = error
            last = f"raised {error!r}"
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s; the last time it {last}") from problem
        time.sleep(every)
