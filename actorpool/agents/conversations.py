"""Which conversation a call belongs to: kept in a context variable, which every framework carries to its tools."""

from __future__ import annotations

from collections.abc import Hashable
from contextvars import ContextVar
from types import TracebackType
from typing import Any

_key: ContextVar[tuple[Hashable, ...] | None] = ContextVar("actorpool_conversation", default=None)


class conversation:  # noqa: N801  (used as a statement's word)
    """`with conversation("chat", 17):` calls of `Sessions` in the block belong to that conversation.

    The key is the tuple of the parts. Tasks and threads that copy the context (`asyncio.to_thread`) are in it as well.

    Raises:
        TypeError: there are no parts, or one cannot be hashed.
    """

    def __init__(self, *parts: Hashable) -> None:
        if not parts:
            raise TypeError("a conversation needs a name: conversation('chat', 17)")
        hash(parts)
        self.key = parts
        self._outer: list[Any] = []

    def __enter__(self) -> tuple[Hashable, ...]:
        self._outer.append(_key.get())
        _key.set(self.key)
        return self.key

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _key.set(self._outer.pop())  # no token: a generator may be closed in another context than it began in


def current() -> tuple[Hashable, ...] | None:
    """The key of the conversation that this context is in."""
    return _key.get()
