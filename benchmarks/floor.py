"""The floor: two plain processes that echo pickles over a unix socket. No pool of processes can be below it.

With blocking reads both sleep in the kernel until the answer is there; with a spin they look for it a little longer,
yielding the processor between two looks, before they sleep.

Where the two run decides more than anything else: a process that sleeps on another processor takes three times as long
to wake up as one on the same. Left to itself the kernel does now this, now that, so each is measured by itself.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import add

from actorpool.benchmarks.meter import Measure, latency

LENGTH = struct.Struct("!I")
AT_ONCE = 65536


@contextmanager
def echo(spin: float = 0.0, apart: bool = True) -> Iterator[Measure]:
    """Contender: both sides look for `spin` seconds before they block; on two processors (`apart`), or on one."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        with _stay(-1 if apart else 0):
            _serve(theirs, spin)
    theirs.close()

    def call() -> None:
        _send(ours, (add, (1, 2)))
        if pickle.loads(_receive(ours, spin)) != 3:
            raise RuntimeError("the echo is wrong")

    try:
        with _stay(0):
            yield lambda seconds: latency(call, seconds)
    finally:
        ours.close()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@contextmanager
def _stay(processor: int) -> Iterator[None]:
    """Run on one processor for as long as this is open, where the kernel lets itself be told."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[processor]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _serve(connection: socket.socket, spin: float) -> None:
    while request := _receive(connection, spin):
        function, args = pickle.loads(request)
        _send(connection, function(*args))
    os._exit(0)


def _send(connection: socket.socket, value: object) -> None:
    data = pickle.dumps(value, 5)
    connection.sendall(LENGTH.pack(len(data)) + data)


def _receive(connection: socket.socket, spin: float) -> bytes:
    """One small message (it comes in one piece), or nothing at the end."""
    look: Callable[..., bytes] = connection.recv
    if spin:
        end = time.perf_counter() + spin
        while time.perf_counter() < end:
            try:
                return look(AT_ONCE, socket.MSG_DONTWAIT)[LENGTH.size :]
            except BlockingIOError:
                os.sched_yield()
    return look(AT_ONCE)[LENGTH.size :]
