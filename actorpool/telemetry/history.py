"""The last events of a node, in memory that outlives the manager which writes them.

The supervisor above the manager makes the memory before it forks the manager, and again for each successor: no file, no
message, and what a killed manager wrote is there. Two words say where the oldest event begins and where the latest
ends, in bytes ever written; they are set when what they speak of is whole, so that a `kill -9` at any moment leaves a
history that can be read.
"""

from __future__ import annotations

import mmap
import os
import pickle
import reprlib
from collections import deque
from collections.abc import Hashable, Mapping
from struct import Struct
from typing import Any

from actorpool import _scrubbing
from actorpool.messages import Event
from actorpool.telemetry.events import NOT_KEPT, matcher

SIZE = 1 << 20
"""Bytes of the memory; only what is used of it takes any."""
KEPT = 1000
"""Events that are kept at most."""
LONGEST = 4000
"""Characters of one text in an event."""

_WORDS = 16
_RECORD = Struct("=IQ")  # bytes that follow, number of the event


class History:
    """The events, numbered from 1.

    Args:
        memory: as of `inherited`, with what a predecessor wrote; None: a new one.
    """

    def __init__(self, memory: mmap.mmap | None = None) -> None:
        self._memory = memory if memory is not None else mmap.mmap(-1, SIZE)
        self._words = memoryview(self._memory)[:_WORDS].cast("Q")
        self._room = SIZE - _WORDS
        self._starts: deque[tuple[int, int]] = deque()  # number and place of each
        place, self._last = self._words[0], 0
        while place < self._words[1]:
            length, self._last = _RECORD.unpack(self._read(place, _RECORD.size))
            self._starts.append((self._last, place))
            place += _RECORD.size + length

    def add(self, event: Event) -> None:
        """Keep an event, unless it is of a kind that is not kept."""
        if event.name in NOT_KEPT:
            return
        told = (event.name, event.pool, event.time, _plain(event.measurements), _plain(event.metadata))
        data = pickle.dumps(told, 5)
        record = _RECORD.pack(len(data), self._last + 1) + data
        end = self._words[1] + len(record)
        while self._starts and (len(self._starts) >= KEPT or end - self._words[0] > self._room):
            self._starts.popleft()
            self._words[0] = self._starts[0][1] if self._starts else self._words[1]
        self._write(self._words[1], record)
        self._last += 1
        self._starts.append((self._last, self._words[1]))
        self._words[1] = end

    def find(self, pattern: str, after: int | None, limit: int) -> list[Event]:
        """The latest `limit` events whose names match and whose numbers are above `after`, in order."""
        matches = matcher(pattern)
        found: list[Event] = []
        for number, place in reversed(self._starts):
            if len(found) >= limit or (after is not None and number <= after):
                break
            event = self._event(number, place)
            if matches(event.name):
                found.append(event)
        return found[::-1]

    def _event(self, number: int, place: int) -> Event:
        length, _ = _RECORD.unpack(self._read(place, _RECORD.size))
        name, pool, time, measurements, metadata = pickle.loads(self._read(place + _RECORD.size, length))
        return Event(name, pool, time, measurements, metadata, number)

    def _read(self, place: int, length: int) -> bytes:
        start = place % self._room
        first = self._memory[_WORDS + start : _WORDS + min(start + length, self._room)]
        return first + self._memory[_WORDS : _WORDS + length - len(first)]

    def _write(self, place: int, data: bytes) -> None:
        start = place % self._room
        first = data[: self._room - start]
        self._memory[_WORDS + start : _WORDS + start + len(first)] = first
        self._memory[_WORDS : _WORDS + len(data) - len(first)] = data[len(first) :]


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """As they can be kept: numbers and texts without secrets, the rest as text."""
    return {str(name): _plain_value(value) for name, value in facts.items()}


def _plain_value(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float):
        return value
    text = _scrubbing.scrub(value if type(value) is str else reprlib.repr(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


_lent: dict[Hashable, mmap.mmap] = {}
_next: tuple[int, mmap.mmap] | None = None
"""The lenders, and the memory of the child that is forked next."""


def lend(key: Hashable) -> None:
    """Before a manager is forked: lend it the memory that its predecessors of that key had."""
    global _next
    memory = _lent.get(key)
    if memory is None:
        memory = _lent[key] = mmap.mmap(-1, SIZE)
    _next = os.getpid(), memory


def inherited() -> mmap.mmap | None:
    """In a manager's process: the memory that its supervisor has lent it; None where there is none."""
    return _next[1] if _next is not None and _next[0] == os.getppid() else None
