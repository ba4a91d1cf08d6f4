"""Keys of a terminal, one at a time and without waiting for Enter."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from types import TracebackType
from typing import Any

_NAMES = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\r": "enter", "\n": "enter",
          "\x1b": "escape", "\x7f": "backspace", "\x08": "backspace", "\x03": "q", "\x04": "q"}  # fmt: skip


class Keyboard:
    """The terminal of this process, without echo; it is as it was after the block, however that ends.

    Attributes:
        ended: a signal has told this process to end.
    """

    def __init__(self) -> None:
        self.ended = False
        self._terminal = sys.stdin.fileno()
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._reader, self._writer = os.pipe()

    def __enter__(self) -> Keyboard:
        self._before = termios.tcgetattr(self._terminal)
        tty.setcbreak(self._terminal)
        os.set_blocking(self._writer, False)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGWINCH):
            self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)
        os.close(self._reader)
        os.close(self._writer)

    def _on_signal(self, number: int, frame: Any) -> None:
        self.ended = self.ended or number != signal.SIGWINCH
        os.write(self._writer, b".")

    def read(self, timeout: float) -> str | None:
        """The next key: a letter, a name such as `up`, `resize` or `end` by a signal; None after `timeout` seconds."""
        ready, _, _ = select.select([self._terminal, self._reader], [], [], timeout)
        if self._reader in ready:
            os.read(self._reader, 64)
            return "end" if self.ended else "resize"
        if not ready:
            return None
        pressed = os.read(self._terminal, 16)
        if not pressed:  # the terminal was closed
            self.ended = True
            return "end"
        text = pressed.decode(errors="replace")
        return _NAMES.get(text, text[0])
