"""The supervisor actor, a thin shell around `core.supervisor.core`: messages and deaths in, effects out."""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import reprlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from actorpool import process
from actorpool._arriving import problems_of, ref_of
from actorpool._protocol import manager
from actorpool._protocol.requests import GetOutline
from actorpool.core.supervisor import events
from actorpool.core.supervisor.children import DIED, End
from actorpool.core.supervisor.core import SupervisorCore
from actorpool.core.supervisor.events import Report
from actorpool.core.supervisor.requests import REQUESTS
from actorpool.errors import SupervisorError
from actorpool.messages import Err, Ok, Request
from actorpool.serialization.exceptions import OpaqueError, opaque_error
from actorpool.serialization.pickling import Pickled
from actorpool.supervisors.child_host import ChildHost, HostChild
from actorpool.supervisors.ending import end_processes
from actorpool.supervisors.outlines import outline_of
from actorpool.supervisors.specs import SupervisorSpec
from actorpool.supervisors.supervised import LATER, Supervised, plain
from actorpool.supervisors.upward import tell_manager
from actorpool.telemetry import EVENTS, history
from actorpool.thespian_adapter.shell import ActorAddress, Shell
from actorpool.thespian_adapter.shell import log as _log

_OWN_ERROR = f"{SupervisorError.__module__}.{SupervisorError.__qualname__}"
Then = Callable[[Any, "SupervisorError | None"], None]


class Supervisor(Supervised, Shell):
    """Supervises the children of one `SupervisorSpec`. Runs in a process of its own, parent of theirs.

    Made by `start_supervisor`, or as a child of another one by a `ChildSpec` with a `SupervisorSpec` as its `actor`.
    Subclasses may override `emit` and `on_other`, and administer their children through `administer`.
    """

    per_child = False
    """Whether every child has an intensity window of its own (see `SupervisorCore`)."""
    _over = True

    def init(self, spec: SupervisorSpec) -> Any:
        """Start the children in order; up once they all are."""
        self.machine = SupervisorCore(spec, _is_address, per_child=self.per_child)
        self._processes: dict[int, tuple[ActorAddress, int | None]] = {}
        self._events: deque[events.Event] = deque()
        self._asked: dict[int, Then] = {}
        self._last_asked = 0
        self._over = False
        if self.is_process:
            gc.freeze()  # no child looks through what it was forked with: that would copy every page of it
        self._step(events.Boot())
        return LATER

    # -- in ---------------------------------------------------------------------------------------------------------

    def on_message(self, message: Any, sender: Any) -> None:
        """A request, or a child's word about itself."""
        if type(message) in REQUESTS:
            ref = ref_of(message)
            self.administer(message, lambda value, error: self._reply(sender, ref, value, error))
        elif type(message) in _WORDS:
            if self._is_of(message.token, sender):
                self._hear(message, sender)
        elif isinstance(message, manager.Happened):
            self.pass_up(message)
        elif isinstance(message, GetOutline):
            self.send(sender, Ok(outline_of(self.machine), ref_of(message)))
        else:
            self.on_other(message, sender)

    def pass_up(self, event: manager.Happened) -> None:
        """An event of a supervisor below."""
        if not problems_of(event) and event.name in EVENTS:
            self.emit(event.name, event.measurements, event.metadata)

    def _is_of(self, token: Any, sender: Any) -> bool:
        """Whether the incarnation of that number is the sender: any actor can send its token, and it may be gone."""
        known = self._processes.get(token) if isinstance(token, int) else None
        return known is not None and known[0] == sender

    def is_parent_of(self, address: Any) -> bool:
        """Whether that is the address of a child's process."""
        return any(known == address for known, _ in self._processes.values())

    def _hear(self, word: Any, sender: Any) -> None:
        if isinstance(word, events.Began):
            word = word._replace(address=sender, pid=self._processes[word.token][1])
        elif isinstance(word, (events.Refused, events.Leaving)):
            word = word._replace(end=_unpacked(word.end, self.is_process))
        self._step(word)

    def on_change(self) -> None:
        """Something was taken in, so that children may be in other states now. Override it to act on that."""

    def on_timer(self, payload: Any) -> None:
        """A deadline of the machine."""
        if isinstance(payload, events.Due):
            self._step(payload)

    def on_child_exit(self, address: ActorAddress) -> None:
        """A child's process is gone, and what it has left running goes."""
        self.end_orphans()
        token = next((token for token, (known, _) in self._processes.items() if known == address), None)
        if token is not None and not self._over:
            del self._processes[token]
            self._step(events.Exited(token, self._shown()))

    def _shown(self) -> End | None:
        """What is known of the end of a child's process; nothing if it ended in good order."""
        return End(self.ending(self.exit_status)) if self.exit_status or self.start_error else None

    def on_undelivered(self, message: Any, why: str) -> None:
        """A child cannot be told what it is (over UDP a message has 64 KiB at most): it will not start."""
        token = getattr(message, "token", None)
        if isinstance(message, HostChild) and isinstance(token, int) and token in self._processes:
            reason = f"its first message could not be sent: {why.strip().splitlines()[-1]}"
            self._step(events.Refused(token, End(reason, why)))

    def on_dead_letter(self, message: Any, address: ActorAddress) -> None:
        """The first message to a child of this supervisor, or of another one."""
        if not isinstance(message, HostChild) or self._is_of(getattr(message, "token", None), address):
            super().on_dead_letter(message, address)

    def on_other(self, message: Any, sender: Any) -> None:
        """A message that is none of a supervisor's. Requests are refused, the rest is dropped."""
        if isinstance(message, Request):
            what = type(message).__name__
            self._reply(sender, ref_of(message), None, SupervisorError(("unknown_request", what)))

    def administer(self, request: Request, then: Then) -> None:
        """Put a request to the machine; `then(value, error)` is called once, now or later."""
        self._last_asked += 1
        self._asked[self._last_asked] = then
        self._step(events.Asked(self._last_asked, request))

    def _step(self, event: events.Event) -> None:
        """Take an event in; one that comes of carrying out the effects of another waits until these are done."""
        self._events.append(event)
        if len(self._events) > 1:
            return
        try:
            while self._events:
                effects = self.machine.handle(self._events[0], time.monotonic(), random.random())
                self.on_change()  # first of all: what must be remembered is, before any request is answered
                for effect in sorted(
                    effects, key=_is_report
                ):  # a replacement is not kept waiting by what is to be told
                    _EFFECTS[type(effect)](self, effect)
                self._events.popleft()
        finally:  # what is raised here is an error of our own, by which this actor ends; it must be able to
            self._events.clear()

    # -- out --------------------------------------------------------------------------------------------------------

    def _start(self, effect: events.Start) -> None:
        spec: Any = effect.spec
        if spec.type == "supervisor" and self.is_process:
            history.lend(spec.id)
        address, pid = self.spawn(ChildHost)
        self._processes[effect.token] = (address, pid)
        actor, args = spec.parcels()
        more = (_packed(args) for args in (effect.extra, effect.memory) if args is not None)
        self.send(address, HostChild(effect.token, spec.id, actor, (args, *more, *self._more_args(spec))))

    def _more_args(self, spec: Any) -> tuple[Pickled, ...]:
        """What a child is told over all else when it is started. Override it to tell something."""
        return ()

    def _terminate(self, effect: events.Terminate) -> None:
        self.end_child(self._processes[effect.token][0])

    def _kill(self, effect: events.Kill) -> None:
        address, pid = self._processes[effect.token]
        if not process.kill(pid):  # no process of its own
            self.end_child(address)

    def _timer(self, effect: events.Timer) -> None:
        self.set_timer(effect.delay, events.Due(effect.number))

    def _answer(self, effect: events.Answer) -> None:
        self._asked.pop(effect.ref)(effect.value, effect.error)

    def _ready(self, _: events.Ready) -> None:
        self.started()

    def _exit(self, effect: events.Exit) -> None:
        if effect.failed is not None:
            self.start_failed(effect.failed)
        else:
            self.stop(effect.reason)

    def _reply(self, asker: Any, ref: Any, value: Any, error: SupervisorError | None) -> None:
        self.send(asker, Ok(value, ref) if error is None else Err(error, ref))

    def _tell_of(self, report: events.Report) -> None:
        event = log_report(self.child_id, report)
        if event is not None:
            self.emit(*event)

    def emit(self, name: str, measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Something happened, `supervisor.restarted` or `supervisor.gave_up`: tell the parent, up to the sinks."""
        event = manager.Happened(name, measurements, metadata)
        if self.parent is not None:
            self.send(self.parent, event)
        else:
            tell_manager(event)

    def on_exit(self) -> None:
        """End the children in reverse order, each within its `shutdown`. Blocks for as long."""
        if self._over:
            return
        self._over = True
        for together in self.machine.last_stand():
            processes = [self._processes[child.token] for child in together if child.token in self._processes]
            end_processes([pid for _, pid in processes if pid is not None], together[0].spec.shutdown)
            for address, pid in processes:
                if pid is None:
                    self.end_child(address)
        self.end_orphans()


def _is_address(value: Any) -> bool:
    return isinstance(value, ActorAddress)


def _is_report(effect: events.Effect) -> bool:
    return isinstance(effect, events.Report)


def _packed(args: Any) -> Pickled:
    return args if isinstance(args, Pickled) else Pickled.of(dict(args))


def _unpacked(end: End, elsewhere: bool) -> End:
    """The end with its error; one of a user's class is not unpickled if it comes from another process."""
    if not isinstance(end, End):  # a child's own code has said so
        return End(DIED)
    error = None
    with contextlib.suppress(Exception):  # of a class that fails when it is opened
        error = None if end.error is None else opaque_error(end.error, elsewhere)
        if isinstance(error, OpaqueError) and error.type_name == _OWN_ERROR:
            error = opaque_error(end.error, False)
    return End(plain(end.reason), end.traceback if isinstance(end.traceback, str) else "", error)


_WORDS = frozenset({events.Began, events.Ignored, events.Refused, events.Leaving, events.Remembered})
"""What a child says of itself."""

_EFFECTS: dict[type, Callable[[Supervisor, Any], None]] = {
    events.Start: Supervisor._start,
    events.Terminate: Supervisor._terminate,
    events.Kill: Supervisor._kill,
    events.Timer: Supervisor._timer,
    events.Answer: Supervisor._answer,
    events.Report: Supervisor._tell_of,
    events.Ready: Supervisor._ready,
    events.Exit: Supervisor._exit,
}


_REPORTS = {
    "terminated": (logging.WARNING, "ended"),
    "start_failed": (logging.WARNING, "did not start"),
    "stop_failed": (logging.WARNING, "did not stop as told"),
    "restarted": (logging.WARNING, "was restarted after it ended"),
    "gave_up": (logging.ERROR, "was restarted too often and is given up; it ended"),
}
_REPORTED = {"restarted": "supervisor.restarted", "gave_up": "supervisor.gave_up"}

Telemetry = tuple[str, dict[str, Any], dict[str, Any]]


def log_report(supervisor: Any, report: Report) -> Telemetry | None:
    """Log a crash report.

    Args:
        supervisor: how the supervisor is called.
        report: what the machine reports.

    Returns:
        Name, measurements and metadata of the event that goes with it, if one does.
    """
    level, what = _REPORTS[report.kind]
    process = "" if report.pid is None else f" (pid {report.pid})"
    text = f"supervisor {supervisor!r}: child {reprlib.repr(report.id)}{process} {what}: {report.end.reason}"
    window = f"; {report.window} restart(s) of at most {report.limit} within {report.period:g} s"
    traceback = "" if report.kind == "restarted" else report.end.traceback.rstrip()  # its end was told with it
    trace = f"\n{traceback}" if traceback else ""
    _log.log(level, "%s%s%s", text, window, trace)
    name = _REPORTED.get(report.kind)
    if name is None:
        return None
    metadata = {
        "supervisor": supervisor,
        "child": plain(report.id),
        "pid": report.pid,
        "reason": str(report.end.reason),
    }
    return name, {"restarts": report.window}, metadata
