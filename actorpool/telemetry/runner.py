"""The process of one telemetry function: `python -m actorpool.telemetry.runner`, events on its standard input.

It ends when the actor closes that, and with SIGKILL when the actor dies.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from actorpool import process
from actorpool.messages import Event
from actorpool.serialization.exceptions import message_of, name_of
from actorpool.telemetry.complaints import Complaints
from actorpool.telemetry.function import LENGTH, resolve


class Runner:
    """Calls the function with every event; complains of its failures now and then.

    Args:
        function: called with each event.
        complain: called with the text.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        function: Callable[[Event], object],
        complain: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._function = function
        self._complain = complain
        self._complaints = Complaints(clock)

    def __call__(self, event: Event) -> None:
        try:
            self._function(event)
        except Exception as error:
            if self._complaints.due(error):
                self._complain(f"{name_of(error)}: {message_of(error)}")


def _read(stream: BinaryIO) -> Any:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    return pickle.loads(stream.read(LENGTH.unpack(head)[0]))


def _runner(target: str, complain: Callable[[str], object]) -> Callable[[Event], object]:
    try:
        return Runner(resolve(target), complain)
    except Exception as error:  # a module of the user's may fail to import in any way
        complain(f"{type(error).__name__}: {error}")
        return lambda event: None


def main() -> None:
    """Read events until the actor ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the owner
    with socket.socket(fileno=sys.stdin.fileno()) as connection, connection.makefile("rb") as stream:
        try:
            target, parent = _read(stream)
            process.link_to_parent(parent)
            run = _runner(target, lambda text: connection.sendall(text.encode()))
            while True:
                run(_read(stream))
        except (EOFError, pickle.UnpicklingError, OSError):
            sys.stdout.flush()
            os._exit(0)  # whatever threads the function's module has started


if __name__ == "__main__":
    main()
