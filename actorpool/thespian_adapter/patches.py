"""Thespian, mended where its actors need it. By names of its inside, so its version is checked here.

Each is done once in an actor's process, before its first message is looked at, on Thespian's side of the actor.
`sending` mends its sending.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
from collections.abc import Iterator
from typing import Any

import thespian
from thespian.actors import ChildActorExited
from thespian.system.addressManager import ActorLocalAddress
from thespian.system.transport import ReceiveEnvelope

from actorpool import _offspring
from actorpool.thespian_adapter import versions

versions.require(thespian, "4.0.1", "4.1")

SPARE = 12
"""Descriptors that an actor keeps for itself."""
START_ERROR = "_actorpool_start_error"
_loggers = logging.Logger.manager  # of the process in which all this is loaded


def tell_every_death(manager: Any) -> None:
    """Mend Thespian 4.0.1, which loses three kinds of deaths among an actor's children.

    After each death that it tells, it drops other dead children without telling (`_childExited`), so of several
    that are killed together some are never told; SIGCHLD would have found them. It cannot tell the death of a
    child that had not connected yet, because that has no address. And over UDP it mutes SIGCHLD after ten in a row.
    """
    if "childDied" in vars(manager):
        return  # done by the host of this actor

    def child_died() -> bool:
        children = getattr(manager, "_child_procs", [])
        dead = [child for child in children if not child.childProc.is_alive()]
        manager._child_procs = [child for child in children if child not in dead]
        for child in dead:
            address = getattr(child, "childRealAddr", None)
            if address is None:
                manager._retryPendingChildOperations(child.childAddr.addressDetails.addressInstanceNum, None)
            else:
                manager._receiveQueue.append(ReceiveEnvelope(manager.myAddress, ChildActorExited(address)))
        _offspring.bury(processes_of(manager))
        return True

    manager.childDied = child_died
    manager._childExited = lambda address: None
    transport = manager.transport
    if hasattr(transport, "_checkChildren") and not hasattr(transport, "set_watch"):
        interrupt = transport.interrupt_wait

        def interrupt_always(**why: bool) -> None:
            transport._interruptWaitCounter = 0
            interrupt(**why)

        transport.interrupt_wait = interrupt_always


def forget_child(manager: Any, address: Any) -> None:
    """Keep nothing of a child that is gone. Thespian keeps the address of every child that an actor has ever had.

    All that are gone share the address of the first: what is still sent to one of them is as undeliverable.
    """
    book, details = getattr(manager, "_addrManager", None), address.addressDetails
    if book is not None and isinstance(details, ActorLocalAddress) and book._managed[details.addressInstanceNum]:
        dead = vars(book).setdefault("_actorpool_dead", book._managed[details.addressInstanceNum])
        book._managed[details.addressInstanceNum] = dead


def processes_of(manager: Any) -> set[int]:
    """The children that are actors, those included whose death was not told yet."""
    return {child.childProc.pid for child in getattr(manager, "_child_procs", ())}


def keep_start_errors(manager: Any) -> None:
    """Keep why the system starts no process for a child, for `start_error`; Thespian tells a death without a cause.

    The last descriptors are not given to children: without one, Thespian's loop ends with a traceback.
    """
    if START_ERROR in vars(manager):
        return  # done by the host of this actor
    setattr(manager, START_ERROR, None)
    start = manager._startChildActor

    def start_child(*values: Any, **named: Any) -> Any:
        try:
            _check_descriptors(manager)
            return start(*values, **named)
        except OSError as error:
            setattr(manager, START_ERROR, error)
            raise

    manager._startChildActor = start_child


def _check_descriptors(manager: Any) -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(manager.transport.socket.fileno())  # about as many are open
    os.close(lowest)
    needed = SPARE + len(getattr(manager, "_child_procs", ()))  # each child will be connected to
    if limit != resource.RLIM_INFINITY and lowest + needed > limit:
        raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)} ({lowest} of {limit})")


@contextlib.contextmanager
def first_message(manager: Any, message: Any) -> Iterator[bool]:
    """Have a child that is forked meanwhile find a message in its memory; whether this transport can do so."""
    transport: Any = getattr(manager, "transport", None)
    able = message is not None and hasattr(transport, "first_message")
    if able:
        transport.first_message = message
    try:
        yield able
    finally:
        if able:
            transport.first_message = None


def clear_places(manager: Any) -> None:
    """Remove what children that have ended have left, for an actor that ends before it has heard of each."""
    clear = getattr(manager.transport, "clear_places", None)
    if clear is not None:
        clear()


def start_error(manager: Any) -> str | None:
    """Why the child that was just created has no process, in words; None if nothing went wrong. Told once."""
    error = getattr(manager, START_ERROR, None)
    if error is None:
        return None
    setattr(manager, START_ERROR, None)
    return f"no process could be started for it: {error}{_ADVICE.get(error.errno, '')}"


_ADVICE = {
    errno.EAGAIN: " (the limit of processes is reached: see ulimit -u, and pids.max of the container or service)",
    errno.ENOMEM: " (the machine, or the container, has no memory left)",
    errno.EMFILE: " (the limit of open files is reached: see ulimit -Hn)",
    errno.ENFILE: " (the machine has no open files left: see fs.file-max)",
}


def keep_loggers() -> None:
    """Have the loggers that modules hold write to this actor's log.

    Thespian gives each actor a new tree of loggers; its root hands lines to the system's logger process. What a
    module has got from `getLogger` before belongs to the old tree, and its lines would go nowhere. So the old tree
    is kept and gets the new root.
    """
    root = logging.root
    if _loggers.root is root:
        return  # of a node, which keeps its own, or of a system inside this process
    for logger in list(_loggers.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.parent is _loggers.root:
            logger.parent = root
    _loggers.root = root
    logging.Logger.manager = _loggers
    root.setLevel(root.level)  # forgets what the loggers have noted about levels
