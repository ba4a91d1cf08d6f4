"""What tests have workers of other hosts do."""

from __future__ import annotations

import os
import time
from typing import Any

from actorpool.errors import PoolDown


def pid(connection: Any) -> int:
    return os.getpid()


def add(connection: Any, a: Any, b: Any = 0) -> Any:
    return a + b


def sleep(connection: Any, seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def note(connection: Any, path: str, text: str, seconds: float = 0.0) -> str:
    """Leave a line that says that it ran."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    time.sleep(seconds)
    return text


def fail(connection: Any, text: str) -> None:
    raise KeyError(text)


def fail_as_a_pool_would(connection: Any, path: str) -> None:
    note(connection, path, "ran")
    raise PoolDown("of another pool", pool="db")


def unsendable(connection: Any) -> Any:
    return (number for number in range(3))


class Odd(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a, self.b = a, b


def odd(connection: Any) -> None:
    raise Odd(1, 2)


def trace(connection: Any) -> str:
    """The trace that a span would belong to here."""
    from opentelemetry import trace

    return f"{trace.get_current_span().get_span_context().trace_id:x}"


def remember(connection: Any, value: Any) -> None:
    connection.remembered = value


def recall(connection: Any) -> Any:
    return getattr(connection, "remembered", None)
