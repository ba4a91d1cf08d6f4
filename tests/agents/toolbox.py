"""Tools as a user writes them, in a module that workers can import."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Literal

from actorpool.agents import Tools

tools = Tools(size=2)


@tools
def multiply(a: int, b: int = 2, unit: Literal["kg", "m"] = "kg") -> str:
    """Multiply two numbers.

    Args:
        a: The first.
        b: The second.
        unit: What it is.
    """
    return f"{a * b} {unit}"


@tools
async def later(seconds: float) -> int:
    """Sleep on a loop."""
    await asyncio.sleep(seconds)
    return os.getpid()


@tools(timeout=0.2)
def slow(path: str) -> None:
    """Write to a file for as long as it runs."""
    write_on(path)


@tools
def endless(path: str) -> None:
    """The same without a timeout."""
    write_on(path)


@tools
def crash() -> str:
    """Die."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@tools
def refuse(why: str) -> None:
    """Raise."""
    raise ValueError(why)


@tools
def where() -> int:
    """The process."""
    return os.getpid()


@tools
def nested() -> tuple[int, int]:
    """The process, and that of a tool that is called here."""
    return os.getpid(), where.sync()  # type: ignore[attr-defined]


@tools
async def nested_async() -> tuple[int, int]:
    """The same, awaited."""
    return os.getpid(), await where()  # type: ignore[misc]


@tools
def traced() -> str:
    """The trace that a span of this tool would belong to."""
    from opentelemetry import trace

    return f"{trace.get_current_span().get_span_context().trace_id:x}"


def write_on(path: str) -> None:
    """Append a line every 10 ms."""
    while True:
        with Path(path).open("a") as file:
            file.write("x")
        time.sleep(0.01)
