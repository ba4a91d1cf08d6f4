"""The ways back to the caller of a shared pool: by channel or by Thespian message.

Each is the call's ref in the core: two of one call are equal, so that it can be cancelled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from actorpool._protocol.shared import OpaqueReply, OpaqueResult
from actorpool.messages import Err
from actorpool.process import Caller
from actorpool.transport import frames
from actorpool.transport.server import ServerConn


class ChannelCall(NamedTuple):
    """Waits for a `RESULT` or `ERROR` frame of that ref."""

    peer: ServerConn
    ref: int

    def answer(self, error: BaseException) -> None:
        """The call has failed."""
        self.peer.send(frames.ERROR, self.ref, frames.dump_error(error))

    def deliver(self, reply: OpaqueResult) -> None:
        """Pass the worker's answer on."""
        self.peer.send(frames.ERROR if reply.failed else frames.RESULT, self.ref, reply.data)

    def lend(self, reply: OpaqueResult, loan: int, seal: int, pid: int, methods: bytes) -> None:
        """Pass the worker's answer on, and say that the next calls may go straight to that worker."""
        self.peer.send(
            frames.LENT, self.ref, reply.data, frames.LOAN_HEAD.pack(loan, seal, pid, len(methods)) + methods
        )


class MessageCall:
    """Waits for an `Ok` or `Err` message of that ref."""

    __slots__ = ("address", "caller", "pool", "ref")

    def __init__(self, pool: Any, address: Any, ref: Any, caller: Caller) -> None:
        self.pool = pool
        self.address = address
        self.ref = ref
        self.caller = caller

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MessageCall) and (other.ref, other.caller) == (self.ref, self.caller)

    def __hash__(self) -> int:
        return hash(self.ref)

    def answer(self, error: BaseException) -> None:
        """The call has failed."""
        self.pool.send(self.address, Err(error, self.ref))

    def deliver(self, reply: OpaqueResult) -> None:
        """Pass the worker's answer on."""
        answer = OpaqueReply(reply, self.ref)
        self.pool.send(self.address, answer if self.pool.is_process else answer.open())
