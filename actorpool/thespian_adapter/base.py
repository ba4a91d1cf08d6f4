"""Thespian's system base, hardened: what the node starts, and what other processes attach to it with.

`ActorSystem` takes a base as an object, so a plain `ActorSystem()` afterwards in the same process is the same system,
unless the process has one already: that one is never replaced.
"""

from __future__ import annotations

import random
import sys
import time
from importlib.util import find_spec
from typing import Any

from thespian.actors import ActorExitRequest, ActorSystem, InvalidActorAddress
from thespian.system import multiprocTCPBase, multiprocUDPBase

from actorpool import process
from actorpool.errors import SystemDown
from actorpool.thespian_adapter.transport import address_at, transport_for

__all__ = ["address_at", "ask", "attach", "detach", "end_inside_system", "host_system", "inside_system"]

_BASES = {
    "multiprocTCPBase": multiprocTCPBase.ActorSystemBase,
    "multiprocUDPBase": multiprocUDPBase.ActorSystemBase,
}
ATTACH_WITHIN = 15.0
"""Seconds. Several processes that attach in the same instant can fail with Thespian 4.0.1; each tries again later."""


class _Carrier:
    """What Thespian's base reads its capabilities from."""

    def __init__(self) -> None:
        self.capabilities: dict[str, Any] = {"Process Startup Method": "fork"}


class _AttachOnly:
    """Mixed into the base of every process but the node's: stock Thespian would fork an admin of its own."""

    def _startAdmin(self, address: Any, *_: Any) -> None:  # noqa: N802
        raise _ended(address)


def _ended(place: Any) -> SystemDown:
    return SystemDown(f"nobody listens at {place}: the node has ended; start a new one")


def host_system(base: str, place: str | int, cookie: bytes, log_definitions: dict[str, Any]) -> Any:
    """Start an actor system with an admin that listens at `place`.

    Runs in: the node, which must have one thread only, because every actor is forked from here.

    Args:
        base: "multiprocTCPBase" or "multiprocUDPBase".
        place: a free one, see `transport.free_place`.
        cookie: the key every message is signed with.
        log_definitions: `logging.config.dictConfig` for Thespian's own logger process.

    Raises:
        thespian.actors.ActorSystemException: it did not start (a port was taken meanwhile).
    """
    process.adopt_orphans()  # the admin among them, see `transport`
    if find_spec("setproctitle") is None:
        sys.modules["setproctitle"] = None  # type: ignore[assignment]  # each actor would look for it along the path
    cls = type("HardenedBase", (_BASES[base],), {"transportType": transport_for(base, place, cookie)})
    return ActorSystem(cls(_Carrier(), logDefs=log_definitions))


def inside_system() -> Any:
    """An actor system without processes, which leaves this process's logging alone."""
    return ActorSystem("simpleSystemBase", logDefs=False, transientUnique=_taken())


def end_inside_system(system: Any, root: Any) -> None:
    """End the actors below `root`, and the system."""
    system.tell(root, ActorExitRequest())
    system.shutdown()


def _taken() -> bool:
    """Whether this process has an actor system that a plain `ActorSystem()` means."""
    return getattr(ActorSystem, "systemBase", None) is not None


def attach(base: str, place: str | int, cookie: bytes) -> Any:
    """Thespian's `ActorSystem` of a running node with an admin that listens at `place`; never starts one.

    Raises:
        SystemDown: no node listens there, or it does not answer to this cookie.
    """
    cls = type("AttachedBase", (_AttachOnly, _BASES[base]), {"transportType": transport_for(base, place, cookie)})
    deadline = time.monotonic() + ATTACH_WITHIN
    while time.monotonic() < deadline:
        try:
            ours = cls(_Carrier())
        except InvalidActorAddress:
            time.sleep(random.uniform(0.05, 0.5))
        except FileNotFoundError as error:
            raise _ended(place) from error
        else:
            return ActorSystem(ours, transientUnique=_taken())
    raise SystemDown(f"{place} did not answer for {ATTACH_WITHIN} s: the node is ending, or the machine overloaded")


def detach(system: Any) -> None:
    """Close this process's endpoint of a node; the node is not touched."""
    base = system._systemBase
    if base is None:
        return  # the user's own shutdown() has been here
    if getattr(ActorSystem, "systemBase", None) is base:
        del ActorSystem.systemBase
    system._systemBase = None
    base.transport.close()


def ask(system: Any, address: Any, request: Any, timeout: float) -> Any:
    """Send a request and return the value of its own answer; answers to anything else are dropped.

    Raises:
        SystemDown: no answer within `timeout` seconds.
        Exception: what the other side answered with `Err`.
    """
    deadline = time.monotonic() + timeout
    system.tell(address, request)
    while (left := deadline - time.monotonic()) > 0:
        answer = system.listen(left)
        if getattr(answer, "ref", None) == request.ref:
            return answer.unwrap()
    raise SystemDown(f"{type(request).__name__} was not answered within {timeout} s")
