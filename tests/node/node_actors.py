"""Actors that tests start inside nodes; a node imports them by this module's name."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import sys
from typing import Any, NoReturn

from thespian.actors import Actor, ActorExitRequest

from actorpool.supervisors.monitor import demonitor, monitor
from actorpool.thespian_adapter.shell import Shell


class Plain(Actor):  # type: ignore[misc]
    """A user's actor that knows nothing of actorpool. It is asked by (word, value) pairs and answers the value."""

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        if isinstance(message, tuple) and not isinstance(message, ActorExitRequest):
            getattr(self, message[0])(message[1], sender)

    def echo(self, value: Any, sender: Any) -> None:
        self.send(sender, value)

    def pid(self, _: Any, sender: Any) -> None:
        self.send(sender, os.getpid())

    def descriptors(self, _: Any, sender: Any) -> None:
        """What this process holds open."""
        held = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the listing's own
                held.append(os.readlink(f"/proc/self/fd/{name}"))
        self.send(sender, held)

    def child(self, _: Any, sender: Any) -> None:
        """Start a child; the answer is (its address, its pid)."""
        self.asker = sender
        self.send(self.createActor(Plain), ("tell_pid", None))

    def tell_pid(self, _: Any, sender: Any) -> None:
        self.send(sender, ("child_is", (self.myAddress, os.getpid())))

    def child_is(self, child: Any, _: Any) -> None:
        self.send(self.asker, child)

    def orphan(self, _: Any, sender: Any) -> None:
        """Leave a process without a parent; its pid."""
        program = "import subprocess, sys; print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid)"
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
        self.send(sender, int(done.stdout))

    def surroundings(self, _: Any, sender: Any) -> None:
        self.send(sender, (sys.path, os.getcwd(), dict(os.environ)))

    def log(self, line: tuple[str, int, str], sender: Any) -> None:
        """Write a line to (logger, level, text)."""
        name, level, text = line
        logging.getLogger(name).log(level, text)
        self.send(sender, "logged")

    def volley(self, order: tuple[Any, int], sender: Any) -> None:
        """Send so many messages to another Volley at once; `caught` tells how many of the other's came."""
        self.got = getattr(self, "got", 0)
        other, count = order
        for _ in range(count):
            self.send(other, ("catch", None))
        self.send(sender, "thrown")

    def catch(self, _: Any, __: Any) -> None:
        self.got = getattr(self, "got", 0) + 1

    def caught(self, _: Any, sender: Any) -> None:
        self.send(sender, getattr(self, "got", 0))


class Monitoring(Actor):  # type: ignore[misc]
    """Monitors what it is told to, and keeps every message that is none of its words."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        word, value = message if isinstance(message, tuple) else (None, None)
        if word == "monitor":
            self.send(sender, monitor(self, value))
        elif word == "poll":
            self.send(sender, monitor(self, value, polling=True))
        elif word == "demonitor":
            self.send(sender, demonitor(self, value))
        elif word == "heard":
            self.send(sender, self.heard)
        elif word == "raise":
            raise RuntimeError("as ordered")
        elif word == "pid":
            self.send(sender, os.getpid())
        else:
            self.heard.append(message)


class Crowded(Shell):
    """An actor that the system refuses another process; answers how it is told of its child's end."""

    asker: Any = None

    def on_message(self, message: Any, sender: Any) -> None:
        self.asker = sender
        os.fork = _refuse  # in this process only
        address, pid = self.spawn(Plain)
        self.send(address, "never read")
        assert pid is None

    def on_child_exit(self, address: Any) -> None:
        self.send(self.asker, (self.exit_status, self.ending(self.exit_status)))


def _refuse() -> NoReturn:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
