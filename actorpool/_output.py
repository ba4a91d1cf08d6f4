"""Where what workers write to their standard output and error goes: `actorpool.start(output=...)`.

With "log" a pool reads it from a pipe for each worker, so that every line, also one of a C library or of a worker's own
children, is told with the worker's id, and the last ones of a killed worker are not lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator

LONGEST = 8192
"""Bytes of a line; what is longer is told in parts."""

PART = 4096
"""Bytes that a pipe takes whole once it takes any."""

PATIENCE = 0.1
"""Seconds to wait for room for a part of a line, after there was room for its beginning."""

mode = "inherit"
"""That of this node: set before its first actor is forked."""
_writers: dict[int, int] = {}  # by descriptor, of a child that is forked now


class Output:
    """What one worker writes, in the process of its pool.

    Args:
        descriptor: which of its descriptors leads here, 1 or 2.
        tell: called with each line.
    """

    def __init__(self, descriptor: int, tell: Callable[[str], object]) -> None:
        self.descriptor = descriptor
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.open = True
        self._tell = tell
        self._rest = b""

    def read(self, limit: int = 1 << 16) -> bool:
        """Tell the lines of the next `limit` bytes; False once no process can write any more."""
        try:
            data = os.read(self.reader, limit)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._tell_parts(line)
        if len(self._rest) > LONGEST:
            self._tell_parts(self._rest)
            self._rest = b""
        return bool(data)

    def close(self) -> None:
        """Tell what is left."""
        self.open = False
        for _ in range(100):  # a descendant that could not be ended may write for ever
            before = self._rest
            if not self.read() or self._rest is before:
                break
        if self._rest:
            self._tell_parts(self._rest)
        os.close(self.reader)

    def _tell_parts(self, line: bytes) -> None:
        for start in range(0, len(line), LONGEST):
            self._tell(line[start : start + LONGEST].decode(errors="backslashreplace"))


@contextlib.contextmanager
def of_forks(outputs: Iterable[Output]) -> Iterator[None]:
    """A child that is forked meanwhile writes there."""
    global _writers
    _writers = {output.descriptor: output.writer for output in outputs}
    try:
        yield
    finally:
        for writer in _writers.values():
            os.close(writer)
        _writers = {}


def writable(descriptor: int, within: float = 0.0) -> bool:
    """Whether `PART` bytes can be written there now, or within some seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(within * 1000))


def write(descriptor: int, line: str) -> None:
    """Write a line, in parts that a pipe takes whole; what it does not take is lost rather than waited for."""
    data = line.encode(errors="backslashreplace") + b"\n"
    with contextlib.suppress(OSError):  # its other end is closed
        for start in range(0, len(data), PART):
            if writable(descriptor, PATIENCE):
                os.write(descriptor, data[start : start + PART])


def _redirect() -> None:
    """In a child that was forked for outputs: write there. Log lines for the owner's terminal still reach it."""
    global _writers
    writers, _writers = _writers, {}
    if not writers:
        return
    terminal = open(os.dup(2), "w", buffering=1)  # noqa: SIM115  # kept open by the handler
    for handler in logging.root.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setStream(terminal)
    for descriptor, writer in writers.items():
        os.dup2(writer, descriptor)
        os.close(writer)
    write_lines()


def write_lines() -> None:
    """Have each line that is printed leave this process at once."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # None, or something of the user's
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


os.register_at_fork(after_in_child=_redirect)
