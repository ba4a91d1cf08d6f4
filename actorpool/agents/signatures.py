"""Functions that look like another one: the same name, signature, docstring and annotations, and a blocking twin."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar, overload

Aio = Callable[[tuple[Any, ...], dict[str, Any]], Coroutine[Any, Any, Any]]
Blocking = Callable[[tuple[Any, ...], dict[str, Any]], Any]
P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class ToolFunction(Protocol[P, R_co]):
    """What a type checker is to know of a tool: it is awaited, and has a blocking twin."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Run it in a worker."""

    @property
    def sync(self) -> Callable[P, R_co]:
        """The same, blocking."""


class Decorator(Protocol):
    """What makes a tool of a function, written with `def` or `async def`."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> ToolFunction[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> ToolFunction[P, R]: ...


_CONTEXTS = {
    "RunContext", "RunContextWrapper", "ToolContext", "ToolRuntime", "Context", "CallbackContext", "RunnableConfig",
    "InjectedState", "InjectedStore", "InjectedToolArg", "InjectedToolCallId", "BaseStore", "CancellationToken",
    "FunctionInvocationContext", "InvocationContext", "ToolCallContext",
}  # fmt: skip
"""Names of what agent frameworks pass to a tool beside the model's arguments."""
_FRAMEWORKS = {
    "pydantic_ai", "agents", "langgraph", "langchain", "langchain_core", "mcp", "fastmcp", "autogen_core", "google",
    "agent_framework", "crewai", "llama_index", "strands", "smolagents",
}  # fmt: skip


def twins(function: Callable[..., Any], aio: Aio, blocking: Blocking) -> Callable[..., Any]:
    """An `async def` that looks like `function`, with its blocking twin as `sync`."""

    @functools.wraps(function)
    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        return await aio(args, kwargs)

    @functools.wraps(function)
    def sync(*args: Any, **kwargs: Any) -> Any:
        return blocking(args, kwargs)

    asynchronous.sync = sync  # type: ignore[attr-defined]
    return asynchronous


def without_self(method: Callable[..., Any]) -> Callable[..., Any]:
    """A function that looks like a method without its first parameter; its annotations are no texts any more."""

    def function(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(function, name, getattr(method, name))
    hints = hints_of(method)
    signature = inspect.signature(method)
    parameters = [
        item.replace(annotation=hints.get(item.name, item.annotation))
        for item in list(signature.parameters.values())[1:]
    ]
    returns = hints.get("return", signature.return_annotation)
    function.__signature__ = signature.replace(parameters=parameters, return_annotation=returns)  # type: ignore[attr-defined]
    function.__annotations__ = hints
    return function


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, as far as they can be resolved."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # a name that exists only for type checkers
        return dict(getattr(function, "__annotations__", {}))


def check_tool(function: Any) -> None:
    """Refuse what cannot be a tool.

    Raises:
        TypeError: it is no plain function, or a parameter cannot travel to another process; says what to do.
    """
    if not inspect.isfunction(function):
        raise TypeError(f"a tool is a function, not {function!r}: write `def` or `async def`")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__} is a generator, and a tool has one result: return a list")
    for name, hint in hints_of(function).items():
        kind = None if name == "return" else _context(hint)
        if kind:
            raise TypeError(
                f"parameter {name!r} of {function.__qualname__} is a {kind}, which stays in the agent's process: have "
                "the tool take the plain values that it needs, and pass them from a function of your own that has it"
            )


def _context(hint: Any) -> str | None:
    """The name of a framework's context that an annotation means."""
    if isinstance(hint, str):
        word = hint.partition("[")[0].strip().strip("'\"").rpartition(".")[2]
        return word if word in _CONTEXTS - {"Context"} else None
    kinds = [hint, typing.get_origin(hint), *getattr(hint, "__metadata__", ()), *typing.get_args(hint)]
    for kind in kinds:
        cls = kind if isinstance(kind, type) else type(kind)
        if cls.__name__ in _CONTEXTS and cls.__module__.partition(".")[0] in _FRAMEWORKS:
            return f"{cls.__name__} of {cls.__module__.partition('.')[0]}"
    return None
