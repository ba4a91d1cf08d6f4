"""The manager: what it remembers, whom it tells what, and what it forgets; with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool._protocol.manager import Hello
from actorpool.errors import PoolDown, PoolNotFound
from actorpool.messages import DeleteChild, Event, RestartChild, Subscribe, TerminateChild, WhichChildren
from actorpool.supervisors import ChildSpec, SupervisorError, SupervisorSpec, root, start_supervisor
from actorpool.supervisors.child_host import HostChild
from actorpool.supervisors.routing import Routing
from actorpool.workers import EchoWorker
from tests.supervisors.supervised_actors import Child, Diary

Eventually = Callable[..., Any]


@pytest.fixture
def node() -> Iterator[actorpool.System]:
    with actorpool.start(log_level="CRITICAL") as running:
        yield running


@pytest.fixture
def pool(node: actorpool.System) -> actorpool.Pool:
    return node.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)


def ask(node: actorpool.System, request: Any, address: Any = None) -> Any:
    with node.actor_system.private() as context:
        return context.ask(address or node.manager, request, 10).unwrap()


def process_of(node: actorpool.System, id: str) -> int:
    pid = next(child.pid for child in node.tree().children[0].children if child.id == id)
    assert pid is not None
    return pid


def restart_manager(node: actorpool.System, eventually: Eventually) -> None:
    before = node._node_client.ask(Hello()).pid
    os.kill(before, signal.SIGKILL)
    eventually(lambda: node._node_client.ask(Hello()).pid != before, timeout=10)


def stands(node: actorpool.System, pool: actorpool.Pool) -> bool:
    """Whether a call needs the pool no more."""
    for _ in range(5):
        pool.echo(1)
    pid = process_of(node, "db")
    os.kill(pid, signal.SIGSTOP)
    try:
        return bool(pool.call("echo", 1, checkout_timeout=0.3) == 1)
    except actorpool.ActorPoolError:
        return False
    finally:
        os.kill(pid, signal.SIGCONT)


SUBSCRIBER = """
import actorpool, os, sys
node = actorpool.connect(sys.argv[1])
with node.actor_system.private() as context:
    context.ask(node.manager, actorpool.Subscribe("*"), 10)
    print("subscribed", flush=True)
    sys.stdin.readline()
os._exit(0)
"""


@pytest.mark.slow
def test_a_subscriber_whose_process_ends_is_forgotten_and_calls_are_direct_again(eventually: Eventually) -> None:
    with actorpool.start("forgets", log_level="CRITICAL") as node:
        pool = node.start_pool("db", worker=EchoWorker, size=1, max_overflow=0)
        assert stands(node, pool)
        command = [sys.executable, "-c", SUBSCRIBER, "forgets"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as subscriber:
            assert subscriber.stdout is not None
            assert subscriber.stdout.readline() == "subscribed\n"
            assert not stands(node, pool)
            subscriber.kill()
        eventually(lambda: stands(node, pool), timeout=10)
        os.kill(process_of(node, "db"), signal.SIGKILL)  # nor does a restarted pool know of it
        eventually(lambda: pool.echo(1) == 1)
        eventually(lambda: stands(node, pool), timeout=10)


def test_a_subscriber_hears_every_event_once_and_in_order(node: actorpool.System, pool: actorpool.Pool) -> None:
    with node.actor_system.private() as context:
        context.ask(node.manager, Subscribe("call.done"), 5)
        for number in range(500):
            pool.echo(number)
        events = []
        while (event := context.listen(2 if len(events) < 500 else 0.2)) is not None:
            assert isinstance(event, Event)
            events.append(event)
    assert len(events) == 500
    assert [event.time for event in events] == sorted(event.time for event in events)


def test_subscriptions_outlive_a_restart_of_the_manager(
    node: actorpool.System, pool: actorpool.Pool, eventually: Eventually
) -> None:
    with node.actor_system.private() as context:
        context.ask(node.manager, Subscribe("pool.resized"), 5)
        restart_manager(node, eventually)
        eventually(lambda: pool.echo(1) == 1)
        pool.resize(max_overflow=1)
        assert context.listen(5).name == "pool.resized"


def spec(id: str, tmp_path: Path, restart: str = "permanent", **args: Any) -> ChildSpec:
    return ChildSpec(id, Child, {"diary": str(tmp_path / "diary"), **args}, restart)


def test_what_was_terminated_deleted_or_done_stays_so_after_a_restart_of_the_manager(
    node: actorpool.System, pool: actorpool.Pool, tmp_path: Path, eventually: Eventually
) -> None:
    other = node.start_pool("other", worker=EchoWorker, size=1)
    for id, restart in (("runs", "permanent"), ("terminated", "permanent"), ("deleted", "permanent")):
        node.supervise(spec(id, tmp_path, restart))
    done = node.supervise(spec("done", tmp_path, "temporary"))
    node.actor_system.tell(done, ("stop", "normal"))
    for id in ("terminated", "deleted", "other"):
        ask(node, TerminateChild(id))
    ask(node, DeleteChild("deleted"))
    eventually(lambda: "done" not in [child.id for child in ask(node, WhichChildren())])
    restart_manager(node, eventually)
    eventually(lambda: pool.echo(1) == 1)
    expected = {"db": "running", "other": "stopped", "runs": "running", "terminated": "stopped"}
    eventually(lambda: {child.id: child.state for child in ask(node, WhichChildren())} == expected)
    begun = [name for name, what in Diary(tmp_path / "diary").story("init")]
    assert sorted(begun) == ["deleted", "done", "runs", "runs", "terminated"]
    with pytest.raises(PoolDown, match="terminated"):
        node.status("other")
    ask(node, RestartChild("other"))
    ask(node, RestartChild("terminated"))
    assert other.echo(1) == 1


def test_a_pool_whose_child_was_deleted_is_no_pool_any_more(node: actorpool.System, pool: actorpool.Pool) -> None:
    ask(node, TerminateChild("db"))
    ask(node, DeleteChild("db"))
    assert node.pools() == []
    with pytest.raises(PoolNotFound):
        node.status("db")
    assert node.start_pool("db", worker=EchoWorker, size=1).echo(1) == 1


def keep(event: Event) -> None:
    with open(os.environ["MANAGER_EVENTS"], "a") as file:
        file.write(json.dumps([event.name, event.pool, event.metadata], default=str) + "\n")


def test_restarts_of_every_supervisor_reach_the_sinks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    path = tmp_path / "events"
    monkeypatch.setenv("MANAGER_EVENTS", str(path))

    def told(supervisor: str, name: str) -> list[Any]:
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [facts for event, _, facts in lines if event == name and facts["supervisor"] == supervisor]

    with actorpool.start(telemetry="tests.pools.test_manager:keep", log_level="CRITICAL") as node:
        inner = ChildSpec("inner", SupervisorSpec([spec("leaf", tmp_path)], max_restarts=1), restart="temporary")
        outer = node.supervise(ChildSpec("outer", SupervisorSpec([inner])))
        inside = ask(node, WhichChildren(), outer)[0].address
        first = ask(node, WhichChildren(), inside)[0].pid
        os.kill(first, signal.SIGKILL)
        eventually(lambda: told("inner", "supervisor.restarted"))
        os.kill(ask(node, WhichChildren(), inside)[0].pid, signal.SIGKILL)
        eventually(lambda: told("inner", "supervisor.gave_up"))
        assert [facts["child"] for facts in told("inner", "supervisor.restarted")] == ["leaf"]
        alone = start_supervisor(node.actor_system, SupervisorSpec([spec("leaf", tmp_path)]), "alone")
        os.kill(ask(node, WhichChildren(), alone)[0].pid, signal.SIGKILL)
        eventually(lambda: told("alone", "supervisor.restarted"))
        restart_manager(node, eventually)
        eventually(lambda: told("root", "supervisor.restarted"))


class Silent:
    """A process that never says a word."""

    def ask(self, *_: Any) -> None:
        return None

    def listen(self, seconds: float) -> None:
        time.sleep(seconds / 100)


def test_start_supervisor_gives_up_on_a_process_that_never_says_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert root.FIRST_WORD == 30.0
    monkeypatch.setattr(root, "FIRST_WORD", 0.1)
    began = time.monotonic()
    with pytest.raises(SupervisorError, match="said nothing"):
        root._wait(Silent(), None, HostChild(0, "silent", None, ref=1))  # type: ignore[arg-type]
    assert time.monotonic() - began < 5


class Waiting:
    """A manager whose pool is being restarted, until it is told otherwise."""

    def __init__(self) -> None:
        self.timers: list[float] = []
        self.answers: list[Any] = []
        self.down = True
        self.registry: Any = self
        self.machine: Any = self
        self.children: dict[str, Any] = {}
        self.address = "pool"

    def set_timer(self, seconds: float, payload: Any) -> None:
        self.timers.append(seconds)

    def serving(self, name: str, children: Any = None) -> Any:
        if self.down:
            raise PoolDown("is being restarted", temporary=True)
        return self

    def restarting(self, name: str, children: Any) -> bool:
        return self.down

    def ask(self, address: Any, request: Any, then: Callable[[Any], None]) -> None:
        then(request)

    def answer(self, value: Any) -> None:
        self.answers.append(value)


def test_messages_for_a_pool_that_is_being_restarted_cost_one_timer_in_all_and_go_when_it_is_back() -> None:
    manager: Any = Waiting()
    routing = Routing(manager, None)  # type: ignore[arg-type]
    for number in range(1000):
        routing.route("db", number, manager)
        routing.deliver()
    assert len(manager.timers) == 1
    assert manager.answers == []
    manager.down = False
    routing.deliver()
    assert manager.answers == list(range(1000))
