"""`PythonWorker`: a Python interpreter in a process of its own. It is no sandbox: see docs/agents.md."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import linecache
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from actorpool import process
from actorpool.errors import PermanentError
from actorpool.limits import Limits
from actorpool.workers.base import Worker, method
from actorpool.workers.worker_session import Interrupted

MODULE = "__conversation__"
"""The module whose names the code's are."""


@dataclass(frozen=True)
class Output:
    """What a piece of code came to.

    Attributes:
        text: what it printed, to both streams.
        value: the repr of its last expression; None: it does not end with one, or that is None.
        error: the text of its exception; None: there was none.
        seconds: how long it ran.
    """

    text: str
    value: str | None
    error: str | None
    seconds: float

    def __str__(self) -> str:
        return "\n".join(part.rstrip("\n") for part in (self.text, self.value, self.error) if part)


class _TimeUp(BaseException):
    """Raised in code that runs too long; no `except Exception` keeps it."""


class _Text(io.TextIOBase):
    """Keeps the first `most` characters of what is written, and counts the others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[str] = []
        self._size = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Keep it, as far as there is room."""
        room = self._most - self._size
        if room > 0:
            self._parts.append(text[:room])
        self._size += len(text)
        return len(text)

    def text(self) -> str:
        """What was kept, and how much was not."""
        return cut("".join(self._parts), self._most, self._size)


def cut(text: str, most: int, size: int | None = None) -> str:
    """At most so many characters of a text, with a word about the rest."""
    size = len(text) if size is None else size
    return text if size <= most else f"{text[:most]}\n... ({size - most} more characters)"


class PythonWorker(Worker):
    """Runs Python code. It is no sandbox: code does whatever its process may do.

    Names stay between the calls of a lease, and of a session with a key; a reset clears them. `run(fn)` gets the
    dictionary of the names.

    Args:
        memory: limit of the process, as `Limits.memory`; beyond it code gets `MemoryError`, and its names stay.
        timeout: seconds after which a piece of code is stopped, and its names stay; None is no limit. Code that cannot
            be stopped (in C, or because it catches everything) is ended with its process by the pool's `call_timeout`.
        preload: modules that are imported before any code runs.
        max_output: characters of a text, a value or an error that are kept.
        workdir: the directory in which code runs, made if it is not there; None: that of the program.
        confine: called once in the process before any code runs, to take rights away from it; if it raises, none runs.
    """

    def __init__(
        self,
        memory: int | str | None = None,
        timeout: float | None = None,
        preload: Sequence[str] = (),
        max_output: int = 20_000,
        workdir: str | os.PathLike[str] | None = None,
        confine: Callable[[], object] | None = None,
    ) -> None:
        self._limits = Limits(memory=memory)
        self._timeout = timeout
        self._preload = tuple(preload)
        self._most = max_output
        self._workdir = None if workdir is None else os.path.abspath(workdir)
        self._confine = confine
        self._cells = 0
        self._prepared = False

    def open(self) -> None:
        """Prepare the process, the first time.

        Raises:
            PermanentError: `confine` raised.
            ImportError: a module of `preload` cannot be loaded.
        """
        if not self._prepared:
            for name in self._preload:
                importlib.import_module(name)
            if self._workdir is not None:
                os.makedirs(self._workdir, exist_ok=True)
                os.chdir(self._workdir)
            self._limits.apply()
            if self._confine is not None:
                try:
                    self._confine()
                except Exception as error:
                    raise PermanentError(f"confine() raised {error!r}, so no code runs", cause=error) from error
            self._prepared = True
        self.reset()

    def reset(self) -> None:
        """Forget all names."""
        module = types.ModuleType(MODULE)
        sys.modules[MODULE] = module  # where dataclasses and pickle look for a class of the code
        self.names: dict[str, Any] = module.__dict__
        if self._workdir is not None:
            os.chdir(self._workdir)

    @property
    def connection(self) -> Any:
        """The names."""
        return self.names

    @method
    def run_python(self, code: str) -> Output:
        """Run Python code; names stay for the next call.

        Args:
            code: one or more statements; the value of the last expression is shown.
        """
        self._cells += 1
        file = f"<cell {self._cells}>"
        linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
        out, value, error = _Text(self._most), None, None
        began = time.perf_counter()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), self._limited():
                value = self._run(code, file)
        except Interrupted:  # the call is over, and with it what it would have answered
            raise
        except _TimeUp:
            error = f"TimeoutError: stopped after {self._timeout:g} s; the names are as it left them"
        except BaseException as raised:
            if process.is_copy:  # the code has forked, and this is the child
                process.end_copy(raised)
            error = _traceback(raised)
            if len(error) > self._most:  # the end of it says what happened
                error = f"... ({len(error) - self._most} characters before)\n{error[-self._most :]}"
        finally:
            linecache.cache.pop(f"<cell {self._cells - 100}>", None)
        return Output(out.text(), value, error, time.perf_counter() - began)

    def _run(self, code: str, file: str) -> str | None:
        tree = ast.parse(code, file)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, file, "exec"), self.names)
        if last is None:
            return None
        assert isinstance(last, ast.Expr)
        value = eval(compile(ast.Expression(last.value), file, "eval"), self.names)
        return None if value is None else cut(repr(value), self._most)

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        if self._timeout is None or threading.current_thread() is not threading.main_thread():
            yield  # a signal reaches the main thread only
            return
        running = True

        def time_is_up(_number: int, _frame: Any) -> None:
            if running:
                raise _TimeUp

        handler = signal.signal(signal.SIGALRM, time_is_up)
        left, _ = signal.setitimer(signal.ITIMER_REAL, self._timeout)
        try:
            yield
        finally:
            running = False
            signal.setitimer(signal.ITIMER_REAL, left)
            signal.signal(signal.SIGALRM, handler)


def _traceback(error: BaseException) -> str:
    """The traceback of the code alone."""
    frames = error.__traceback__
    while frames is not None and not frames.tb_frame.f_code.co_filename.startswith("<cell"):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()
