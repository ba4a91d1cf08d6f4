"""The worker processes of a pool as the shell knows them: address, pid, death watch, control connection.

Decides nothing: the core says which worker, the crew knows how to reach it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import itertools
import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

from actorpool import _output, _scrubbing, process
from actorpool._output import Output
from actorpool._protocol.orders import Init
from actorpool.pools.last_words import LastWords
from actorpool.pools.worker_ids import WorkerIds
from actorpool.serialization import pickling
from actorpool.supervisors.ending import end_processes
from actorpool.thespian_adapter.shell import Shell, drop_connection, log
from actorpool.transport import frames, inherited, paths, seals
from actorpool.transport.server import ChannelServer, ServerConn
from actorpool.workers.actor import INTERRUPT, WorkerActor

GREETED_AFTER = 0.5
"""Seconds after which Thespian's greeting of a new worker should have come."""
LOOK_AGAIN = 0.05
"""Seconds until a stream that took nothing is looked at again."""


class WorkerHandle:
    """One worker process. `pid` is None where actors have no process of their own.

    `place`: a number that it shares with no other that stays; its successor has the same. `since`: Unix time.
    `words`: what it wrote last to its standard error. `outputs`: the pipes by which it is heard.
    `key`: seals its leases. `seal`: what proves to the worker that a lease (or loan) is one of its own.
    `killed`: by its pool, which it did not answer.
    `called`: a call was sent. `mixed`: something was ordered after it, so what is unread need not be the call.
    """

    __slots__ = (
        "address", "called", "fd", "id", "key", "killed", "mixed", "outputs", "peer", "pid", "place", "seal", "since",
        "stays", "tells_stacks", "words",
    )  # fmt: skip

    def __init__(self, id: int, place: int) -> None:
        self.id = id
        self.place = place
        self.since = time.time()
        self.stays = True
        self.tells_stacks = False
        self.address: Any = None
        self.pid: int | None = None
        self.peer: ServerConn | None = None
        self.fd: int | None = None
        self.outputs: list[Output] = []
        self.words = LastWords()
        self.key = seals.new_key()
        self.seal = seals.sealer(self.key)
        self.called = self.mixed = self.killed = False


class WorkerHandles:
    """All worker processes of one pool.

    Args:
        actor: the pool actor, their parent.
        server: its channel (None: messages only).
        directory: where the workers' sockets are.
        on_death: called with a worker id once its process is gone.
        kind: the actor class of the workers.
    """

    def __init__(
        self,
        actor: Shell,
        server: ChannelServer | None,
        directory: str | None,
        on_death: Any,
        kind: type[WorkerActor] = WorkerActor,
    ) -> None:
        self._actor = actor
        self._server = server
        self._directory = directory
        self._on_death = on_death
        self._kind = kind
        self._hands: dict[int, WorkerHandle] = {}
        self.secretive = False
        """Whether the workers know secrets, so that what they print is looked through."""
        self._departed: tuple[int, int | None] = (0, None)
        self._ungreeted: set[int] = set()  # those that serve before Thespian's greeting of them has come
        path = None if directory is None else paths.ids(directory, getattr(actor, "name", "?"))
        self._ids = WorkerIds(actor, path, lambda: sorted(self._hands))

    def hand(self, id: int) -> WorkerHandle:
        """The worker of that id; raises KeyError when it is gone."""
        return self._hands[id]

    def find(self, id: Any) -> WorkerHandle | None:
        """The worker of that id, whatever it is; None when there is none."""
        return self._hands.get(id) if type(id) is int else None

    def pid(self, id: int) -> int | None:
        """The worker's pid, if it has one and is there."""
        hand = self._hands.get(id)
        return hand.pid if hand is not None else None

    def with_pid(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """What is told of a worker, with its pid; also of the one that has just gone."""
        id = metadata.get("worker")
        if type(id) is not int:
            return metadata
        return {**metadata, "pid": self._departed[1] if id == self._departed[0] else self.pid(id)}

    @property
    def pids(self) -> dict[int, int | None]:
        """Worker id to pid."""
        return {hand.id: hand.pid for hand in self._hands.values()}

    def __iter__(self) -> Iterator[WorkerHandle]:
        return iter(list(self._hands.values()))

    def start(self, id: int, init: Init, requirements: Any) -> None:
        """Create the worker's process, with its first message and a key of its own."""
        taken = {hand.place for hand in self._hands.values() if hand.stays}
        place = next(number for number in itertools.count(1) if number not in taken)
        hand = WorkerHandle(id, place)
        hand.outputs = self._listen(id, hand.words)
        first = dataclasses.replace(init, key=hand.key)
        with _output.of_forks(hand.outputs), self._control() as control:
            hand.address, hand.pid = self._actor.spawn(self._kind, requirements, first)
        self._hands[id] = hand
        self._ids.changed()
        if hand.pid is None:  # nothing was forked that could write: its descriptors are for what lives
            self._close(hand.outputs)
            hand.outputs = []
            if control is not None:
                control.close()
            return
        if self._server is not None and control is not None:
            hand.peer = self._server.adopt(control, hand.pid)
            hand.peer.state = hand
        self._watch(hand)

    def _control(self) -> contextlib.AbstractContextManager[socket.socket | None]:
        return contextlib.nullcontext() if self._server is None else inherited.across_fork()

    def _listen(self, id: int, words: LastWords) -> list[Output]:
        """What is to hear the next worker: its last words always; all that it prints if that goes to the log, or if
        a secret may be in it."""
        server, logged = self._server, _output.mode == "log"
        if server is None:
            return []
        name = getattr(self._actor, "name", "?")

        def note(line: str) -> None:
            log.info("worker %s of pool %s: %s", id, name, line)

        def complain(line: str) -> None:
            line = _scrubbing.scrub(line)
            words.add(line)
            if logged:
                note(line)
            else:
                _output.write(2, line)

        hearers = {2: complain}
        if logged:
            hearers[1] = note
        elif self.secretive:
            hearers[1] = lambda line: _output.write(1, _scrubbing.scrub(line))
        outputs: list[Output] = []
        try:
            for descriptor, tell in hearers.items():
                outputs.append(Output(descriptor, tell))
        except OSError:  # no descriptors are left: that no process starts without them tells the cause
            for output in outputs:
                os.close(output.writer)
                output.close()
            return []
        for output in outputs:
            server.watch(output.reader, functools.partial(self._hear, output))
        return outputs

    def _hear(self, output: Output, _reader: int) -> None:
        """Take lines in; what goes to a stream that takes nothing now waits in the pipe, and so does its worker."""
        server = self._server
        if server is None or not output.open:
            return
        if _output.mode != "log" and not _output.writable(output.descriptor):
            server.unwatch(output.reader)
            self._actor.set_timer(LOOK_AGAIN, lambda: self._watch_again(output))
        elif not output.read(1 << 16 if _output.mode == "log" else _output.PART // 2):
            server.unwatch(output.reader)

    def _watch_again(self, output: Output) -> None:
        if output.open and self._server is not None:
            self._server.watch(output.reader, functools.partial(self._hear, output))

    def _watch(self, hand: WorkerHandle) -> None:
        if self._server is None or hand.pid is None:
            return
        try:
            hand.fd = process.watch_descriptor(hand.pid)
        except ProcessLookupError:
            return  # Thespian tells this death
        if hand.fd is not None:
            self._server.watch(hand.fd, lambda _fd: self._on_death(hand.id))

    def is_up(self, id: int, pid: int) -> None:
        """The worker has started, in the process of that pid."""
        hand = self._hands.get(id)
        if hand is None:
            return
        hand.tells_stacks = pid != os.getpid()
        if hand.pid is None and pid != os.getpid():
            hand.pid = pid
            self._watch(hand)

    def settled(self, id: int) -> None:
        """The worker is heard by the channel: messages are needed no more, nor is the connection they came by."""
        hand = self._hands.get(id)
        if hand is None or hand.peer is None or drop_connection(self._actor, hand.address):
            return
        if not self._ungreeted:
            self._actor.set_timer(GREETED_AFTER, self._settle)
        self._ungreeted.add(id)

    def _settle(self) -> None:
        ids, self._ungreeted = self._ungreeted, set()
        for id in ids:
            self.settled(id)

    def tell(self, id: int, message: Any) -> None:
        """Send an order, by the control connection where there is one."""
        hand = self._hands.get(id)
        if hand is None:
            return
        hand.mixed = hand.called
        if hand.peer is None:
            self._actor.send(hand.address, message)
        elif hand.peer.open:
            hand.peer.send(frames.CONTROL, 0, pickling.dumps(message))
        else:  # its end is closed, its death is about to be told: this order is never read
            hand.peer.refused = True

    def call(self, id: int, message: Any) -> None:
        """Send a call; `unread` can tell what became of it."""
        hand = self._hands.get(id)
        if hand is not None:
            hand.called = False
            self.tell(id, message)
            hand.called = True

    def interrupt(self, id: int) -> None:
        """Break into the call that the worker runs."""
        process.send_signal(self.pid(id), INTERRUPT)

    def stop(self, id: int) -> None:
        """Ask the worker's process to end."""
        hand = self._hands.get(id)
        if hand is not None:
            self._vacate(id)
            self._actor.end_child(hand.address)

    def _vacate(self, id: int) -> None:
        if id in self._hands:
            self._hands[id].stays = False

    def kill(self, id: int) -> None:
        """SIGKILL the worker's process; a worker without one is asked to end."""
        self._vacate(id)
        if (hand := self._hands.get(id)) is not None:
            hand.killed = True
        if not process.kill(self.pid(id)):
            self.stop(id)

    def unread(self, id: int) -> bool:
        """Whether the kernel says that a dead worker has not read its last call: unread data at its end is a reset."""
        hand = self._hands.get(id)
        if hand is None or hand.peer is None or hand.mixed:
            return False
        return hand.peer.refused or (
            hand.peer.open and hand.peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
        )

    def id_of(self, address: Any) -> int | None:
        """The worker at that address."""
        return next((hand.id for hand in self._hands.values() if hand.address == address), None)

    def forget(self, id: int) -> WorkerHandle | None:
        """The worker's process is gone, and its place is free. What it has left is to be `clear`ed."""
        hand = self._hands.pop(id, None)
        if hand is not None:
            self._departed = hand.id, hand.pid
            self._ids.changed()
        return hand

    def drain(self, id: int) -> None:
        """Take in what a worker that is gone has said last."""
        peer = self.hand(id).peer
        if peer is None:
            return
        poll = select.poll()
        poll.register(peer.fd, select.POLLIN)
        while peer.open and poll.poll(0) and peer.receive():
            pass

    def clear(self, hand: WorkerHandle) -> None:
        """Let go of a forgotten worker's connection, watch and socket file, and end what it has left running."""
        if hand.fd is not None and self._server is not None:
            self._server.unwatch(hand.fd)
            os.close(hand.fd)
        if hand.peer is not None:
            hand.peer.close()
        if self._directory is not None and hand.pid is not None:
            with contextlib.suppress(OSError):
                os.unlink(paths.worker(self._directory, hand.pid))
        self._actor.end_orphans()
        self._close(hand.outputs)

    def _close(self, outputs: list[Output]) -> None:
        for output in outputs:
            if self._server is not None:
                self._server.unwatch(output.reader)
            output.close()

    def end_all(self, timeout: float) -> None:
        """End every worker process within `timeout` seconds, by force at the end. Blocks: the pool is exiting."""
        pids = [hand.pid for hand in self._hands.values() if hand.pid is not None]
        for pid in pids:
            process.send_signal(pid, INTERRUPT)
        end_processes(pids, timeout)
        for hand in self:
            self.forget(hand.id)
            self.clear(hand)
        self._ids.close()
