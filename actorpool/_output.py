"""Where what workers write to their standard output and error goes: `actorpool.start(output=...)`.

With "log" a pool reads it from a pipe for each worker, so that every line, also one of a C library or of a worker's own
children, is told with the worker's id, and the last ones of a killed worker are not lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator

CHOICES = ("inherit", "log", "stderr")
LONGEST = 8192
"""Bytes of a line; what is longer is told in parts."""

mode = "inherit"
"""That of this node: set before its first actor is forked."""
_writer: int | None = None  # of a child that is forked now


class Output:
    """What one worker writes, in the process of its pool.

    Args:
        tell: called with each line.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        self._tell = tell
        self._rest = b""

    @contextlib.contextmanager
    def of_forks(self) -> Iterator[None]:
        """A child that is forked meanwhile writes here."""
        global _writer
        _writer = self._writer
        try:
            yield
        finally:
            _writer = None
            os.close(self._writer)

    def read(self) -> bool:
        """Tell the lines that have arrived, a few at a time; False once no process can write any more."""
        try:
            data = os.read(self.reader, 1 << 16)
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


def _redirect() -> None:
    """In a child that was forked for an `Output`: write there. Log lines for the owner's terminal still reach it."""
    global _writer
    writer, _writer = _writer, None
    if writer is None:
        return
    terminal = open(os.dup(2), "w", buffering=1)  # noqa: SIM115  # kept open by the handler
    for handler in logging.root.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(terminal)
    for descriptor in (1, 2):
        os.dup2(writer, descriptor)
    os.close(writer)
    write_lines()


def write_lines() -> None:
    """Have each line that is printed leave this process at once."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # None, or something of the user's
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


os.register_at_fork(after_in_child=_redirect)
