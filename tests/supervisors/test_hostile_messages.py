"""Messages and frames with anything in them, sent to the manager and to users' supervisors while callers call."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any

import pytest

import actorpool
from actorpool._protocol.manager import Hello
from actorpool.messages import Ok, WhichChildren
from actorpool.supervisors import ChildSpec, SupervisorError, SupervisorSpec, TerminateChild
from actorpool.transport import frames as wire
from actorpool.transport import paths
from actorpool.workers import EchoWorker
from tests.hostile_messages import INNER, Bare, frames, spoiled, strangers
from tests.supervisors.supervised_actors import Child

ALL = [*spoiled(), *spoiled(modules=INNER), *strangers()]


@pytest.fixture
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


def supervisor(system: actorpool.System, tmp_path: Any) -> Any:
    child = ChildSpec("steady", Child, {"diary": str(tmp_path / "diary")})
    return system.supervise(SupervisorSpec([child], max_restarts=1000))


def ask(system: actorpool.System, address: Any, request: Any) -> Any:
    with system.actor_system.private() as context:
        answer = context.ask(address, request, 10)
        while answer is not None and getattr(answer, "ref", None) != request.ref:
            answer = context.listen(10)
        assert answer is not None, f"{request} was not answered"
        return answer.unwrap()


class Steady:
    """A pool, a supervisor and their manager, all of whom must be the same processes afterwards."""

    def __init__(self, system: actorpool.System, tmp_path: Any) -> None:
        self._system = system
        self.pool = system.start_pool("steady", worker=EchoWorker, size=1, max_overflow=0)
        self.supervisor = supervisor(system, tmp_path)
        self.manager = system.manager
        self._before = self._processes()
        self._slowest = 0.0
        self._over = threading.Event()
        self._caller = threading.Thread(target=self._call)

    def _processes(self) -> list[Any]:
        children = ask(self._system, self.supervisor, WhichChildren())
        return [ask(self._system, self._system.manager, Hello()).pid, children[-1].pid, self.pool.workers()[0].pid]

    def _call(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self.pool.echo(1)
            self._slowest = max(self._slowest, time.monotonic() - began)

    def __enter__(self) -> Steady:
        self._caller.start()
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self._over.set()
        self._caller.join()
        if kind is None:
            assert self._processes() == self._before
            assert self._slowest < 3.0
            assert self._system.start_pool("another", worker=EchoWorker, size=1).echo(1) == 1


@pytest.mark.slow
def test_hostile_messages_end_nothing_and_hold_up_nobody(node: actorpool.System, tmp_path: Any) -> None:
    with Steady(node, tmp_path) as steady, node.actor_system.private() as context:
        for number, message in enumerate(Random(12).sample(ALL, 1500)):
            context.tell((steady.manager, steady.supervisor)[number % 2], message)
            if number % 50 == 0:
                while context.listen(0.001) is not None:
                    pass


def test_hostile_frames_end_nothing_and_hold_up_nobody(node: actorpool.System, tmp_path: Any) -> None:
    with Steady(node, tmp_path):
        path = paths.manager(node.directory)
        line = None
        for kind, ref, body in frames(Random(13), 3000):
            if line is None:
                line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                line.connect(path)
                line.setblocking(False)
            try:
                line.sendall(wire.frame(kind, ref, body))
                with suppress(BlockingIOError):
                    while line.recv(65536):
                        pass
            except OSError:  # it was closed, or nobody has read for a while
                line.close()
                line = None
                time.sleep(0.01)
        if line is not None:
            line.close()


@pytest.mark.slow
def test_every_hostile_message_of_all_leaves_the_manager_and_a_supervisor_as_they_were(tmp_path: Any) -> None:
    with actorpool.start(base="simpleSystemBase", log_level="CRITICAL") as system:
        below = supervisor(system, tmp_path)
        steady = system.start_pool("steady", worker=EchoWorker, size=1, max_overflow=0)
        manager = system.manager
        for message in ALL:
            made = message.made() if isinstance(message, Bare) else message
            for address in (manager, below):
                system.actor_system.tell(address, made)
        while system.actor_system.listen(0.01) is not None:
            pass  # the answers, with refs that nobody should compare
        assert str(system.manager) == str(manager)
        assert steady.echo(1) == 1
        answer = system.actor_system.ask(below, WhichChildren(), 5)
        while answer is not None and not (isinstance(answer, Ok) and isinstance(answer.value, list)):
            answer = system.actor_system.listen(1)
        assert answer.value[-1].state == "running"
        assert system.start_pool("another", worker=EchoWorker, size=1).echo(1) == 1


@pytest.mark.parametrize("id", [("job", ["x"]), ["x"]])
def test_a_bad_id_is_an_answer_and_pools_are_still_restarted(
    node: actorpool.System, tmp_path: Any, eventually: Callable[..., Any], id: Any
) -> None:
    pool = node.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
    below = supervisor(node, tmp_path)
    for address in (node.manager, below):
        with pytest.raises(SupervisorError) as caught:
            ask(node, address, TerminateChild(id))
        assert caught.value.reason == "not_found"
    with pytest.raises(SupervisorError, match="hashable"):
        node.supervise(Bare(ChildSpec, id=id, actor=Child, args={}))
    victim = next(child.pid for child in node.tree().children[0].children if child.id == "db")
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: pool.echo(1) == 1)
    assert ask(node, below, WhichChildren())[0].state == "running"
