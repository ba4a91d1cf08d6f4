"""What a supervisor answers to requests of administration: OTP's eight calls, with OTP's answers.

A request comes from anywhere, with anything in it: it is looked at once, as it comes in. What only reads is answered at
once; what changes something is a plan and waits for its turn.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields
from typing import Any

from actorpool.core.supervisor.child_table import ChildTable
from actorpool.core.supervisor.children import Child, End, Spec, State, is_key
from actorpool.core.supervisor.plans import Steps
from actorpool.errors import SupervisorError
from actorpool.messages import (
    CountChildren,
    DeleteChild,
    GetChildSpec,
    RestartChild,
    StartChild,
    TerminateChild,
    WhereIs,
    WhichChildren,
)
from actorpool.status import ChildInfo, Counts


def start_error(child: Child, end: End, *, within: str | None = None) -> SupervisorError:
    """A child did not start; `within`: the word under which its supervisor ends because of that."""
    reason: Any = ("failed_to_start_child", child.spec.id, end.reason)
    why = end.error if isinstance(end.error, SupervisorError) else end.reason
    text = f"child {child.spec.id!r} did not start: {why}"
    facts = {"cause": end.error, "remote_traceback": end.traceback or None}
    return SupervisorError((within, reason) if within else reason, text, **facts)


def _unknown(id: Any) -> SupervisorError:
    text = f"no child {reprlib.repr(id)} is registered here; WhichChildren() lists those that are"
    return SupervisorError("not_found", text)


def _wrong_state(child: Child, word: str, advice: str) -> SupervisorError:
    return SupervisorError(word, f"child {child.spec.id!r} is {word}: {advice}")


def _nameless(what: str) -> SupervisorError:
    text = f"the children of a simple_one_for_one supervisor have no ids: {what}"
    return SupervisorError("simple_one_for_one", text)


class Requests:
    """Answers requests about the children of a `ChildTable`.

    Args:
        nursery: the children.
        initial: the specs that the supervisor was given; the only one is the template of `simple_one_for_one`.
        dynamic: the strategy is `simple_one_for_one`.
        admit: raises `SupervisorError` if its argument may not be given to `StartChild`.
        is_address: tells an actor's address from a child's id.
    """

    def __init__(
        self,
        child_table: ChildTable,
        initial: Sequence[Spec],
        dynamic: bool,
        admit: Callable[[Any], None],
        is_address: Callable[[Any], bool],
    ) -> None:
        self._child_table = child_table
        self._initial = initial
        self._dynamic = dynamic
        self._admit = admit
        self._is_address = is_address

    def problem(self, request: Any) -> SupervisorError | None:
        """Why a request cannot be handled; None if it can.

        The one step in which it fails for what is in it. What its plan raises later is an error of our own.
        """
        try:
            if isinstance(request, StartChild):
                self._admit(request.spec)
            if "id" in (item.name for item in fields(request)):
                is_key(request.id)
                self._find(request.id)
            return None
        except SupervisorError as error:
            return error
        except Exception as error:  # there is no such field, or its value raises when it is looked at
            what, why = type(request).__name__, type(error).__name__
            return SupervisorError(("badarg", what), f"{what}: its fields cannot be used: {why}")

    def reads(self, request: Any) -> bool:
        """Whether a request changes nothing."""
        return type(request) in _READS

    def read(self, request: Any) -> Any:
        """The answer to a request that reads; raises `SupervisorError`."""
        return _READS[type(request)](self, request)

    def change(self, request: Any) -> Steps[Any]:
        """The steps of a request that changes something; they give the answer or raise `SupervisorError`."""
        return _CHANGES[type(request)](self, request)

    def key_of(self, request: Any) -> Hashable:
        """The key of the child that a request is about; a new one where there is no such child."""
        if isinstance(request, StartChild):
            given = None if self._dynamic else getattr(request.spec, "id", None)
        else:
            child = self._find(request.id)
            given = child.key if child is not None else request.id
        return given if given is not None and is_key(given) else self._child_table.new_number()

    # -- requests that read ---------------------------------------------------------------------------------------

    def _which(self, _: WhichChildren) -> list[ChildInfo]:
        return [child.info() for child in reversed(self._child_table.children.values())]

    def _count(self, _: CountChildren) -> Counts:
        children = self._child_table.children.values()
        supervisors = sum(child.spec.type == "supervisor" for child in children)
        active = sum(child.state in (State.RUNNING, State.STOPPING) for child in children)
        specs = 1 if self._dynamic else len(children)
        return Counts(specs, active, supervisors, len(children) - supervisors)

    def _get_spec(self, request: GetChildSpec) -> Spec:
        if self._dynamic and not self._is_address(request.id):
            if is_key(request.id) and request.id in {self._initial[0].id}:
                return self._initial[0]
            raise _unknown(request.id)
        child = self._at(request.id) if self._is_address(request.id) else self._find(request.id)
        if child is None:
            raise _unknown(request.id)
        return child.spec

    def _where(self, request: WhereIs) -> Any:
        child = self._find(request.id)
        if child is None:
            raise _unknown(request.id)
        return child.info().address

    # -- requests that change -------------------------------------------------------------------------------------

    def _start(self, request: StartChild) -> Steps[Any]:
        if self._dynamic:
            child = self._child_table.register(self._child_table.new_number(), self._initial[0], request.spec)
        else:
            present = self._find(request.spec.id)
            if present is not None:
                raise self._taken(present)
            child = self._child_table.register(request.spec.id, request.spec)
        end = yield from self._child_table.start(child)
        if end is not None:
            self._child_table.forget(child)
            raise start_error(child, end)
        return child.info().address

    def _taken(self, child: Child) -> SupervisorError:
        if child.state is State.RUNNING:
            text = f"child {child.spec.id!r} is already running, as pid {child.pid}"
            return SupervisorError(("already_started", child.address), text)
        advice = "RestartChild(id) starts it, DeleteChild(id) makes room for another spec"
        return SupervisorError("already_present", f"child {child.spec.id!r} is registered and does not run: {advice}")

    def _terminate(self, request: TerminateChild) -> Steps[None]:
        if self._dynamic and not self._is_address(request.id):
            raise _nameless("terminate them by address")
        child = self._find(request.id)
        if child is not None:
            yield from self._child_table.stop([child])
            self._child_table.retire(child)
        elif not self._was_ours(request.id):
            raise _unknown(request.id)

    def _was_ours(self, address: Any) -> bool:
        return self._dynamic and any(address == former for former in self._child_table.former)

    def _restart(self, request: RestartChild) -> Steps[Any]:
        child = self._idle(request.id, "there is nothing to restart")
        if child.state is State.FAILED:
            child.intensity.clear()
        end = yield from self._child_table.start(child)
        if end is not None:
            raise start_error(child, end)
        return child.info().address

    def _delete(self, request: DeleteChild) -> Steps[None]:
        self._child_table.forget(self._idle(request.id, "terminate it first"))
        yield from ()

    def _idle(self, id: Any, advice: str) -> Child:
        """The child of that id, which must not run."""
        if self._dynamic:
            raise _nameless("they can only be started and terminated")
        child = self._find(id)
        if child is None:
            raise _unknown(id)
        if child.state in (State.RESTARTING, State.DEAD):
            raise _wrong_state(child, "restarting", "TerminateChild(id) ends its attempts")
        if child.state not in (State.STOPPED, State.FAILED):
            raise _wrong_state(child, "running", advice)
        return child

    # -- finding ----------------------------------------------------------------------------------------------------

    def _find(self, id: Any) -> Child | None:
        """By id; children that have none by address."""
        if self._dynamic:
            return self._at(id) if self._is_address(id) else None
        return self._child_table.children.get(id) if is_key(id) else None

    def _at(self, address: Any) -> Child | None:
        """By the present address, or by the last one while it is restarted."""
        for child in self._child_table.children.values():
            if child.address is not None and child.address == address:
                return child
        return None


_READS: dict[type, Callable[[Requests, Any], Any]] = {
    WhichChildren: Requests._which,
    CountChildren: Requests._count,
    GetChildSpec: Requests._get_spec,
    WhereIs: Requests._where,
}

_CHANGES: dict[type, Callable[[Requests, Any], Steps[Any]]] = {
    StartChild: Requests._start,
    TerminateChild: Requests._terminate,
    RestartChild: Requests._restart,
    DeleteChild: Requests._delete,
}

REQUESTS = frozenset(_READS) | frozenset(_CHANGES)
"""The types of message that a supervisor answers."""
