"""The worker of `Tools`: runs plain functions, and `async def` ones on a loop that it keeps."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from actorpool.serialization import pickling
from actorpool.workers.base import Worker, method

ORIGINAL = "__actorpool_tool__"
"""Where a tool's function keeps the one that the user wrote."""

here: set[str] = set()
"""The tools that run in this very process, if it is a worker of theirs."""


def place(function: Callable[..., Any]) -> str:
    """What names a function in every process."""
    return f"{function.__module__}:{function.__qualname__}"


class ToolWorker(Worker):
    """Runs tools, by their place in a module or by value.

    Args:
        tools: the places of all that were known when the pool started.
    """

    def __init__(self, tools: tuple[str, ...] = ()) -> None:
        here.update(tools)
        self._loop: asyncio.AbstractEventLoop | None = None

    def close(self) -> None:
        """End the loop."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    @method
    def run_tool(self, name: str, by_value: bytes | None, kwargs: dict[str, Any] | None, /, *args: Any) -> Any:
        """Run one. Plain arguments travel quickest, so those by name are left out where there are none."""
        here.add(name)
        function = _found(name) if by_value is None else _opened(by_value)
        value = function(*args, **(kwargs or {}))
        return self._awaited(value) if inspect.iscoroutine(value) else value

    def _awaited(self, work: Any) -> Any:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        task = loop.create_task(work)
        try:
            return loop.run_until_complete(task)
        except BaseException:
            if not task.done():  # interrupted: nothing of it is to go on in the next call
                task.cancel()
                loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise


@functools.lru_cache(maxsize=1000)
def _found(name: str) -> Callable[..., Any]:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for step in path.split("."):
        found = getattr(found, step)
    return getattr(found, ORIGINAL, found)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=100)
def _opened(data: bytes) -> Callable[..., Any]:
    return pickling.loads(data)  # type: ignore[no-any-return]
