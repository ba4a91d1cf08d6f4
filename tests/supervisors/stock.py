"""Thespian's own system bases, as a user has them, and how to talk to actors there."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from thespian.actors import ActorSystem

from actorpool.errors import SupervisorError
from actorpool.supervisors import ChildInfo, WhichChildren

SIMPLE, TCP, UDP = "simpleSystemBase", "multiprocTCPBase", "multiprocUDPBase"
THESPIAN_LEAKS = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""Marks of a test module: stock Thespian leaves its sockets to the garbage collector."""


@contextmanager
def actor_system(base: str, port: int) -> Iterator[Any]:
    if base == SIMPLE:
        system = ActorSystem(base, logDefs=False, transientUnique=True)  # logging stays as it is in this process
    else:
        system = ActorSystem(base, {"Admin Port": port}, logDefs={"version": 1}, transientUnique=True)
    try:
        yield system
    finally:
        system.shutdown()
        del system
        gc.collect()


def ask(system: Any, address: Any, request: Any) -> Any:
    """The answer to a request; raises the error that is the answer."""
    reply = system.ask(address, request, 10)
    while reply is not None and getattr(reply, "ref", None) != request.ref:
        reply = system.listen(10)
    assert reply is not None, f"no answer to {request}"
    return reply.unwrap()


def info(system: Any, supervisor: Any, id: Any) -> ChildInfo:
    return next(item for item in ask(system, supervisor, WhichChildren()) if item.id == id)


def pids(system: Any, supervisor: Any) -> dict[Any, int]:
    return {item.id: item.pid for item in ask(system, supervisor, WhichChildren())}


def restarts(system: Any, supervisor: Any) -> dict[Any, int]:
    return {item.id: item.restarts for item in ask(system, supervisor, WhichChildren()) if item.state == "running"}


def refused(system: Any, supervisor: Any, request: Any) -> SupervisorError:
    with pytest.raises(SupervisorError) as caught:
        ask(system, supervisor, request)
    return caught.value
