"""Messages to processes that have died, or die just then: calls are answered in their place, and nobody waits long."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from thespian.actors import ActorExitRequest

import actorpool
from actorpool.errors import LeaseExpired
from actorpool.thespian_adapter.base import address_at
from actorpool.workers import EchoWorker
from tests.pools.actors import LateCaller
from tests.pools.conftest import StartPool


def test_an_actor_that_calls_a_dead_worker_is_told_so(
    node: actorpool.System, start: StartPool, eventually: Callable[..., Any]
) -> None:
    pool = start(EchoWorker, size=1)
    with node.actor_system.private() as thespian:
        caller = thespian.createActor(LateCaller)
        pid = thespian.ask(caller, (node.manager, pool.name), 5)
        eventually(lambda: pid not in {worker.pid for worker in pool.workers()})
        with pytest.raises(LeaseExpired, match="has died; the call was not started"):
            thespian.ask(caller, "call", 5).unwrap()
        thespian.tell(caller, ActorExitRequest())
    assert pool.echo("another") == "another"


def test_a_message_to_a_process_that_dies_while_it_takes_it_holds_its_sender_up_for_a_moment_only(
    node: actorpool.System,
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path := f"{node.directory}/dying")
        listener.listen()
        dying = threading.Thread(target=reset_once, args=(listener,))
        dying.start()
        began = time.monotonic()
        assert node.actor_system.ask(address_at(path), "hello", 5) is None
        assert time.monotonic() - began < 2.0
        dying.join()


def reset_once(listener: socket.socket) -> None:
    """As the kernel does for a process that is killed with a message unread."""
    connection, _ = listener.accept()
    select.select([connection], [], [])
    os.unlink(listener.getsockname())
    listener.close()
    connection.close()


def note_and_die(_: Any, log: str, seconds: float) -> None:
    with open(log, "a") as notes:
        notes.write("run ")
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_call_that_has_begun_is_not_run_again_though_a_later_order_is_unread(
    node: actorpool.System, start: StartPool, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    pool = start(EchoWorker)
    log = tmp_path / "log"
    log.touch()
    order = threading.Timer(0.2, pool.clear_cache)
    order.start()
    request = actorpool.WithConnection(pool.name, note_and_die, (str(log), 0.6))
    with pytest.raises(actorpool.WorkerDied):
        node.actor_system.ask(node.manager, request, 10).unwrap()
    order.join()
    assert log.read_text() == "run "
