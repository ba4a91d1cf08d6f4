"""What the acceptance tests send to workers: user code, as somebody who only read the documentation would write it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from actorpool.workers import PermanentError, Worker, method


class Toy(Worker):
    """Writes down which hook ran in which process, so that a test can read it; `journal` is a file."""

    def __init__(self, journal: str | None = None, secret: str = "") -> None:
        self.journal = journal
        self.secret = secret
        self.calls = 0

    def note(self, what: str) -> None:
        if self.journal is not None:
            with open(self.journal, "a") as out:
                out.write(f"{what} {os.getpid()}\n")

    def open(self) -> None:
        self.note("open")

    def check(self) -> None:
        self.note("check")

    def reset(self) -> None:
        self.note("reset")

    def close(self) -> None:
        self.note("close")

    @method
    def echo(self, value: Any = None) -> Any:
        self.calls += 1
        return value

    @method
    def pid(self) -> int:
        return os.getpid()

    @method
    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    @method
    def add(self, a: int, b: int = 0) -> int:
        return a + b

    @method
    def status(self) -> str:
        return "the worker's own"

    @method
    def boom(self, text: str) -> None:
        raise LookupError(text)

    def private(self) -> str:
        return "not for callers"


class Gate(Worker):
    """Opens when the file `gate` is there; never again when `gate`.never is; is sick when `gate`.sick is."""

    def __init__(self, gate: str) -> None:
        self.gate = Path(gate)

    def _is(self, what: str) -> bool:
        return Path(f"{self.gate}.{what}").exists()

    def open(self) -> None:
        with open(f"{self.gate}.attempts", "a") as out:
            out.write(f"{time.monotonic()}\n")
        if self._is("never"):
            raise PermanentError("the password is wrong")
        if not self.gate.exists():
            raise ConnectionError("nobody listens there")

    def check(self) -> None:
        if self._is("sick"):
            raise ConnectionError("the line is dead")

    @method
    def pid(self) -> int:
        return os.getpid()

    @method
    def echo(self, value: Any = None) -> Any:
        return value

    @method
    def drop(self) -> None:
        raise ConnectionError("the line broke")


class FailsInInit(Worker):
    def __init__(self, why: str = "no such option") -> None:
        raise ValueError(why)


class Gadget:
    """No Worker at all."""


class WithConnectionAttribute(Worker):
    def open(self) -> None:
        self.link = {"driver": "fake", "pid": os.getpid()}

    @property
    def connection(self) -> dict[str, Any]:
        return self.link


class LocalProblem(Exception):
    """Pickles only with help: two arguments, one message."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text

    def __reduce__(self) -> Any:
        return type(self), (self.code, self.text)


class Unpicklable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.handle = (n for n in range(3))  # generators do not pickle


class ArrivesBroken(Exception):
    """Pickles, and cannot be unpickled: `__init__` wants two arguments and `args` has one."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(left + right)


def pid_of(_connection: Any) -> int:
    return os.getpid()


def sleep_for(_connection: Any, seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def give_back(_connection: Any, *args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def clock(_connection: Any) -> float:
    return time.monotonic()


def type_name(connection: Any) -> str:
    return type(connection).__name__


def raise_it(_connection: Any, error: BaseException) -> None:
    raise error


def raise_problem(_connection: Any) -> None:
    raise LocalProblem(42, "the answer")


def raise_unpicklable(_connection: Any) -> None:
    raise Unpicklable("a generator inside")


def raise_arrives_broken(_connection: Any) -> None:
    raise ArrivesBroken("le", "ft")


def raise_exit(_connection: Any) -> None:
    raise SystemExit(3)


def raise_interrupt(_connection: Any) -> None:
    raise KeyboardInterrupt("pressed")


def give_unpicklable(_connection: Any) -> Any:
    return (n for n in range(3))


def die(_connection: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(_connection: Any, code: int = 7) -> None:
    os._exit(code)


def touch_then_sleep(_connection: Any, path: str, seconds: float) -> str:
    with open(path, "a") as out:
        out.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return "done"


def ignore_interrupts(_connection: Any, seconds: float, path: str | None = None) -> str:
    """Hostile: swallows whatever is raised in it."""
    if path is not None:
        Path(path).write_text(str(os.getpid()))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:
            continue
    return "did not stop"


def spin(_connection: Any, seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"


def count(connection: Any, table: str) -> int:
    return int(connection.execute(f"select count(*) from {table}").fetchone()[0])


def large(_connection: Any, size: int) -> bytes:
    return b"x" * size


def length(_connection: Any, blob: bytes) -> int:
    return len(blob)
