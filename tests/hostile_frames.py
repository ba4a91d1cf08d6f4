"""What somebody may write into every socket of a node who should not: a process of its own, `python -m` this module.

Random bytes, random frames, and frames that are nearly right: genuine ones of each kind with bytes that were changed,
cut off, repeated or added, with lengths that promise more or less than follows, and with numbers of leases that are
nobody's.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from random import Random

from actorpool._protocol import orders, reports, requests, shared
from actorpool._protocol.manager import Hello
from actorpool.client._shared_calls import SharedCallRequest
from actorpool.messages import ListPools
from actorpool.serialization import pickling
from actorpool.transport import bodies
from actorpool.transport import frames as wire
from tests.hostile_messages import frames

QUESTIONS = (
    requests.Status(), requests.Workers(), requests.Leases(), requests.Metrics(), requests.Facts(), ListPools(),
    Hello(), shared.ListResources("shared"), shared.IsEmpty("shared", "book"),
)  # fmt: skip
"""What changes nothing, so that figures can be compared afterwards."""


def genuine() -> list[tuple[int, bytes]]:
    """Frames as clients send them, but for the numbers of leases, which nobody can guess."""
    call = pickling.dumps(("echo", (1,), {}))
    shared = SharedCallRequest("book", "write", (1,), {}, {"a": 1}, 5.0)
    return [
        *((wire.ASK, pickling.dumps(question)) for question in QUESTIONS),
        (wire.CHECKOUT, bodies.pack_checkout(0.01, False, None, None)),
        (wire.CHECKOUT, bodies.pack_checkout(0.01, True, "a stack", None, True)),
        (wire.CHECKOUT, bodies.pack_checkout(0.01, True, None, "a sandbox")),
        (wire.CHECKOUT, bodies.pack_checkout(0.01, True, None, None, False, bodies.pack_key("a key"))),
        (wire.CANCEL, b""),
        (wire.SHARED, shared.head(1.0) + shared.payload),
        (wire.SHARED, SharedCallRequest("nobody", "write", (), {}, None, None).head(None) + shared.payload),
        (wire.CALL, wire.CALL_HEAD.pack(10**9, wire.LAST, 10**9) + call),
        (wire.CONTROL, pickling.dumps(orders.Open())),
        (wire.CONTROL, pickling.dumps(reports.Lost(1, pickling.Pickled(b"")))),
        (wire.PERFORMED, wire.OUTCOME.pack(0, 0.0, 0.0) + call),
        (wire.ROUTED, pickling.dumps(ListPools())),
    ]


def streams(random: Random, number: int) -> Iterator[bytes]:
    """Frames, or what looks like some, as bytes; about `number` of them."""
    known = genuine()
    others = frames(random, number)
    ref = 0
    for _ in range(number):
        ref += random.choice((0, 1, 1, 1, 2))
        shape = random.random()
        if shape < 0.05:
            yield random.randbytes(random.randrange(1, 200))
            continue
        if shape < 0.45:
            kind, number_, body = next(others)
            if kind == wire.ASK:  # messages of every class are another test's affair
                kind = wire.CHECKOUT
            yield wire.frame(kind, number_, body)
            continue
        kind, body = random.choice(known)
        data = bytearray(wire.frame(kind, ref, body))
        for _ in range(random.choice((0, 1, 1, 3, 10))):
            what = random.random()
            at = random.randrange(len(data))
            if what < 0.6 or at < 4:
                data[at] ^= 1 << random.randrange(8)
            elif what < 0.8:
                data[at:at] = random.randbytes(random.randrange(1, 9))
            else:
                del data[at : at + random.randrange(1, 9)]
        yield bytes(data)


def sockets(directory: str) -> list[str]:
    """Every socket there is now."""
    names = sorted(os.listdir(directory))
    return [f"{directory}/{name}" for name in names if name.endswith((".w", ".pool", "manager"))]


def send(directory: str, seed: int, number: int) -> None:
    """Write them all, some to each connection, which is then closed, or (a few) left open until the end."""
    random = Random(seed)
    left: list[socket.socket] = []
    todo = streams(random, number)
    while True:
        with suppress(OSError):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(random.choice(sockets(directory)))
            sock.setblocking(False)
            for _ in range(random.randrange(1, 12)):
                data = next(todo, None)
                if data is None:
                    return
                sock.send(data)
            if random.random() < 0.5:
                with suppress(BlockingIOError):
                    sock.recv(65536)
            if len(left) < 50 and random.random() < 0.02:
                left.append(sock)


if __name__ == "__main__":
    send(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
