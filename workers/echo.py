"""A worker without a resource: for trying pools out, for tests of your own, for measuring."""

from __future__ import annotations

import os
import time
from typing import Any, NoReturn

from actorpool.workers.base import Worker, method


class EchoWorker(Worker):
    """Gives back what it gets; can be slow, fail and die on request.

    Args:
        delay: seconds that `open` takes, as a stand-in for connecting.
        resource: the key under which a shared pool finds it.
    """

    def __init__(self, delay: float = 0.0, resource: Any = None) -> None:
        self.delay = delay
        self.resource = resource

    def open(self) -> None:
        if self.delay:
            time.sleep(self.delay)

    @method
    def echo(self, value: Any = None) -> Any:
        """Return `value`."""
        return value

    @method
    def add(self, a: Any, b: Any) -> Any:
        """Return `a + b`."""
        return a + b

    @method
    def pid(self) -> int:
        """The process that runs this worker."""
        return os.getpid()

    @method
    def sleep(self, seconds: float, value: Any = None) -> Any:
        """Take `seconds`, then return `value`."""
        time.sleep(seconds)
        return value

    @method
    def fail(self, error: BaseException | None = None) -> NoReturn:
        """Raise `error` (`RuntimeError` when none is given)."""
        raise RuntimeError("failed as asked") if error is None else error

    @method
    def crash(self, status: int = 1) -> NoReturn:
        """End the worker's process on the spot, without any cleaning up."""
        os._exit(status)
