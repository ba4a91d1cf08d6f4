"""The process of one supervised child. It hosts an actor of any class, tells the supervisor how its start went and,
if it is `Supervised`, why it ended.

Hosting, instead of creating the class itself, gives every child the same start, also where Thespian shows no sign of
it: a failing import or `__init__` has a reason, and classes of `__main__` can be actors.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from actorpool import process
from actorpool._dataclass import dataclass
from actorpool.config import PoolConfig, SharedPoolConfig
from actorpool.core.supervisor.events import Began, Ignored, Leaving, Refused, Remembered
from actorpool.messages import Err, Ok
from actorpool.serialization.pickling import Pickled
from actorpool.supervisors.specs import SupervisorSpec, load_class
from actorpool.supervisors.supervised import IGNORE, LATER, Supervised, end_of
from actorpool.thespian_adapter.shell import ActorExitRequest, ChildActorExited, Shell, log
from actorpool.transport import frames
from actorpool.workers.base import Worker

SUPERVISOR = "actorpool.supervisors.supervisor:Supervisor"
POOL = "actorpool.pools.actor:PoolActor"
SHARED_POOL = "actorpool.pools.shared_actor:SharedPoolActor"
WORKER = "actorpool.supervisors.worker:SupervisedWorker"


@dataclass(frozen=True)
class HostChild:
    """The first message to a `ChildHost`: what to host.

    Attributes:
        token: numbers this incarnation.
        id: of the child's spec.
        actor: as in the spec, packed.
        args: dicts, packed, each over those before.
        ref: of the request that this start answers, below no supervisor; None below one.
        awaited: the answer has a waiter; else only a failure is told.
    """

    token: int
    id: Any
    actor: Pickled
    args: tuple[Pickled, ...] = ()
    ref: Any = None
    awaited: bool = True


@dataclass(frozen=True)
class HostStarted:
    """At once, to the asker of a start below no supervisor: the process in which it is tried."""

    ref: Any
    pid: int


class ChildHost(Shell):
    """The actor that Thespian knows, in the place of the one that it hosts."""

    _begin: HostChild
    _starter: Any
    _hosted: Any = None
    _over = False
    _ending = False
    _initialised = False

    def __init__(self) -> None:
        super().__init__()
        self._early: list[tuple[Any, Any]] = []

    def receiveMessage(self, message: Any, sender: Any) -> Any:  # noqa: N802
        """Host on `Begin`; everything else is the hosted actor's."""
        try:
            watching = self._take_in(message, sender)
        except BaseException as error:
            process.end_copy(error)
            raise
        process.end_copy()
        return watching

    def _take_in(self, message: Any, sender: Any) -> Any:
        if isinstance(message, HostChild) and not hasattr(self, "_begin"):  # only the first is the supervisor's
            self.enter()
            self._begin, self._starter = message, sender
            return self._start()
        if self._hosted is None and not isinstance(message, ActorExitRequest):
            self._early.append((message, sender))
            return None
        return self._deliver(message, sender)

    def _start(self) -> Any:
        begin = self._begin
        if begin.ref is not None and begin.awaited:
            self.send(self._starter, HostStarted(begin.ref, os.getpid()))
        try:
            outcome = self._host()
        except Exception as error:
            self.report(Refused(begin.token, end_of(error)))
            return None
        self._initialised = outcome is not IGNORE
        if outcome is IGNORE:
            self.report(Ignored(begin.token))
        elif outcome is not LATER:
            self.report(Began(begin.token))
        early, self._early = self._early, []
        for message, sender in early:
            self._deliver(message, sender)
        return self._hosted.watch() if isinstance(self._hosted, Shell) else None

    def _host(self) -> Any:
        """Create the actor and have it initialised; what `init` returned."""
        given: dict[str, Any] = {}
        for parcel in self._begin.args:
            given.update(parcel.open())
        actor, args = _resolved(self._begin.actor.open(), given, self._begin.id)
        hosted = self._hosted = self.instantiate_in_place(actor)
        if isinstance(hosted, Shell):
            hosted.enter()
        else:
            hosted.createActor = functools.partial(_create_linked, hosted)
        if not isinstance(hosted, Supervised):
            if args:
                hosted.receiveMessage(args, self._starter)
            return None
        hosted.parent = self._starter if self._begin.ref is None else None
        hosted.child_id, hosted._token, hosted._report = self._begin.id, self._begin.token, self.report
        return hosted.init(**args)

    def report(self, event: Began | Ignored | Refused | Leaving | Remembered) -> None:
        """Tell the supervisor; without one, tell the asker of the start, and end this process."""
        self._over = self._over or isinstance(event, (Ignored, Refused))
        ref = self._begin.ref
        if ref is None:
            self.send(self._starter, event)
        elif isinstance(event, Began):
            if self._begin.awaited:
                self.send(self._starter, Ok(self.myAddress, ref))
        elif not isinstance(event, Remembered):
            if isinstance(event, Refused):
                self.send(self._starter, Err(frames.load_error(event.end.error.data), ref))
            self.send(self.myAddress, ActorExitRequest())

    def _deliver(self, message: Any, sender: Any) -> Any:
        hosted = self._hosted
        if isinstance(message, ActorExitRequest):
            return self._deliver_exit(message, sender)
        if self._ending:
            if isinstance(message, ChildActorExited):
                self._leave_without(message.childAddress)
            return None
        supervised = isinstance(hosted, Supervised)
        if self._over or (supervised and hosted._left):
            return None
        try:
            return hosted.receiveMessage(message, sender)
        except Exception as error:
            if not supervised:
                raise  # Thespian's to handle, as without us
            hosted.crashed(error, message)
            return None

    def _deliver_exit(self, request: Any, sender: Any) -> None:
        try:
            if self._initialised:  # else there is nothing to end: the user's code never got hold of it, as in OTP
                self._hosted.receiveMessage(request, sender)
        except Exception:
            log.exception("%s raised while it ended", type(self._hosted).__name__)
        self._ending = True
        self._leave_without(None)

    def _leave_without(self, gone: Any) -> None:
        """End the process once the hosted actor's own children are gone; Thespian asks them to end."""
        if all(child == gone for child in getattr(self._myRef, "childAddresses", ())):
            self.leave()


def _resolved(actor: Any, args: dict[str, Any], id: Any) -> tuple[type, dict[str, Any]]:
    """The actor class behind what a spec says, and the arguments of its `init`."""
    if isinstance(actor, str):
        actor = load_class(actor)
    if isinstance(actor, SupervisorSpec):
        return load_class(SUPERVISOR), {**args, "spec": actor}
    if isinstance(actor, (PoolConfig, SharedPoolConfig)):
        kind = load_class(POOL if isinstance(actor, PoolConfig) else SHARED_POOL)
        return kind, {"name": id, **args, "config": actor}
    if issubclass(actor, Worker):
        return load_class(WORKER), {"worker": actor, "worker_args": args}
    return actor, args


def _create_linked(actor: Any, *values: Any, **named: Any) -> Any:
    with process.linked_forks():
        return type(actor).createActor(actor, *values, **named)
