"""What the decisions of a shared pool ask its shell to do, beside `core.effects`; and what is kept of a connection."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from actorpool.core.shared.records import Call, Loan


class Kept(NamedTuple):
    """What is kept of a connection when its pool ends: enough to bring it back."""

    id: int
    spec: Any
    resource: Hashable
    extra: Any
    ttl: float | None
    revive: bool | str
    penalties: Sequence[float] | None = None


class Run(NamedTuple):
    """Have the worker run the call; its answer names `call.number`. `ahead`: after what it has got already."""

    worker: int
    call: Call
    ahead: bool = False


class Deliver(NamedTuple):
    """Pass the worker's own answer, unopened, on to the caller of `call`; with a loan, if it gets one."""

    call: Call
    reply: Any
    loan: Loan | None = None


class Interrupt(NamedTuple):
    """Interrupt the call of that number, if the worker still runs it."""

    worker: int
    number: int


class Log(NamedTuple):
    """A line for the log; `level` is `"info"`, `"warning"` or `"error"`."""

    level: str
    text: str
