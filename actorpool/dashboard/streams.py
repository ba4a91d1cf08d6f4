"""Server-sent events: everybody who watches gets the same bytes; who does not read loses some, and then the stream."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

MOST_STREAMS = 64
MOST_FRAMES = 256
"""What waits for a reader: a look's messages each. What comes then is dropped, and it is told how much."""
BEAT = 15.0
"""Seconds of silence after which a comment is sent, so that nothing between takes the stream for dead."""


def as_json(document: Any) -> str:
    """A document on one line; what JSON does not know is told as text."""
    return json.dumps(document, default=str, separators=(",", ":"))


def frame(document: Any, kind: str | None = None, number: int | None = None) -> bytes:
    """A message: of a kind, or an event of the history with its number."""
    head = f"event: {kind}\n" if kind else ""
    head += f"id: {number}\n" if number is not None else ""
    return f"{head}data: {as_json(document)}\n\n".encode()


class Stream:
    """One reader.

    Args:
        state: whether it wants the state of the page besides the events of the history.
    """

    def __init__(self, state: bool) -> None:
        self.state = state
        self.closed = False
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._filled = asyncio.Event()

    def put(self, data: bytes, count: int = 1) -> None:
        """Have so many messages sent; dropped if the reader is too far behind."""
        if len(self._waiting) >= MOST_FRAMES:
            self._dropped += count
            return
        if self._dropped:
            self._waiting.append(frame({"dropped": self._dropped}, "gap"))
            self._dropped = 0
        self._waiting.append(data)
        self._filled.set()

    def close(self) -> None:
        """Have it end once what waits was read, or at once if nothing is."""
        self.closed = True
        self._filled.set()

    async def frames(self) -> AsyncIterator[bytes]:
        """What is to be sent, as it comes."""
        yield b"retry: 2000\n\n"
        while not self.closed:
            try:
                await asyncio.wait_for(self._filled.wait(), BEAT)
            except (asyncio.TimeoutError, TimeoutError):
                yield b": still here\n\n"
                continue
            self._filled.clear()
            while self._waiting and not self.closed:
                yield self._waiting.popleft()


class Streams:
    """All readers. Runs in the server's loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._all: set[Stream] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._all)

    def open(self, state: bool) -> Stream | None:
        """A reader more; None if there are too many, or the server ends."""
        if self._closed or len(self._all) >= MOST_STREAMS:
            return None
        stream = Stream(state)
        self._all.add(stream)
        return stream

    def drop(self, stream: Stream) -> None:
        """It reads no more."""
        self._all.discard(stream)

    def send(self, frames: list[bytes], state: bool = False) -> None:
        """Send messages, which stay together, to everybody, or to those only who want the state."""
        data = b"".join(frames)
        for stream in self._all if frames else ():
            if stream.state or not state:
                stream.put(data, len(frames))

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        for stream in self._all:
            stream.close()
