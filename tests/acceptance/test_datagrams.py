"""Over UDP a message is a datagram: what does not fit is an error of that call only, and names the way out."""

from __future__ import annotations

import pytest

import actorpool
from actorpool.errors import MessageTooBig
from actorpool.status import TreeNode
from actorpool.workers import EchoWorker


def large(_connection: object, size: int) -> bytes:
    return bytes(size)


def processes(tree: TreeNode) -> list[int | None]:
    return [tree.pid, *(pid for child in tree.children for pid in processes(child))]


def test_what_does_not_fit_into_a_datagram_is_an_error_of_that_call_only() -> None:
    with actorpool.start(base="multiprocUDPBase") as system:
        pool = system.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
        shared = system.start_shared_pool("feed")
        shared.add(EchoWorker, resource="echo")
        before = processes(system.tree())
        assert pool.echo(bytes(55_000)) == bytes(55_000)
        for size in (*range(64_000, 65_600, 160), 100_000):
            with pytest.raises(MessageTooBig, match="Use the TCP base"):
                pool.call("echo", bytes(size), call_timeout=5)
            with pytest.raises(MessageTooBig, match="Use the TCP base"):
                shared.call("echo", "echo", bytes(size), timeout=5)
        with pytest.raises(MessageTooBig, match="Use the TCP base"):
            pool.run(large, 100_000, call_timeout=5)
        assert pool.echo(1) == shared.call("echo", "echo", 1, timeout=5) == 1
        assert processes(system.tree()) == before
