"""A worker whose arguments are numbers, or may be."""

from __future__ import annotations

from typing import Any

from actorpool.workers import EchoWorker


class Numbers(EchoWorker):
    def __init__(
        self, port: int | None, ratio: float, on: bool, code: str | int, parts: list[int] | None = None, **more: Any
    ) -> None:
        self.given = (port, ratio, on, code, parts, more)
