"""What goes over the channel: frames, their kinds and fixed bodies. Exceptions go as `exceptions` packs them.

A frame is `HEADER` (length of the body, kind, ref) and the body. Kinds are plain ints because both ends compare them
in their hottest loop. What arrives is split by `connection` and `client`. docs/architecture.md lists the sender and
receiver of each.
"""

from __future__ import annotations

import struct

from actorpool._choices import LONGEST_MESSAGE as LONGEST
from actorpool._choices import MAX_MESSAGE
from actorpool.errors import MessageTooBig
from actorpool.serialization import pickling
from actorpool.serialization.exceptions import dump_error, load_error

HEADER = struct.Struct("!IBQ")
"""Length of the body, kind, ref."""
GRANT_BODY = struct.Struct("!QIIBQ")
"""Lease id, worker id, worker pid, flags, seal of the lease (see `seals`); of a keyed one, why the last state of its
key is gone follows, if that is known."""
CALL_HEAD = struct.Struct("!QBQ")
"""Lease id, flags, seal of the lease; a pickle of (method name or function, args, kwargs) follows."""
END_BODY = struct.Struct("!Q")
"""Seal of the lease."""

SHARED_HEAD = struct.Struct("!dII")
"""Timeout in seconds (infinite: none), lengths of two pickles: of (resource, method) and of `where` (0: none). A pickle
of (method, args, kwargs) follows them."""
OUTCOME = struct.Struct("!Bdd")
"""Flags, cooldown in seconds, seconds that the call ran; the value or the exception follows."""
LOAN_HEAD = struct.Struct("!QQII")
"""Number of the loan, its seal, pid of the worker, length of a pickle of its methods; that, and the value of the call,
follow."""

CHECKOUT, CANCEL, CHECKIN, ABANDON, ASK, GRANT, REPLY, ERROR, CALL, END, RESULT, NOT_STARTED, CONTROL = range(1, 14)
SHARED, PERFORM, PERFORMED, LENT, ROUTED, USE_LOCAL, PARK = range(14, 21)

LAST = 1
"""Flag of a call: the lease ends with it."""
CHECK_FIRST = 2
"""Flag of a grant, passed on with the first call: the worker was idle for long, check before use."""
FUNCTION = 4
"""Flag of a call: the first item of the pickle is a function that gets the connection, not a method's name."""
TURN = 8
"""Flag of a grant, passed on with every call: the lease is a turn in a sandbox, and its end is not the sandbox's."""

STICKY = 16
"""Flag of a grant: the lease is sticky. Of a call: it is one use of a sticky lease, and the lease goes on."""
KEYED = 32
"""Flag of a grant, passed on with every call: what the lease leaves in its worker is kept for the next of its key."""
CONTINUED = 64
"""Flag of a keyed grant, passed on with every call: the worker has what the lease before it has left."""

EMPTY, EMPTY_AND_TOLD = b"\0", b"\1"
"""The body of a `CHECKIN` of a fresh keyed lease under which nothing has run, so that the next one of its key is fresh
as well; and its caller was told why what there was of the key is gone."""

AT_ONCE, AHEAD = b"\0", b"\1"
"""The first byte of a `PERFORM` frame's body: nothing is before it, or it is sent while another call runs."""
FAILED = 1
"""Flag of an outcome: an exception follows."""
CLOSE = 2
"""Flag of an outcome: the connection is done."""


class BadFrame(Exception):
    """A frame is not what its kind says, or its sender may not send it. The sender's connection is closed."""


def frame(kind: int, ref: int, body: bytes = b"") -> bytes:
    """A whole frame of a small body."""
    return HEADER.pack(len(body), kind, ref) + body


def too_big(size: int, limit: int, what: str) -> MessageTooBig:
    """The error of a body beyond the limit; `what` names it ("the result", "the arguments")."""
    return MessageTooBig(
        f"{what} take {size} bytes, more than max_message ({limit}): send less at once, or pass a file's name",
        size=size,
        limit=limit,
    )


__all__ = [
    "ABANDON",
    "AHEAD",
    "ASK",
    "AT_ONCE",
    "CALL",
    "CALL_HEAD",
    "CANCEL",
    "CHECKIN",
    "CHECKOUT",
    "CHECK_FIRST",
    "CLOSE",
    "CONTINUED",
    "CONTROL",
    "END",
    "END_BODY",
    "ERROR",
    "FAILED",
    "FUNCTION",
    "GRANT",
    "GRANT_BODY",
    "HEADER",
    "KEYED",
    "LAST",
    "LENT",
    "LOAN_HEAD",
    "LONGEST",
    "MAX_MESSAGE",
    "NOT_STARTED",
    "OUTCOME",
    "PARK",
    "PERFORM",
    "PERFORMED",
    "REPLY",
    "RESULT",
    "ROUTED",
    "SHARED",
    "SHARED_HEAD",
    "STICKY",
    "TURN",
    "USE_LOCAL",
    "BadFrame",
    "dump_error",
    "frame",
    "load_error",
    "too_big",
]  # fmt: skip


EXPIRED = pickling.dumps(("expired", None))


def unavailable(error: Exception) -> bytes:
    try:
        return pickling.dumps(("unavailable", dump_error(error)))
    except Exception:  # a cause that cannot travel is told by its text
        return pickling.dumps(("unavailable", dump_error(ConnectionError(str(error)))))
