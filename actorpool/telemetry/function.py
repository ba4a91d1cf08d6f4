"""Events to a function of the user's, named `"module:function"` and called with one `Event`.

The function is foreign code: it may block, crash or hold the interpreter. So it runs in a process of its own, one
for each actor that emits, which is started with the first event, fed through a socket that never blocks, and ends
with the actor. A thread would do the same until the actor forks its next worker in the wrong moment.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import re
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Any

from actorpool import _offspring
from actorpool._dataclass import dataclass
from actorpool.messages import Event
from actorpool.telemetry.complaints import QUIET

log = logging.getLogger("actorpool")

LENGTH = Struct("!I")
BACKLOG = 10_000  # events kept for a function that is slower than the pool; then they are dropped
GRACE = 1.0  # seconds for each of the two steps of an orderly end


@dataclass(frozen=True)
class FunctionSink:
    """A function given as `"module:function"`.

    Raises:
        ValueError: the text has not that form. (`start` also tries to import it.)
    """

    target: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.]+:[\w.]+", self.target):
            raise ValueError(f'must be a function as "module:function", not {self.target!r}')

    def open(self) -> ProcessOutlet:
        return ProcessOutlet(self.target)

    def open_here(self) -> DirectOutlet:
        """For actors that share one process with their user (simpleSystemBase): call the function right there."""
        return DirectOutlet(resolve(self.target))


def resolve(target: str) -> Callable[[Event], object]:
    """The function behind `"module:function"`.

    Raises:
        ImportError, AttributeError, TypeError: there is none. Importing a user's module may raise anything else, too.
    """
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{target} is not callable: {found!r}")
    return found  # type: ignore[no-any-return]


class DirectOutlet:
    """Calls the function in this process."""

    def __init__(self, function: Callable[[Event], object]) -> None:
        self._function = function

    def wants(self, name: str) -> bool:
        return True

    def emit(self, event: Event) -> None:
        self._function(event)

    def flush(self) -> None:
        """Nothing is gathered."""

    def close(self) -> None:
        """Nothing is held."""


class ProcessOutlet:
    """Feeds the function's process; started by the first event. Never blocks: beyond the backlog events are dropped.

    A process that has ended is started again, once in `QUIET` seconds at most; what happens meanwhile waits.

    Args:
        target: the function.
        clock: monotonic seconds.

    Attributes:
        dropped: events that were, and those of which only a part had been sent when the process ended.
    """

    def __init__(self, target: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.dropped = 0
        self._target = target
        self._clock = clock
        self._backlog: deque[bytes] = deque()
        self._begun = False  # a part of the first frame of the backlog was sent
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = float("-inf")
        self._dropping = False

    def wants(self, name: str) -> bool:
        return True

    def emit(self, event: Event) -> None:
        if len(self._backlog) < BACKLOG:
            self._dropping = False
            self._backlog.append(frame_of(event))
        else:
            self.dropped += 1
            if not self._dropping:
                self._dropping = True
                log.warning("telemetry function %s is %d events behind: dropping", self._target, BACKLOG)
        if self._socket is None and self._clock() >= self._starts:
            self._start()
        self.flush()

    def _start(self) -> None:
        self._starts = self._clock() + QUIET
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "actorpool.telemetry.runner"]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)}
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), env=environment)
            _offspring.kept.add(self._process.pid)
        self._socket.setblocking(False)
        self._backlog.appendleft(frame_of((self._target, os.getpid())))

    def flush(self) -> None:
        if self._socket is None:
            return
        try:
            while self._backlog:
                frame = self._backlog[0]
                sent = self._socket.send(frame)
                self._begun = sent < len(frame)
                if self._begun:
                    self._backlog[0] = frame[sent:]
                else:
                    self._backlog.popleft()
        except BlockingIOError:
            pass  # the rest goes with the next event
        except OSError:
            self._ended()
        self._hear()

    def _hear(self) -> None:
        try:
            complaint = self._socket.recv(65536) if self._socket is not None else None
        except BlockingIOError:
            return
        except OSError:
            complaint = b""
        if complaint == b"":
            self._ended()
        elif complaint:
            log.error("telemetry function %s failed: %s", self._target, complaint.decode(errors="replace"))

    def _ended(self) -> None:
        """The process is gone, and with it what it had taken; the rest is its successor's."""
        assert self._socket is not None
        assert self._process is not None
        self._socket.close()
        self._process.kill()  # it may have closed its end only
        self._process.wait()
        self._socket = self._process = None
        if self._begun:
            self._backlog.popleft()
            self._begun = False
            self.dropped += 1
        raise ConnectionResetError(f"the process of {self._target} has ended")

    def close(self) -> None:
        """Hand over the backlog and let the process finish it, for a second at most."""
        if self._socket is None or self._process is None:
            return
        with self._socket as connection:
            connection.settimeout(GRACE)
            try:
                connection.sendall(b"".join(self._backlog))
                connection.shutdown(socket.SHUT_WR)  # closing alone would not do: forked workers hold copies
            except OSError:
                pass  # it has ended, or it is too slow: what is left is lost
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _offspring.kept.discard(self._process.pid)
        self._socket = self._process = None
        self._backlog.clear()


def frame_of(value: object) -> bytes:
    """A value as it goes to the function's process: its length and its pickle."""
    data = pickle.dumps(value, 5)
    return LENGTH.pack(len(data)) + data
