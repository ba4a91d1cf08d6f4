"""The node's own process: it starts the actor system and ends with its owner, and everything ends with it.

It has one thread, because every actor is forked from it. Whatever happens to it, the kernel ends the admin with it,
and each actor with its parent; in an orderly end it also ends what those processes left behind.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from thespian.actors import ActorSystemException
from thespian.system import multiprocCommon, systemCommon

from actorpool import __version__, host
from actorpool.errors import ActorPoolError, SystemDown
from actorpool.node import base, runtime, transport
from actorpool.node.order import Failed, Order, Ready
from actorpool.node.tree import start_tree
from actorpool.node.watch import Watch, reap

log = logging.getLogger("actorpool")

START_TRIES = 3
SWEEP = 0.25
"""Seconds to wait for killed processes to be gone."""
_UNTHROTTLED = 10**12
"""Messages a second: Thespian's own limit is for networks; see docs/decisions.md."""
_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"


def main(descriptor: int) -> None:
    """Run a node whose owner is at the other end of `descriptor`. Does not return."""
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
    """Make this interpreter like the owner's as far as user code can tell."""
    sys.path[:] = order.path
    if order.directory is not None:
        with contextlib.suppress(OSError):  # removed by now
            os.chdir(order.directory)
    for name, value in order.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.environ["THESPIAN_BASE_IPADDR"] = transport.LOOPBACK  # what user code asks Thespian for stays local, too
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a pool needs three descriptors for each worker
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)


def _serve(order: Order, owner: Connection) -> int:
    directory = runtime.RuntimeDirectory.claim(order.name)
    try:
        _log_to(order.log_file or os.path.join(directory.path, runtime.KEPT), order.log_level)
        os.environ["THESPLOG_FILE"] = os.path.join(directory.path, "thespian.log")
        _close_when_forked(owner.close, lambda: os.close(directory.lock))
        system, port = _start_system(order.base, directory.cookie)
        root, welcome = start_tree(system, directory.path, order.options.open())
        assert welcome.supervisor_pid is not None  # every actor of these bases is a process
        watch = Watch(order, owner, welcome.supervisor_pid)
        directory.publish(_facts(order, directory, port, root))
        log.info("node %s serves (pid %d, admin port %d)", directory.name, os.getpid(), port)
        _tell(owner, Ready(directory.name, directory.path))
        failed = watch.wait()
        host.send_signal(welcome.supervisor_pid, signal.SIGTERM)  # Thespian's exit request; sending it cannot block
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


def _facts(order: Order, directory: runtime.RuntimeDirectory, port: int, root: Any) -> runtime.NodeFacts:
    return runtime.NodeFacts(
        name=directory.name,
        pid=os.getpid(),
        started=host.start_time(os.getpid()) or 0.0,
        version=__version__,
        protocol=runtime.PROTOCOL,
        base=order.base,
        admin_port=port,
        root_port=transport.port_of(root),
        fingerprint=runtime.fingerprint(directory.cookie),
    )


def _start_system(kind: str, cookie: bytes) -> tuple[Any, int]:
    # Thespian's own settings, inherited by every actor; this process is ours alone.
    quiet = {"version": 1, "disable_existing_loggers": False, "root": {"level": "CRITICAL"}}
    systemCommon.RATE_THROTTLE = _UNTHROTTLED
    multiprocCommon.MultiProcAdmin.logDefs = quiet  # Thespian 4.0.1's admin dies with its logger for want of this name
    gc.collect()
    gc.freeze()  # what is loaded by now is shared with every actor, and stays shared
    for attempt in range(1, START_TRIES + 1):
        port = _free_port(kind)
        try:
            return base.host_system(kind, port, cookie, quiet), port
        except ActorSystemException as error:
            log.warning("attempt %d of %d to start an admin at port %d failed: %s", attempt, START_TRIES, port, error)
    raise SystemDown(f"Thespian's admin did not start in {START_TRIES} attempts; the log says more")


def _free_port(kind: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if "TCP" in kind else socket.SOCK_DGRAM) as probe:
        probe.bind((transport.LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _log_to(file: str, level: str) -> None:
    """The log file gets INFO of ours and WARNING of everybody's; standard error what is at least `level`."""
    shown = logging.getLevelName(level)
    screen = logging.StreamHandler()
    screen.setLevel(shown)
    logging.raiseExceptions = False  # the owner's terminal may be gone
    handlers: list[logging.Handler] = [logging.FileHandler(file), screen]
    for handler in handlers:
        handler.addFilter(lambda record: record.levelno >= logging.WARNING or "thespian" not in record.pathname)
    logging.basicConfig(format=_FORMAT, level=min(logging.WARNING, shown), handlers=handlers, force=True)
    log.setLevel(min(logging.INFO, shown))


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
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        reap()
        time.sleep(0.001)


