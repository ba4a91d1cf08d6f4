"""Actors for the tests of supervisors: what a user would write, knowing only the documentation."""

from __future__ import annotations

import os
import time
from typing import Any

from thespian.actors import Actor, ActorTypeDispatcher

from actorpool.supervisors import IGNORE, Supervised, monitor


def note(path: str | None, text: str) -> None:
    if path is not None:
        with open(path, "a") as out:
            out.write(f"{text} {os.getpid()}\n")


class Child(Supervised, Actor):
    """Notes its start and its end; does what it is told."""

    def init(
        self, name: str = "child", journal: str | None = None, fail: str | None = None, ignore: bool = False
    ) -> Any:
        self.name, self.journal = name, journal
        if ignore:
            return IGNORE
        if fail is not None and os.path.exists(fail):
            raise RuntimeError(f"{name} cannot start: {fail} is there")
        note(journal, f"start {name}")
        return None

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if message == "pid":
            self.send(sender, os.getpid())
        elif message == "name":
            self.send(sender, self.name)
        elif isinstance(message, tuple) and message[0] == "stop":
            self.stop(message[1])
        elif message == "raise":
            raise RuntimeError("out of receiveMessage")
        elif type(message).__name__ == "ActorExitRequest" and hasattr(self, "name"):
            note(self.journal, f"end {self.name}")


class Dispatching(Supervised, ActorTypeDispatcher):
    def init(self, word: str) -> None:
        self.word = word

    def receiveMsg_str(self, message: str, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if message == "stop":
            self.stop("normal")
        else:
            self.send(sender, (self.word, os.getpid()))


class Plain(Actor):
    """Knows nothing of supervisors: gets its arguments as its first message."""

    first: Any = None

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if isinstance(message, dict):
            self.first = message
        elif message == "first":
            self.send(sender, (self.first, os.getpid()))


class SlowToEnd(Supervised, Actor):
    def init(self, **_: Any) -> None:
        pass

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if message == "pid":
            self.send(sender, os.getpid())
        elif message == "busy":
            time.sleep(60)


class Watcher(Actor):
    """Monitors processes and passes on what it is told."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if isinstance(message, tuple) and message[0] == "monitor":
            self.asker = sender
            self.send(sender, ("ref", monitor(self, message[1])))
        elif type(message).__name__ == "Down":
            self.send(self.asker, message)
