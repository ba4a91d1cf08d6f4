"""Actors that use pools by message."""

from __future__ import annotations

import os
import signal
from typing import Any

from thespian.actors import Actor

from actorpool import Call, Checkout, Err, Ok


class LateCaller(Actor):  # type: ignore[misc]
    """Leases a worker, kills it, and calls it once it is told that it is gone; tells what it is answered."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        if isinstance(message, tuple):
            self.client, manager, pool = sender, *message
            self.send(manager, Checkout(pool))
        elif message == "call":
            self.client = sender
            self.send(self.grant.worker, Call(self.grant, "echo", (1,)))
        elif isinstance(message, Ok) and not hasattr(self, "grant"):
            self.grant = message.value
            os.kill(self.grant.worker_pid, signal.SIGKILL)
            self.send(self.client, self.grant.worker_pid)
        elif isinstance(message, (Ok, Err)):
            self.send(self.client, message)
