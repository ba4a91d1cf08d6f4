"""Client → pool: requests about the sandboxes of `actorpool.testing`, by `ASK` or as Thespian messages."""

from __future__ import annotations

from actorpool._dataclass import dataclass
from actorpool.messages import Checkout, Request
from actorpool.process import Caller

OUTSIDE = ""
"""What a checkout names as its sandbox when it wants a worker of its own, also in a process that is a guest of one."""


@dataclass(frozen=True)
class CheckoutIn(Checkout):
    """A checkout that says in which sandbox it wants a turn, by message."""

    sandbox: str = OUTSIDE


@dataclass(frozen=True)
class OpenSandbox(Request):
    """Make the lease a sandbox, known by `key` to callers that ask for a turn in it."""

    key: str
    lease: int


@dataclass(frozen=True)
class Allow(Request):
    """Let every call of `process` into the sandbox until it is over."""

    key: str
    process: Caller


@dataclass(frozen=True)
class CloseSandbox(Request):
    """End the sandbox; answered when its worker is pristine, with everything rolled back."""

    key: str
