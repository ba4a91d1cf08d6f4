"""Workers of the nodes in these tests."""

from __future__ import annotations

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


class Away(EchoWorker):
    """Its resource is away for now."""

    def open(self) -> None:
        raise ConnectionError("the server is away")
