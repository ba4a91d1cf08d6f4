"""Thespian's sending, mended: a receiver that does not read delays what is sent to it, and nothing else.

An actor of Thespian 4.0.1 has at most 20 messages under way to all receivers together, and one that is not read is
under way for minutes. So twenty answers to one stopped caller silence the actor for all others. Here each receiver has
its own share, and what is beyond it waits with the actor.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from thespian.system.transport import SendStatus

AT_ONCE = 4
"""Messages under way to one receiver."""
IN_ALL = 100
"""Messages under way from an actor; more receivers that do not read than a share each of these do hold it up."""
KEPT = 1000
"""Messages that wait for one receiver; more are dropped, as Thespian drops what is beyond such a number in all."""


def share_sending(manager: Any) -> None:
    """Mend the sending of one actor.

    Args:
        manager: Thespian's side of an actor that has a process of its own.
    """
    if "_send_intent_to_transport" in vars(manager):
        return  # done by the host of this actor
    manager._awaitingAddressUpdate = _Unaddressed()
    manager.shares = _Shares(manager._send_intent_to_transport)
    manager._send_intent_to_transport = manager.shares.send
    transport = manager.transport
    transport._canSendNow = lambda: transport._aTB_numPendingTransmits < IN_ALL


class _Unaddressed:
    """Messages for children that have no address yet. Thespian looks for the child in a list of all of them, which
    takes a second of processor time where 200 are started together."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int], tuple[Any, list[Any]]] = {}

    def __iter__(self) -> Iterator[tuple[Any, list[Any]]]:
        return iter(self._waiting.values())

    def fmap(self, function: Callable[[Any], Any]) -> list[Any]:
        """Apply a function to each child and its messages, as Thespian does on SIGUSR1, to show an actor's state."""
        return [function(each) for each in self]

    def add(self, address: Any, intent: Any) -> None:
        """Keep a message until `address`, a local one, stands for a real one."""
        self._waiting.setdefault(_child(address), (address, []))[1].append(intent)

    def remove_intents_for_address(self, address: Any) -> list[Any]:
        """What was kept for it."""
        return self._waiting.pop(_child(address), (address, []))[1]


def _child(address: Any) -> tuple[str, int]:
    details = address.addressDetails
    return str(details.generatingActor), details.addressInstanceNum


class _Shares:
    """What is under way, and what waits, by receiver. Each receiver gets its messages in the order of sending."""

    def __init__(self, transmit: Any) -> None:
        self._transmit = transmit
        self._under_way: defaultdict[Any, int] = defaultdict(int)
        self._waiting: dict[Any, deque[Any]] = {}
        self._passing: set[Any] = set()

    def waits_for(self, receiver: Any) -> bool:
        """Whether something waits for that receiver to take what is under way to it."""
        return isinstance(receiver, Hashable) and receiver in self._waiting

    def send(self, intent: Any) -> None:
        """Instead of `_send_intent_to_transport`; with the same intent again once a child in it has its address."""
        receiver = intent.targetAddr.addressDetails
        if hasattr(intent, "shared") or not isinstance(receiver, Hashable):  # a child that has no address yet
            self._transmit(intent)
        elif self._under_way[receiver] < AT_ONCE and receiver not in self._waiting:
            self._begin(receiver, intent)
        elif len(waiting := self._waiting.setdefault(receiver, deque())) < KEPT:
            waiting.append(intent)
        else:
            intent.tx_done(SendStatus.Failed)

    def _begin(self, receiver: Any, intent: Any) -> None:
        self._under_way[receiver] += 1
        intent.shared = True

        def done(_status: Any, _intent: Any) -> None:
            self._ended(receiver)

        intent.addCallback(done, done)
        self._transmit(intent)

    def _ended(self, receiver: Any) -> None:
        self._under_way[receiver] -= 1
        if receiver in self._passing:
            return  # it ended at once: the call that has passed it on goes on
        self._passing.add(receiver)
        waiting = self._waiting.get(receiver)
        while waiting and self._under_way[receiver] < AT_ONCE:
            self._begin(receiver, waiting.popleft())
        self._passing.discard(receiver)
        if not waiting:
            self._waiting.pop(receiver, None)
        if not self._under_way[receiver]:
            del self._under_way[receiver]
