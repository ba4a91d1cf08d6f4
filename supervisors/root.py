"""Starting a supervisor that has none above it, from outside an actor system or from inside an actor."""

from __future__ import annotations

import time
from typing import Any

from actorpool import process
from actorpool.errors import SupervisorError
from actorpool.messages import Err, Ok, new_ref
from actorpool.serialization.pickling import Pickled
from actorpool.supervisors.child_host import SUPERVISOR, ChildHost, HostChild, HostStarted
from actorpool.supervisors.specs import SupervisorSpec
from actorpool.thespian_adapter.shell import Actor, ActorAddress

LOOK_AFTER = 0.5
"""Seconds of silence after which a process that is starting is checked for life."""
FIRST_WORD = 30.0
"""Seconds for that process to say that it is there."""


def start_supervisor(
    actor_system_or_actor: Any, spec: SupervisorSpec, name: str = "supervisor", *, actor: Any = None
) -> ActorAddress:
    """Start a supervisor and its children.

    Args:
        actor_system_or_actor: a Thespian `ActorSystem`, or `self` inside an actor, then its parent.
        spec: its children and strategy.
        name: how its log records call it.
        actor: its class, a subclass of `Supervisor`, or `"module:Class"`; None is `Supervisor` itself.

    Returns:
        Its address. From an `ActorSystem` all children have started by then. Inside an actor, which cannot wait for
        messages, they start afterwards: the supervisor answers requests once they have, and a failed start arrives as
        an `Err` message.

    Raises:
        SupervisorError: from an `ActorSystem`: a child did not start (its id and its reason are in the text), and those
            before it were stopped again; or its process died, or said nothing for 30 s.
    """
    what = (Pickled.of(SUPERVISOR if actor is None else actor), (Pickled.of({"spec": spec}),))
    if isinstance(actor_system_or_actor, Actor):
        return _start_below(actor_system_or_actor, HostChild(0, name, *what, ref=new_ref(), awaited=False))
    begin = HostChild(0, name, *what, ref=new_ref())
    address = actor_system_or_actor.createActor(ChildHost)
    if _has_processes(actor_system_or_actor):
        with actor_system_or_actor.private() as context:  # no late answers to other requests arrive here
            _wait(context, address, begin)
    else:
        _wait(actor_system_or_actor, address, begin)
    return address


def _start_below(actor: Any, begin: HostChild) -> ActorAddress:
    with process.linked_forks():
        address = actor.createActor(ChildHost)
    actor.send(address, begin)
    return address


def _has_processes(system: Any) -> bool:
    return hasattr(system._systemBase, "transport")


def _wait(context: Any, address: ActorAddress, begin: HostChild) -> None:
    """Have it begin, and wait for the end of the start: for as long as that takes, if its process lives."""
    pid: int | None = None
    deadline = time.monotonic() + FIRST_WORD
    reply = context.ask(address, begin, LOOK_AFTER)
    while True:
        if isinstance(reply, HostStarted) and reply.ref == begin.ref:
            pid = reply.pid
        elif isinstance(reply, (Ok, Err)) and reply.ref == begin.ref:
            reply.unwrap()
            return
        elif reply is None and pid is not None and not process.alive(pid):
            raise SupervisorError(("shutdown", "killed"), f"the supervisor's process (pid {pid}) died while it started")
        elif pid is None and time.monotonic() >= deadline:
            text = (
                f"the supervisor's process has said nothing for {FIRST_WORD:g} s: it has died, or the machine is stuck"
            )
            raise SupervisorError(("shutdown", "timeout"), text)
        reply = context.listen(LOOK_AFTER)
