"""`Tools`: functions of a program, or of an agent, that run in supervised worker processes."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, overload

from actorpool.agents.explaining import Failure, check_failure, named, settle
from actorpool.agents.hosting import Hosted, name_problem
from actorpool.agents.signatures import Decorator, P, R, ToolFunction, check_tool, twins
from actorpool.agents.tool_worker import ORIGINAL, ToolWorker, here, place
from actorpool.config import PoolConfig
from actorpool.errors import InvalidConfig
from actorpool.serialization import pickling

CHECKOUT_TIMEOUT = 60.0
"""Seconds that a call waits for a worker: a model's turn may ask for many at once."""


class Tools(Hosted):
    """A set of tools, and the pool that runs them.

    `@tools`, or `@tools(timeout=5)`, on a function gives an `async def` of the same signature, with a blocking twin as
    its attribute `sync`. The pool starts at the first call in a node of its own, by `start(system)`, or by
    `with tools:`; to import a module that has tools starts nothing. Cancelling the task that awaits a tool interrupts
    the work, and so does its timeout. A tool that is called in a worker of this pool runs right there.

    Args:
        size: worker processes.
        timeout: longest run of one call in seconds, unless a tool has its own; None is no limit.
        failure: what becomes of errors that are not the tool's own: None raises them, a callable makes the tool's value
            of one (`explain` does), an exception class is raised with the sentence of `explain`.
        enabled: False: the tools run in this process, plain ones in a thread, and nothing is started.
        name: the pool's; with `start(system)`, one that another process has started by that name is used.
        **fields: of `PoolConfig`. `max_overflow` is 0 and `checkout_timeout` 60 s here.

    Attributes:
        failure: as it was given; may be changed.

    Raises:
        InvalidConfig: names every bad field.
    """

    def __init__(
        self,
        size: int = 4,
        timeout: float | None = None,
        failure: Failure = None,
        enabled: bool = True,
        *,
        name: str | None = None,
        **fields: Any,
    ) -> None:
        problems: dict[str, str] = {name: "is the tools' own" for name in ("worker", "worker_args") if name in fields}
        for field, text in (("failure", check_failure(failure)), ("name", name_problem(name))):
            if text:
                problems[field] = text
        if problems:
            raise InvalidConfig("Tools", problems)
        defaults = {"max_overflow": 0, "checkout_timeout": CHECKOUT_TIMEOUT}
        given = {"size": size, "call_timeout": timeout, "enabled": enabled, **fields}
        super().__init__("tools", PoolConfig(worker=ToolWorker, **{**defaults, **given}), name)
        self.failure = failure
        self._tools: list[_Tool] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return (_elsewhere, ())

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """The tools, in the order of their definition."""
        return [tool.function for tool in self._tools]

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter(self.functions)

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> ToolFunction[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> ToolFunction[P, R]: ...

    @overload
    def __call__(self, function: None = None, /, *, timeout: float | None = None) -> Decorator: ...

    def __call__(self, function: Any = None, /, *, timeout: float | None = None) -> Any:
        """Make a function a tool.

        Args:
            function: a `def` or `async def`.
            timeout: longest run in seconds; None is that of all.

        Raises:
            TypeError: it cannot be one; says what to do.
        """
        if function is None:
            return lambda it: self._add(it, timeout)
        return self._add(function, timeout)

    def _add(self, function: Callable[..., Any], timeout: float | None) -> Callable[..., Any]:
        check_tool(function)
        tool = _Tool(self, function, timeout)
        self._tools.append(tool)
        return tool.function

    def _prepared(self) -> PoolConfig:
        """Have the modules of the tools loaded once, before the workers are forked."""
        modules = {tool.original.__module__: None for tool in self._tools if tool.by_value is None}
        preload = tuple({**dict.fromkeys(self._config.preload), **modules})
        arguments = {"tools": tuple(tool.name for tool in self._tools)}
        return dataclasses.replace(self._config, preload=preload, worker_args=arguments)


class _Tool:
    """One tool: the function that the user wrote, and the one that stands for it."""

    def __init__(self, tools: Tools, original: Callable[..., Any], timeout: float | None) -> None:
        self.tools = tools
        self.original = original
        self.name = place(original)
        self.timeout = timeout
        self._packed: bytes | None = None
        self.function = twins(original, self.awaited, self.blocking)
        setattr(self.function, ORIGINAL, original)
        setattr(self.function.sync, ORIGINAL, original)  # type: ignore[attr-defined]

    @property
    def by_value(self) -> bool | None:
        """Whether it cannot be found in a module; None: it can."""
        local = "<locals>" in self.original.__qualname__ or self.original.__module__ == "__main__"
        return True if local else None

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if self.by_value and self._packed is None:
            self._packed = pickling.dumps(self.original)
        return self.name, self._packed, kwargs or None, *args

    @property
    def _is_here(self) -> bool:
        return self.name in here or not self.tools._config.enabled

    async def awaited(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._is_here:
            if inspect.iscoroutinefunction(self.original):
                return await self.original(*args, **kwargs)
            if self.name in here:
                return self.original(*args, **kwargs)
            return await asyncio.to_thread(self.original, *args, **kwargs)
        try:
            pool = self.tools._pool or await self.tools.started()
            return await pool.aio.call("run_tool", *self._call(args, kwargs), call_timeout=self.timeout)
        except Exception as error:
            return settle(self.tools.failure, named(error, self.original.__name__))

    def blocking(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._is_here:
            value = self.original(*args, **kwargs)
            return asyncio.run(value) if inspect.iscoroutine(value) else value
        try:
            pool = self.tools._pool or self.tools.start()
            return pool.call("run_tool", *self._call(args, kwargs), call_timeout=self.timeout)
        except Exception as error:
            return settle(self.tools.failure, named(error, self.original.__name__))


def _elsewhere() -> Tools:
    """What a tool that travels by value finds as its `Tools`: it runs where it is."""
    return Tools(enabled=False)
