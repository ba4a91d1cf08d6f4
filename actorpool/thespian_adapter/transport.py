"""Thespian's transports, hardened: this user only, every message signed, every process tied to its parent.

Nothing of Thespian is patched: a class is made for each cookie, so two nodes in one process never share a key.
A message that was not signed with the cookie is never unpickled, is answered by nothing, and is counted.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from datetime import timedelta
from typing import Any

from thespian.actors import ActorAddress
from thespian.system.transport import ReceiveEnvelope
from thespian.system.transport.IPBase import UDPv4ActorAddress
from thespian.system.transport.streamBuffer import ReceiveBuffer, ackDataErrPacket, ackPacket, isControlMessage
from thespian.system.transport.TCPTransport import (
    ExternalTransportCopy,
    TCPEndpoint,
    TCPIncomingPersistent,
    TCPTransport,
)
from thespian.system.transport.UDPTransport import UDPEndpoint, UDPTransport, UDPTransportCopy

from actorpool import process
from actorpool._protocol.requests import Events
from actorpool.errors import MessageTooBig
from actorpool.thespian_adapter import unix
from actorpool.thespian_adapter.seal import SIGNATURE, ForgedMessageError, Seal
from actorpool.thespian_adapter.shell import UDP_ADVICE
from actorpool.transport import paths

log = logging.getLogger("actorpool")

LOOPBACK = "127.0.0.1"
LONGEST_SIZE = 11
"""Digits of the length before a message; more is not a message of ours."""
LONGEST_DATAGRAM = 65_507 - SIGNATURE
FORWARDING = 1024
"""Bytes less for senders outside: on its way through the actors a message grows."""
SHORT = 1024
"""Bytes that an acknowledgement never has."""
RETRY = timedelta(seconds=0.1)
"""Before a second try to send a message; twice that before the third, and so on, 21 times."""
LARGEST = 2**30
"""Bytes a message may announce; what is larger is not received at all."""


class _Hardened:
    """What both transports share. Made into a class of its own for each cookie by `transport_for`."""

    seal: Seal
    place: Any
    logging_tree: tuple[Any, Any]

    def prepEndpoint(self, address: Any, capabilities: Any) -> Any:  # noqa: N802
        """Tell the child, just before it is forked, which process to die with."""
        endpoint = super().prepEndpoint(address, capabilities)  # type: ignore[misc]
        endpoint.parent = (os.getpid(), self)
        return endpoint

    def setAddressManager(self, manager: Any) -> None:  # noqa: N802
        """Called once in each actor, right after Thespian has replaced the logging tree by a forwarder.

        The tree of the node is put back: an actor writes its own lines, so none is lost when it is killed and a flood
        of them does not block its messages.
        """
        super().setAddressManager(manager)  # type: ignore[misc]
        logging.root, logging.Logger.manager = self.logging_tree
        logging.Logger.root = logging.root


def _tie(endpoint: Any) -> None:
    """First thing in a forked process: die with the process that forked it, enforced by the kernel."""
    parent, transport = endpoint.parent
    if endpoint.addrInst is None:  # the admin: Thespian forks it twice, and the node, a subreaper, adopts it
        transport.close()  # else every actor would keep the node's own socket
        while process.CAN_LINK and os.getppid() != parent and process.alive(parent):
            time.sleep(0.0002)
    process.link_to_parent(parent)


class SignedStream(_Hardened, TCPTransport):  # type: ignore[misc]
    """Unix sockets of one directory; a connection that brings a forged message is closed without an answer."""

    directory: str
    first_message: Any = None
    """That of the child that is about to be forked, which finds it in its memory."""

    def prepEndpoint(self, address: Any, capabilities: Any) -> Any:  # noqa: N802
        """As above, with its first message, and its place: a child that dies at once has told it nobody."""
        endpoint = super().prepEndpoint(address, capabilities)
        endpoint.first_message = self.first_message
        endpoint.path = None
        if endpoint.addrInst is not None:
            endpoint.path = self._places[endpoint.addrInst] = unix.free_path(self.directory)
        return endpoint

    def __init__(self, init: Any, *args: Any) -> None:
        super(TCPTransport, self).__init__()  # Thespian's own makes a TCP socket; all else it does is below
        path = None
        if isinstance(init, TCPEndpoint):
            _tie(init)
            _number, address, self._parentAddr, self._adminAddr, _routing, _tx_only = init.args
            path = address.addressDetails.path if address is not None else init.path
        else:
            self._parentAddr, self._adminAddr = None, self.getAdminAddr()
        self.txOnly = False
        self.socket, self._path = unix.listen(self.directory, path)
        self._places: dict[int, str] = {}  # of children, by their numbers
        self._owner = os.getpid()
        self.myAddress = unix.address_of(self._path)
        self._transmitIntents: dict[int, Any] = {}
        self._waitingTransmits: list[Any] = []
        self._incomingSockets: dict[int, Any] = {}
        first = getattr(init, "first_message", None)
        self._incomingEnvelopes: list[Any] = [] if first is None else [ReceiveEnvelope(self._parentAddr, first)]
        self._finished_intents: list[Any] = []
        self._watches: list[int] = []
        self._openSockets: dict[Any, Any] = {}
        self._checkChildren = self._shutdownSignalled = False

    @classmethod
    def getAdminAddr(cls, _capabilities: Any = None) -> Any:  # noqa: N802
        """Where the admin listens."""
        return unix.address_of(cls.place)

    @staticmethod
    def probeAdmin(address: Any) -> bool:  # noqa: N802
        """Whether a process listens there."""
        return paths.is_served(address.addressDetails.path)

    def external_transport_clone(self) -> Any:
        """A private endpoint of the same node (`ActorSystem.private()`)."""
        return type(self)(ExternalTransportCopy())

    def new_socket(self, op: Any, *args: Any) -> Any:
        """Thespian's way to make a socket, which finds room for its descriptor."""
        return super().new_socket(unix.UnixSocket if op is socket.socket else op, *args)

    def deadAddress(self, manager: Any, child: Any) -> None:  # noqa: N802
        """A child is gone, and its socket has no owner any more."""
        super().deadAddress(manager, child)
        details = (manager.exportAddr(child) or child).addressDetails
        path = details.path if isinstance(details, unix.UnixAddress) else None
        for number, place in list(self._places.items()):
            if place == path or number == getattr(details, "addressInstanceNum", None):
                path = self._places.pop(number)
        if path is not None:
            unix.remove(path)

    def clear_places(self) -> None:
        """All children have ended: none of their sockets has an owner any more."""
        for place in self._places.values():
            unix.remove(place)

    unfolds = True

    def _processReceivedEnvelope(self, envelope: Any, has_exclusive_flag: bool = False) -> Any:  # noqa: N802
        """Events travel together and arrive one by one."""
        events = getattr(envelope.message, "events", None) if isinstance(envelope.message, Events) else None
        if not isinstance(events, tuple):
            return super()._processReceivedEnvelope(envelope, has_exclusive_flag=has_exclusive_flag)
        for event in events:
            super()._processReceivedEnvelope(ReceiveEnvelope(envelope.sender, event), has_exclusive_flag)
        return None

    def close(self) -> None:
        """Close every socket; Thespian leaves that to the garbage collector, which complains."""
        sockets = [getattr(self, "socket", None)]
        sockets += [idle.socket for idle in getattr(self, "_openSockets", {}).values()]
        sockets += [getattr(intent, "socket", None) for intent in getattr(self, "_transmitIntents", {}).values()]
        super().close()
        self._openSockets = {}
        for sock in sockets:
            if sock is not None:
                sock.close()
        if getattr(self, "_owner", None) == os.getpid():  # in a forked process it is the parent's
            unix.remove(self._path)

    def _scheduleTransmitActual(self, intent: Any, has_exclusive_flag: bool = False) -> None:  # noqa: N802
        """Thespian tries again after 35 s what a dying receiver has not taken; the second try says that it is dead."""
        intent.transmit_retry_period = RETRY
        super()._scheduleTransmitActual(intent, has_exclusive_flag=has_exclusive_flag)

    def serializer(self, intent: Any) -> bytes:
        """The bytes of a message: its length, its signature, itself."""
        return self._frame((self.myAddress, intent.message))

    def _frame(self, value: Any) -> bytes:
        data = self.seal.close(value)
        return b"%d>" % len(data) + data

    def _handleReadableIncoming(self, inc: Any, has_exclusive_flag: bool = False) -> Any:  # noqa: N802
        pending = super()._handleReadableIncoming(inc, has_exclusive_flag=has_exclusive_flag)
        if pending is None:
            return None
        size, buffer = pending._rData._size, pending._rData._buf
        if (size is None and len(buffer) > LONGEST_SIZE) or (size is not None and not SIGNATURE < size <= LARGEST):
            self.seal.refuse("no message at all")
            pending.close()
            return None
        if size is not None and _has_more(pending.socket):
            return super()._handleReadableIncoming(pending, has_exclusive_flag=has_exclusive_flag)
        return pending

    def _addedDataToIncoming(self, inc: Any, skipFinish: bool = False, has_exclusive_flag: bool = False) -> Any:  # noqa: N802, N803
        """Thespian's own steps, with verification first and signed acknowledgements."""
        if not inc.receivedAllData():
            return inc
        inc._rData._deserialize = self.seal.open
        try:
            value, extra = inc.data
            if isControlMessage(value):
                raise ValueError("an acknowledgement that nobody waits for")
            envelope = ReceiveEnvelope(*value)
        except ForgedMessageError:
            self.seal.refuse("wrong signature")
            inc.close()
            return None
        except Exception as error:  # signed, but it cannot be rebuilt here: the sender is told, as by Thespian
            log.warning("a message could not be unpickled: %s: %s", type(error).__name__, error)
            self._acknowledge(inc, ackDataErrPacket)
            inc.close()
            return None
        self._acknowledge(inc, ackPacket)
        inc.fromAddress = value[0]
        self._processReceivedEnvelope(envelope, has_exclusive_flag=has_exclusive_flag)
        if extra:
            following = TCPIncomingPersistent(inc.fromAddress, inc.socket, ReceiveBuffer())
            following.addData(extra)
            return self._addedDataToIncoming(following, has_exclusive_flag=has_exclusive_flag)
        if not skipFinish:
            self._finishIncoming(inc, envelope.sender)
        return None

    def _acknowledge(self, inc: Any, packet: str) -> None:
        try:
            inc.socket.send(self._frame(packet))
        except OSError as error:
            log.debug("the sender left before its message was acknowledged: %s", error)

    def _check_XMIT_4_done(self, intent: Any, received: bytes) -> Any:  # noqa: N802
        """An acknowledgement (or a message that crossed ours) has arrived, in part or whole."""
        intent.ackbuf._deserialize = self.seal.open
        if received and intent.ackbuf.is_empty():
            received += _rest(intent.socket, received)
        try:
            return super()._check_XMIT_4_done(intent, received)
        except ForgedMessageError:
            self.seal.refuse("a forged acknowledgement")
            intent.backoffPause(True)
            intent.stage = self._XMITStepRetry
            return self._nextTransmitStep(intent)


# Thespian reads the length of a message by itself and goes round its loop before it reads on, which costs more than all
# the rest of a small message. These two read on at once, and never beyond the message.


def _has_more(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def _rest(sock: socket.socket, first: bytes) -> bytes:
    """What has arrived of an acknowledgement of which these are the first bytes."""
    size, mark, begun = first.partition(b">")
    if not mark or not size.isdigit() or len(size) > LONGEST_SIZE or not 0 < int(size) - len(begun) <= SHORT:
        return b""
    try:
        return sock.recv(int(size) - len(begun), socket.MSG_DONTWAIT)
    except OSError:
        return b""


class SignedUDP(_Hardened, UDPTransport):  # type: ignore[misc]
    """UDP on loopback; a datagram that is not signed is as if it had never come."""

    def __init__(self, init: Any, *args: Any) -> None:
        if isinstance(init, UDPEndpoint):
            _tie(init)
            number, address, parent, admin = init.args
        else:
            admin = self.getAdminAddr()
            number = address = parent = None
        super().__init__(UDPEndpoint(number, address or _udp(0), parent, admin))
        # Thespian's own socket may share its port: to sockets that are bound with SO_REUSEADDR the kernel hands out
        # ports that others of the kind have, and each message goes to one of the two. So it is bound anew.
        plain: socket.socket = self.socket
        port = plain.getsockname()[1] if address else 0
        plain.close()
        longest = LONGEST_DATAGRAM - (0 if isinstance(init, UDPEndpoint) else FORWARDING)
        self.socket: socket.socket = _SignedDatagrams(self.seal, port, longest)
        self.myAddress = _udp(self.socket.getsockname()[1])

    @classmethod
    def getAdminAddr(cls, _capabilities: Any = None) -> Any:  # noqa: N802
        """Where the admin listens."""
        return _udp(cls.place)

    def external_transport_clone(self) -> Any:
        """A private endpoint of the same node (`ActorSystem.private()`)."""
        return type(self)(UDPTransportCopy())

    def __del__(self) -> None:
        self.close()  # as the TCP transport does: Thespian closes no private context that an exception ends

    def interrupt_wait(self, signal_shutdown: bool = False, check_children: bool = False) -> None:
        """Wake up for a signal. Thespian stops telling deaths of children, and requests to end, after ten in a row."""
        self._interruptWaitCounter = 0
        super().interrupt_wait(signal_shutdown=signal_shutdown, check_children=check_children)


class _SignedDatagrams(socket.socket):
    """A socket of loopback that signs what it sends and gives nothing but what was signed."""

    def __init__(self, seal: Seal, port: int, longest: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.bind((LOOPBACK, port))
        self._seal = seal
        self._longest = longest

    def sendto(self, data: Any, address: Any) -> int:  # type: ignore[override]
        """Sign and send.

        Raises:
            MessageTooBig: it is more than a datagram.
        """
        if len(data) > self._longest:
            raise MessageTooBig(f"a message of {len(data):,} bytes does not fit into the UDP base: {UDP_ADVICE}")
        return super().sendto(self._seal.signed(data), address)

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, Any]:
        """What was signed; nothing (which Thespian drops as no message) for a forgery."""
        data, sender = super().recvfrom(size, flags)
        try:
            return bytes(self._seal.verified(data)), sender
        except ForgedMessageError:
            self._seal.refuse("wrong signature")
            return b"", sender


def _udp(port: Any) -> Any:
    return ActorAddress(UDPv4ActorAddress(LOOPBACK, port))


_TRANSPORTS = {"multiprocTCPBase": SignedStream, "multiprocUDPBase": SignedUDP}


def free_place(base: str, directory: str) -> str | int:
    """Where an admin can listen: a socket's path for the TCP base, a port of loopback for the UDP base.

    Args:
        base: Thespian's name of the system base.
        directory: the runtime directory of the node.
    """
    if base == "multiprocTCPBase":
        return unix.free_path(directory)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def transport_for(base: str, place: str | int, cookie: bytes) -> type:
    """A transport class of its own for one node.

    Args:
        base: Thespian's name of the system base.
        place: where its admin listens, as of `free_place`.
        cookie: the key its messages are signed with.
    """
    cls = _TRANSPORTS[base]
    values = {"seal": Seal(cookie), "place": place, "logging_tree": (logging.root, logging.Logger.manager)}
    if isinstance(place, str):
        values["directory"] = os.path.dirname(place)
    return type(cls.__name__, (cls,), values)


def address_at(place: str | int) -> Any:
    """The `ActorAddress` of the actor that listens there."""
    return unix.address_of(place) if isinstance(place, str) else _udp(place)


def place_of(address: Any) -> str | int:
    """Where an actor listens: the path of its socket, or its port of loopback."""
    details = address.addressDetails
    return details.path if isinstance(details, unix.UnixAddress) else int(details.sockname[1])
