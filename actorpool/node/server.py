"""The node's own process: it starts the actor system and ends with its owner, and everything ends with it.

It has one thread until the admin is forked, from which all actors descend. Whatever happens to it, the kernel ends the
admin with it, and each actor with its parent; in an orderly end it also ends what those processes left behind.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from thespian.actors import ActorSystemException
from thespian.system import multiprocCommon, systemCommon, utilis

from actorpool import __version__, _output, _scrubbing, process
from actorpool._dataclass import generate
from actorpool.errors import ActorPoolError, SystemDown
from actorpool.node import log_lines, runtime
from actorpool.node.log_repeats import Repeats
from actorpool.node.order import Failed, Order, Ready
from actorpool.node.runtime import private_file
from actorpool.node.tree import share, start_tree
from actorpool.node.watch import Watch, reap
from actorpool.supervisors.upward import NODE
from actorpool.thespian_adapter import base, transport

log = logging.getLogger("actorpool")

START_TRIES = 3
LEAST_FILES = 64
SWEEP = 0.25
"""Seconds to wait for killed processes to be gone."""
_UNTHROTTLED = 10**12
"""Messages a second: Thespian's own limit is for networks; see docs/decisions.md."""


def main(descriptor: int) -> None:
    """Run a node; its owner is at the other end of `descriptor`. Does not return."""
    owner = Connection(descriptor)
    status = 1
    try:
        order: Order = owner.recv()
        _settle(order)
        status = _serve(order, owner)
    except EOFError:
        pass  # the owner was gone before it said anything
    except BaseException as error:
        _tell(owner, Failed(_explained(error)))
    os._exit(status)


def _settle(order: Order) -> None:
    """Make this interpreter like the owner's as far as user code can tell.

    Signals that a thread of the owner has blocked, to wait for them, or that it ignores, are no affair of the node's.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.path[:] = order.path
    _scrubbing.hide(order.secrets)
    if order.directory is not None:
        with contextlib.suppress(OSError):  # removed by now
            os.chdir(order.directory)
    for name, value in order.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.environ["THESPIAN_BASE_IPADDR"] = transport.LOOPBACK  # what user code asks Thespian for is local, too
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_FILES:
        need = f"a node needs {LEAST_FILES} at least, and six more for each worker of its largest pool"
        raise SystemDown(f"this process may have {hard} files open (ulimit -Hn): {need}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)


def _serve(order: Order, owner: Connection) -> int:
    directory = runtime.RuntimeDirectory.claim(order.name)
    try:
        file = order.log_file or os.path.join(directory.path, runtime.KEPT)
        _log_to(file, order.log_level, order.log_format, directory.name)
        _write_to(order.output, file)
        _thespian_log_to(os.path.join(directory.path, "thespian.log"))
        _close_when_forked(owner.close, lambda: os.close(directory.lock))
        os.environ[NODE] = directory.path
        system, place = _start_system(order.base, directory)
        with contextlib.suppress(RuntimeError):  # no thread can be had: then they are generated when they are needed
            threading.Thread(target=generate, args=(runtime.NodeFacts, Ready)).start()
        root, welcome = start_tree(system, directory.path, order.options.open())
        assert welcome.supervisor_pid is not None  # every actor of these bases is a process
        watch = Watch(order, owner, welcome.supervisor_pid, directory.tend)
        directory.publish(_facts(order, directory, place, root))
        log.info("node %s serves (pid %d, admin at %s)", directory.name, os.getpid(), place)
        _tell(owner, Ready(directory.name, directory.path))
        failed = watch.wait()
        process.send_signal(welcome.supervisor_pid, signal.SIGTERM)  # Thespian's exit request; sending it cannot block
        watch.wait_for_root()
    finally:
        _end_everything()
        directory.release()
    return int(failed)


def _tell(owner: Connection, message: Ready | Failed) -> None:
    with contextlib.suppress(OSError):  # the owner is gone: the watch will say so
        owner.send(message)


def _explained(error: BaseException) -> BaseException:
    """Our errors as they are; the system's with their text; anything else with where it happened."""
    if isinstance(error, ActorPoolError):
        return error
    if isinstance(error, OSError):
        return SystemDown(f"the node failed to start: {error}", cause=error)
    return SystemDown(f"the node failed to start: {''.join(traceback.format_exception(error))}")


def _facts(order: Order, directory: runtime.RuntimeDirectory, place: str | int, root: Any) -> runtime.NodeFacts:
    return runtime.NodeFacts(
        name=directory.name,
        pid=os.getpid(),
        started=process.start_time(os.getpid()) or 0.0,
        version=__version__,
        protocol=runtime.PROTOCOL,
        base=order.base,
        admin=place,
        root=transport.place_of(root),
        fingerprint=runtime.fingerprint(directory.cookie),
    )


def _start_system(kind: str, directory: runtime.RuntimeDirectory) -> tuple[Any, str | int]:
    # Thespian's own settings, inherited by every actor; this process is ours alone.
    quiet = {"version": 1, "disable_existing_loggers": False, "root": {"level": "CRITICAL"}}
    systemCommon.RATE_THROTTLE = _UNTHROTTLED
    # Each actor sets the handlers of 60 signals; the function in C does without a look for the name of each.
    multiprocCommon.set_signal_handler = getattr(signal.signal, "__wrapped__", signal.signal)
    multiprocCommon.MultiProcAdmin.logDefs = quiet  # Thespian 4.0.1's admin dies with its logger for want of this name
    share()
    gc.freeze()  # what is loaded by now is shared with every actor: no collector of an actor writes into its pages
    gc.enable()
    for attempt in range(1, START_TRIES + 1):
        place = transport.free_place(kind, directory.path)
        try:
            return base.host_system(kind, place, directory.cookie, quiet), place
        except ActorSystemException as error:
            log.warning("attempt %d of %d to start an admin at %s failed: %s", attempt, START_TRIES, place, error)
    raise SystemDown(f"Thespian's admin did not start in {START_TRIES} attempts; the log says more")


class _Counting(logging.Handler):
    """Writes equal lines ten times a second at most, and how many it has left out."""

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*values, **named)
        self._repeats = Repeats()

    @property
    def _lock(self) -> contextlib.AbstractContextManager[Any]:
        """The handler's own, which `logging` makes anew in a forked process."""
        return self.lock or contextlib.nullcontext()

    def handle(self, record: logging.LogRecord) -> bool:
        """Write what is to be written of it."""
        if not self.filter(record):
            return False
        with self._lock:
            for one in self._repeats.admit(record):
                super().handle(one)
        return True

    def flush(self) -> None:
        """Write the counts whose time is over, too."""
        with self._lock:
            for one in self._repeats.left_out():
                super().handle(one)  # which ends in here again, with nothing left
        super().flush()

    def close(self) -> None:
        """Write the counts that are left."""
        for one in self._repeats.left_out(math.inf):
            super().handle(one)
        with contextlib.suppress(OSError):  # the disk is full
            super().close()


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[Any]
else:
    _StreamHandler = logging.StreamHandler  # not subscriptable before Python 3.11


class _Screen(_Counting, _StreamHandler):
    """Standard error."""


class LogFile(_Counting, logging.FileHandler):
    """A log for this user alone; each process opens it anew once it was moved or removed.

    (The standard library's `WatchedFileHandler` does the latter, at the cost of a tenth of a node's start.)
    """

    def __init__(self, file: str) -> None:
        super().__init__(file, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> Any:
        descriptor = private_file(self.baseFilename, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._opened = os.fstat(descriptor)
        return os.fdopen(descriptor, self.mode, encoding=self.encoding, errors=self.errors)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; one that cannot be written is lost."""
        try:
            if self.stream is not None and not self._is_there():
                self.stream.close()
                self.stream = None  # opened by `FileHandler`
            super().emit(record)
        except OSError:
            self.handleError(record)

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.baseFilename), self._opened)
        except FileNotFoundError:
            return False


def _thespian_log_to(file: str) -> None:
    """Where Thespian's own remarks go, which it would put into a directory for temporary files."""
    os.environ["THESPLOG_FILE"] = file
    utilis._thesplog_file, utilis._thesplog_old_file = file, f"{file}.old"
    utilis.open = functools.partial(open, opener=private_file)


def _log_to(file: str, level: str, kind: str, node: str) -> None:
    """The log file gets INFO of ours and WARNING of all other code; standard error what is at least `level`."""
    shown = logging.getLevelName(level)
    screen = _Screen()
    screen.setLevel(shown)
    logging.raiseExceptions = False  # the owner's terminal may be gone
    handlers: list[logging.Handler] = [LogFile(file), screen]
    handlers[0].setFormatter(log_lines.formatter(kind, node))
    screen.setFormatter(log_lines.for_stream(screen.stream, kind, node))
    for handler in handlers:
        handler.addFilter(lambda record: record.levelno >= logging.WARNING or "thespian" not in record.pathname)
    logging.basicConfig(level=min(logging.WARNING, shown), handlers=handlers, force=True)
    log.setLevel(min(logging.INFO, shown))


def _write_to(mode: str, file: str) -> None:
    """Where the standard output of this process and all actors goes, but for workers that are heard by their pool."""
    _output.mode = mode
    if mode == "inherit":
        return
    target = os.open(file, os.O_WRONLY | os.O_APPEND) if mode == "log" else os.dup(2)
    os.dup2(target, 1)
    os.close(target)
    _output.write_lines()


def _close_when_forked(*closers: Callable[[], None]) -> None:
    """An actor must not hold the node's pipe or lock: their ends are how others know that the node is gone."""
    left = list(closers)

    def close() -> None:
        while left:  # once: the actors' own children run this as well
            left.pop()()

    os.register_at_fork(after_in_child=close)


def _end_everything() -> None:
    """Kill what is left below this process, and what was orphaned below it, and wait until it is gone.

    The admin and its logger are always left; a worker's own child process may be.
    """
    import psutil  # not at the top: a node starts without it

    deadline = time.monotonic() + SWEEP
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        reap()
        time.sleep(0.001)
