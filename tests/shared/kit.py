"""Workers and functions that the tests of shared pools send into them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from actorpool.workers import PermanentError, Reply, RetryAfter, Worker, method


class Book(Worker):
    """Writes a line into `log` for each call that it begins, and can end in every way there is."""

    def __init__(self, log: str | None = None, pace: float = 0.0, resource: Any = "book") -> None:
        self.log = log
        self.pace = pace
        self.resource = resource

    def open(self) -> None:
        self.lines = None if self.log is None else os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def close(self) -> None:
        if self.lines is not None:
            os.close(self.lines)

    def _note(self, token: Any) -> None:
        if self.lines is not None:
            os.write(self.lines, f"{token}\n".encode())

    @method
    def write(self, token: Any) -> Any:
        self._note(token)
        if self.pace:
            time.sleep(self.pace)
        return token

    @method
    def pid(self) -> int:
        return os.getpid()

    @method
    def wait(self, seconds: float, token: Any = None) -> Any:
        self._note(token)
        time.sleep(seconds)
        return token

    @method
    def wait_for(self, path: str, token: Any = None) -> Any:
        """Return once the file is there: a test lets a busy connection go on when it wants to."""
        self._note(token)
        while not os.path.exists(path):
            time.sleep(0.001)
        self._note(f"{token} over")
        return token

    @method
    def pause(self, seconds: float) -> Reply:
        return Reply("paused", cooldown=seconds)

    @method
    def shut(self, value: Any = None) -> Reply:
        return Reply(value, close=True)

    @method
    def lose(self) -> None:
        raise ConnectionResetError("the line broke")

    @method
    def fail(self, error: BaseException) -> None:
        raise error

    @method
    def die(self, token: Any = None) -> None:
        self._note(token)
        os.kill(os.getpid(), signal.SIGKILL)

    @method
    def raw(self) -> Any:
        return (n for n in range(3))

    @method
    def homely(self) -> Any:
        return Unloadable()

    @method
    def stubborn(self, seconds: float) -> str:
        """Swallows every interrupt."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                time.sleep(0.01)
            except BaseException:
                continue
        return "did not stop"

    def private(self) -> str:
        return "not for callers"


class Other(Worker):
    """Another kind of connection: only one method of its own."""

    @method
    def read(self) -> str:
        return "read"


class Door(Worker):
    """Opens when the file `gate` is there; asks to be tried again later when `gate`.later is; never if `gate`.never."""

    def __init__(self, gate: str, resource: Any = "door") -> None:
        self.gate = Path(gate)
        self.resource = resource

    def open(self) -> None:
        with open(f"{self.gate}.attempts", "a") as out:
            out.write(f"{time.monotonic()}\n")
        if Path(f"{self.gate}.never").exists():
            raise PermanentError("the house is gone")
        if Path(f"{self.gate}.later").exists():
            raise RetryAfter(float(Path(f"{self.gate}.later").read_text()))
        if not self.gate.exists():
            raise ConnectionError("the door is shut")

    @method
    def pid(self) -> int:
        return os.getpid()

    @method
    def shut(self) -> Reply:
        return Reply(close=True)


class Stuck(Worker):
    """Opens for ever; notes in a file when that is broken into."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.resource = "stuck"

    def open(self) -> None:
        try:
            time.sleep(3600)
        except KeyboardInterrupt:
            self.file.write_text("interrupted")
            raise


class Desk(Worker):
    """Keeps half a conversation when it is broken into, and `reset` throws that away."""

    resource = "desk"

    def open(self) -> None:
        self.half: list[str] = []

    def reset(self) -> None:
        self.half.clear()

    @method
    def talk(self, seconds: float) -> None:
        self.half.append("begun")
        time.sleep(seconds)
        self.half.clear()

    @method
    def left(self) -> list[str]:
        return list(self.half)


class WithoutResource(Worker):
    """Names no resource."""


class BadResource(Worker):
    """Names one that cannot travel."""

    def __init__(self) -> None:
        self.resource = (n for n in range(3))


class BrokenInit(Worker):
    def __init__(self) -> None:
        raise ValueError("no such option")


class Unloadable:
    """Pickles, and cannot be rebuilt outside of this process."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __reduce__(self) -> Any:
        return (_only_in, (os.getpid(),))


def _only_in(pid: int) -> str:
    if os.getpid() != pid:
        raise LookupError(f"can only be rebuilt in {pid}")
    return "at home"


def in_the_south(info: Any) -> bool:
    return bool(info.extra["zone"] == "south")


def raises(info: Any) -> bool:
    raise KeyError("no such thing")


def tokens(log: Path) -> list[str]:
    """What was begun, in the order in which it was."""
    return log.read_text().splitlines() if log.exists() else []
