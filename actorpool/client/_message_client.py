"""Asking by Thespian's messages from outside of actors: each answer goes to the request whose `ref` it repeats.

Thespian hands any message that reaches a context to the next listener, so each thread has a private context, and an
answer that comes after its request was given up is dropped. simpleSystemBase runs the actors in the thread that asks
and has one context for all: there the threads take turns.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from actorpool.client._at_fork import renewed
from actorpool.transport import client

FIRST_LOOK, LONGEST_LOOK = 0.1, 1.0
"""Seconds of silence after which it is asked whether an answer can still come; then longer, up to the second."""


class HasManager(Protocol):
    """Where a system is; see `client._node_client`."""

    def actor_system(self) -> Any:
        """Thespian's `ActorSystem` of this process for it."""

    def manager(self) -> Any:
        """The manager's present address."""


class _Context:
    """A private endpoint of one thread, closed when the thread ends."""

    def __init__(self, system: Any) -> None:
        self.system = system
        self.generation = client.generation
        self.busy = False
        self._entered = system.private()
        self.endpoint = self._entered.__enter__()

    def __del__(self) -> None:
        if self.generation == client.generation and hasattr(self, "endpoint"):
            try:
                self._entered.__exit__(None, None, None)
            except Exception:  # the system was shut down before its last thread ended
                pass


class _Shared:
    """The one context of simpleSystemBase."""

    def __init__(self, system: Any) -> None:
        self.system = self.endpoint = system
        self.generation = client.generation
        self.busy = False


class MessageClient:
    """Sends and asks, from any thread.

    Args:
        node_client: where the system is.
    """

    def __init__(self, node_client: HasManager) -> None:
        self.node_client = node_client
        self._here = threading.local()
        self._turns = renewed(self, "_turns", threading.RLock)
        self._later: deque[tuple[Any, Any]] = deque()

    def _context(self) -> _Context | _Shared:
        system = self.node_client.actor_system()
        context: _Context | _Shared | None = getattr(self._here, "context", None)
        if context is None or context.system is not system or context.generation != client.generation or context.busy:
            # busy: a signal handler or a finalizer broke into a request, whose answers it must not take
            inside = "simpleSystemBase" in type(system._systemBase).__module__
            fresh = _Shared(system) if inside else _Context(system)
            if context is not None and context.busy:
                return fresh
            context = self._here.context = fresh
        return context

    def tell(self, address: Any, message: Any) -> None:
        """Send a message that is not answered."""
        context = getattr(self._here, "context", None)
        if context is not None and context.busy:
            self._later.append((address, message))  # a finalizer in the middle of a request: right after it
            return
        self._send(self._context(), address, message)

    def _send(self, context: _Context | _Shared, address: Any, message: Any) -> None:
        if isinstance(context, _Shared):
            with self._turns:
                self._post(context, address, message)
        else:
            self._post(context, address, message)

    def _post(self, context: _Context | _Shared, address: Any, message: Any) -> None:
        from thespian.actors import ActorSystemFailure  # not at the top: Thespian is loaded only where it is used

        with suppress(ActorSystemFailure):  # a dead address says so on some bases only: on all it is silence
            context.endpoint.tell(address, message)

    def ask(
        self, address: Any, request: Any, timeout: float | None, lost: Callable[[], BaseException | None] | None = None
    ) -> Any:
        """Send a request and wait for its own answer, an `Ok` or `Err`; None when there is none in time.

        Args:
            address: whom to ask.
            request: a message with a `ref`.
            timeout: seconds; None waits for ever.
            lost: asked during silence: the error to raise if no answer can come any more.
        """
        context = self._context()
        if isinstance(context, _Shared):
            with self._turns:
                return self._exchange(context, address, request, timeout, lost)
        return self._exchange(context, address, request, timeout, lost)

    def _exchange(
        self,
        context: _Context | _Shared,
        address: Any,
        request: Any,
        timeout: float | None,
        lost: Callable[[], BaseException | None] | None,
    ) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        look = FIRST_LOOK
        done = False
        context.busy = True
        try:
            self._post(context, address, request)
            while True:
                left = look if deadline is None else min(look, deadline - time.monotonic())
                if left <= 0:
                    break
                answer = context.endpoint.listen(left)
                if answer is not None:
                    if getattr(answer, "ref", None) == request.ref:
                        done = True
                        return answer
                    continue
                look = min(look * 2, LONGEST_LOOK)
                error = None if lost is None else lost()
                if error is not None:
                    raise error
            done = True
            return None
        finally:
            context.busy = False
            if not done and isinstance(context, _Context):
                self._here.context = None  # interrupted, perhaps in the middle of a message: never used again
            while self._later:
                self._send(self._context(), *self._later.popleft())
