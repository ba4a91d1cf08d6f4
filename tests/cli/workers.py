"""Workers of the nodes in these tests."""

from __future__ import annotations

import os
import time

from actorpool.workers import EchoWorker, PermanentError


class SlowToOpen(EchoWorker):
    """Its resource takes a minute."""

    def open(self) -> None:
        time.sleep(60)


class Never(EchoWorker):
    """Its resource refuses it for good."""

    def open(self) -> None:
        raise PermanentError("the password is wrong")


class Telling(EchoWorker):
    """Its resource refuses it, and says what it was told by the environment."""

    def open(self) -> None:
        raise ConnectionError(f"refused: {os.environ['SECRET']}")


class Away(EchoWorker):
    """Its resource is away for now."""

    def open(self) -> None:
        raise ConnectionError("the server is away")
