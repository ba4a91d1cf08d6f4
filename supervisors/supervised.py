"""What an actor adds to take part in a supervision tree: an `init` that can fail, and ends with a reason.

Mixed in before the actor class: `class Planner(Supervised, Actor)`. Works with a plain `receiveMessage` and with
`ActorTypeDispatcher`. Everything here runs in the actor's own process; without a supervisor above, it does no harm.
"""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Callable
from typing import Any

from actorpool import _scrubbing
from actorpool.core.supervisor.children import NORMAL, End
from actorpool.core.supervisor.events import Began, Leaving, Refused, Remembered
from actorpool.errors import SupervisorError
from actorpool.serialization.exceptions import description_of
from actorpool.serialization.pickling import Pickled
from actorpool.thespian_adapter.shell import ActorAddress, ActorExitRequest
from actorpool.transport import frames


class _Word:
    """A value that is compared by identity, also after a journey."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return self._name


IGNORE = _Word("IGNORE")
"""Returned by `init`: there is nothing to run; keep the spec (unless it is temporary) and go on without."""

LATER = _Word("LATER")
"""Returned by `init`: not up yet; `started()` or `start_failed(error)` will follow."""


class Supervised:
    """The part of an actor that its supervisor talks to.

    Attributes:
        parent: the supervisor's address; None for an actor that has none.
        child_id: the id of its spec.
    """

    parent: Any = None
    child_id: Any = None
    _token = 0
    _left = False
    _report: Callable[[Any], None] | None = None

    def init(self, *values: Any, **args: Any) -> Any:
        """Become ready; override it with the keyword arguments that the spec's `args` give.

        Called once, before any message, in the actor's own process; the supervisor's next child is started only
        after it. `self.send`, `self.createActor` and the rest of Thespian can be used.

        Returns:
            Nothing of interest, or `IGNORE`, or `LATER`.

        Raises:
            Exception: the start failed, for that reason.
        """
        if values or args:
            name = type(self).__name__
            raise TypeError(f"the spec gives args ({', '.join(args)}) to {name}: define init(self, {', '.join(args)})")

    def started(self) -> None:
        """After `LATER`: ready now."""
        self._tell(Began(self._token))

    def start_failed(self, error: BaseException) -> None:
        """After `LATER`: will not become ready. The supervisor ends this actor."""
        self._left = True
        self._tell(Refused(self._token, end_of(error)))

    def stop(self, reason: Any = NORMAL) -> None:
        """End this actor, after the message at hand. Later messages are not delivered any more.

        Args:
            reason: `"normal"` and `"shutdown"` are ordinary ends; with any other, which may be an exception, the
                supervisor restarts a transient child, too.
        """
        self._leave(end_of(reason) if isinstance(reason, BaseException) else End(plain(reason)))

    def exit_with(self, reason: Any, text: str = "") -> None:
        """As `stop`, with a traceback as text."""
        self._leave(End(plain(reason), text))

    def remember(self, **args: Any) -> None:
        """Have `init` called with these over the arguments of the spec whenever this child is restarted.

        The supervisor keeps them, so they outlive a `kill -9` of this process. Each call replaces what an earlier one
        said.
        """
        self._tell(Remembered(self._token, Pickled.of(args)))

    def crashed(self, error: Exception, message: Any) -> None:
        """An exception left `receiveMessage`: end abnormally. The message is not delivered a second time."""
        end = end_of(error)
        self._leave(end._replace(traceback=f"while it handled a {type(message).__name__}\n{end.traceback}"))

    def _leave(self, end: End) -> None:
        if self._left:
            return
        self._left = True
        if self._report is None:
            self.send(self.myAddress, ActorExitRequest())  # type: ignore[attr-defined]
        else:  # the supervisor answers with the request to end: so the reason always arrives before the death
            self._tell(Leaving(self._token, end))

    def _tell(self, event: Any) -> None:
        if self._report is not None:
            self._report(event)


def end_of(error: BaseException) -> End:
    """How something ended that ended by an exception; `error` is packed, for the journey."""
    text = getattr(error, "remote_traceback", None) or "".join(traceback.format_exception(error))
    return End(_scrubbing.scrub_value(reason_of(error)), _scrubbing.scrub(text), Pickled(frames.dump_error(error)))


def reason_of(error: BaseException) -> Any:
    """The reason of an end by that exception."""
    if isinstance(error, SupervisorError):
        return plain(error.reason)
    return description_of(error)


def plain(reason: Any) -> Any:
    """A reason as it can be told everywhere: words, numbers and addresses, tuples of them, the rest as text.

    A supervisor compares reasons and writes them down; an object of a user's class may do anything then.
    """
    if reason is None or type(reason) in (str, int, float, bool) or isinstance(reason, ActorAddress):
        return reason
    if type(reason) is tuple:
        return tuple(map(plain, reason))
    return reprlib.repr(reason)
