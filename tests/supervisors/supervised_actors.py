"""The actors that the supervisor tests supervise. Each notes in a file, line by line, what happens to it and when."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from thespian.actors import Actor, ActorExitRequest, ActorTypeDispatcher

from actorpool import process
from actorpool.supervisors import IGNORE, Supervised, Supervisor, SupervisorSpec, start_supervisor
from actorpool.supervisors.supervised import LATER
from actorpool.thespian_adapter.shell import Shell


class Diary:
    """A file that several processes append to: `moment pid name what`."""

    def __init__(self, path: Any) -> None:
        self.path = Path(path)

    def note(self, name: str, what: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{time.monotonic()} {os.getpid()} {name} {what}\n")

    def entries(self, *kinds: str) -> list[tuple[float, int, str, str]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        split = [line.split(" ", 3) for line in lines]
        return [(float(t), int(p), name, what) for t, p, name, what in split if not kinds or what.split()[0] in kinds]

    def story(self, *kinds: str) -> list[tuple[str, str]]:
        return [(name, what) for _, _, name, what in self.entries(*kinds)]


class Child(Supervised, Actor):
    """Does what it is told by message; its `init` does what `how` says, once for each line of the file `plan`."""

    def init(self, diary: str, how: str = "", plan: str = "", remembered: Any = None) -> Any:
        self.diary = Diary(diary)
        self.diary.note(self.child_id or "child", f"init {remembered or ''}".strip())
        if plan and Path(plan).exists():
            how, _, rest = Path(plan).read_text().partition("\n")
            Path(plan).write_text(rest)
        if how == "raise":
            raise ValueError("no disk")
        if how == "die":
            os._exit(3)
        if how == "sleep":
            time.sleep(60)
        if how == "stop":
            self.stop("not today")
        if how == "later":
            self.wakeupAfter(0.05)
            return LATER
        return IGNORE if how == "ignore" else None

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        if isinstance(message, ActorExitRequest):
            self.diary.note(self.child_id or "child", "exit")
        elif isinstance(message, tuple):
            getattr(self, f"do_{message[0]}")(*message[1:])
        elif message == "pid":
            self.send(sender, os.getpid())
        elif type(message).__name__ == "WakeupMessage":
            self.started()

    def do_stop(self, reason: Any) -> None:
        self.stop(reason)

    def do_raise(self) -> None:
        self.diary.note(self.child_id, "raises")
        raise RuntimeError("boo")

    def do_sleep(self, seconds: float) -> None:
        self.diary.note(self.child_id, "sleeps")
        time.sleep(seconds)

    def do_exit(self) -> None:
        """End without a reason."""
        self.send(self.myAddress, ActorExitRequest())

    def do_remember(self, value: Any) -> None:
        self.remember(remembered=value)


class Dispatching(Supervised, ActorTypeDispatcher):
    """The same by Thespian's dispatcher."""

    def init(self, greeting: str) -> None:
        self.greeting = greeting

    def receiveMsg_str(self, message: str, sender: Any) -> None:  # noqa: N802
        self.send(sender, f"{self.greeting} {message}")

    def receiveMsg_int(self, message: int, sender: Any) -> None:  # noqa: N802
        raise RuntimeError("numbers are too much")


class Plain(Actor):
    """An actor that knows nothing of supervisors: its first message are its args."""

    args: Any = None
    calls = 0

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        if isinstance(message, dict):
            self.args = message
            if message.get("fail"):
                raise ValueError("bad args")
        elif message == "args":
            self.send(sender, self.args)
        elif message == "child":
            self.send(sender, ("made", self.createActor(Plain)))
        elif message == "pid":
            self.send(sender, os.getpid())
        elif message == "raise":
            self.calls += 1
            raise RuntimeError("boo")
        elif message == "calls":
            self.send(sender, self.calls)


class Broken(Actor):
    """An actor whose `__init__` fails."""

    def __init__(self) -> None:
        raise KeyError("no such table")


class Herod(Shell):
    """Kills its children in their first moments, and counts the deaths that it hears of."""

    deaths = 0

    def on_message(self, message: Any, sender: Any) -> None:
        if message == "deaths":
            self.send(sender, self.deaths)
        else:
            for pid in [self.spawn(Plain)[1] for _ in range(message)]:
                process.kill(pid)

    def on_child_exit(self, address: Any) -> None:
        self.deaths += 1


class Starter(Actor):
    """Starts a supervisor from inside an actor, and tells what it hears of it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        if isinstance(message, SupervisorSpec):
            self.send(sender, start_supervisor(self, message))
        elif message == "heard":
            self.send(sender, self.heard)
        elif message == "pid":
            self.send(sender, os.getpid())
        else:
            self.heard.append(message)


class Telling(Supervisor):
    """A supervisor that notes its events."""

    def init(self, spec: SupervisorSpec, diary: str) -> Any:  # type: ignore[override]
        self.diary = Diary(diary)
        return super().init(spec)

    def emit(self, name: str, measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        self.diary.note(name, f"{metadata['child']} {measurements['restarts']} {metadata['reason']}")
