"""Monitors: one `Down` for each, for any process of this host, whichever way the death is seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from thespian.actors import Actor, ActorSystem, ThespianWatch, WatchMessage

from actorpool import process as host
from actorpool.messages import Down
from actorpool.node import launch, runtime
from actorpool.process import Caller
from actorpool.supervisors.monitor import EXITED, NO_PROCESS, POLL_EVERY, DeathWatch, monitor
from actorpool.thespian_adapter import base
from tests.node.node_actors import Monitoring

Eventually = Callable[..., Any]


def bystander() -> subprocess.Popen[bytes]:
    """A process that lives until it is killed."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    running = bystander()
    yield running
    running.kill()
    running.wait()


def caller_of(process: subprocess.Popen[bytes]) -> Caller:
    return Caller(host.HOST, process.pid, host.start_time(process.pid) or 0.0)


# -- DeathWatch: the piece that pools and nodes share --------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["pidfd", "polling"])
def watch(request: pytest.FixtureRequest) -> Iterator[DeathWatch]:
    watch = DeathWatch(polling=request.param)
    yield watch
    watch.close()


def seen(watch: DeathWatch) -> list[Caller]:
    """The deaths that can be seen now, whichever way."""
    found = [watch.died(descriptor) for descriptor in watch.descriptors]
    return [caller for caller in found if caller] + watch.look()


def test_a_death_is_seen_once(watch: DeathWatch, process: subprocess.Popen[bytes], eventually: Eventually) -> None:
    caller = caller_of(process)
    watch.watch(caller)
    assert seen(watch) == []
    process.kill()
    assert eventually(lambda: seen(watch)) == [caller]
    assert seen(watch) == []
    assert not watch.polled
    assert watch.descriptors == []


def test_a_zombie_is_dead(watch: DeathWatch, process: subprocess.Popen[bytes], eventually: Eventually) -> None:
    watch.watch(caller_of(process))
    process.kill()  # and nobody reaps it
    assert eventually(lambda: seen(watch))


def test_a_process_that_is_gone_or_was_replaced_is_refused_at_once(
    watch: DeathWatch, process: subprocess.Popen[bytes]
) -> None:
    with pytest.raises(ProcessLookupError):
        watch.watch(Caller(host.HOST, process.pid, 1.0))  # the pid is another process's by now
    process.kill()
    process.wait()
    with pytest.raises(ProcessLookupError):
        watch.watch(Caller(host.HOST, process.pid, 1.0))


def test_what_is_forgotten_is_not_told(watch: DeathWatch, process: subprocess.Popen[bytes]) -> None:
    caller = caller_of(process)
    watch.watch(caller)
    watch.forget(caller)
    watch.forget(caller)
    process.kill()
    process.wait()
    assert seen(watch) == []


def test_a_process_of_another_host_is_refused(watch: DeathWatch) -> None:
    with pytest.raises(ValueError, match="host elsewhere"):
        watch.watch(Caller("elsewhere", 1, 1.0))


def test_polling_looks_no_more_often_than_it_says(process: subprocess.Popen[bytes]) -> None:
    watch = DeathWatch(polling=True)
    assert watch.watch(caller_of(process)) is None
    process.kill()
    process.wait()
    watch.poll(100.0 - POLL_EVERY / 2)
    watch.watch(Caller.here())
    assert watch.poll(100.0) == []
    watch.close()


def test_the_environment_can_force_polling(process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORPOOL_POLLING", "1")
    assert DeathWatch().watch(caller_of(process)) is None


def test_descriptors_are_given_back(watch: DeathWatch, open_descriptors: Callable[[], dict[int, str]]) -> None:
    before = open_descriptors()
    processes = [bystander() for _ in range(5)]
    for child in processes:
        watch.watch(caller_of(child))
        watch.watch(caller_of(child))
        child.kill()
        child.wait()
    assert len(seen(watch)) == 5
    assert open_descriptors() == before


# -- monitor(): inside actors of every base -------------------------------------------------------------------------


class Stage:
    """A system with one monitoring actor; `hears` waits for the messages it got."""

    def __init__(self, system: Any) -> None:
        self.system = system
        self.actor = system.createActor(Monitoring)

    def ask(self, word: str, value: Any = None) -> Any:
        return self.system.ask(self.actor, (word, value), 5)

    def hears(self, count: int, timeout: float = 2.0) -> list[Any]:
        deadline = time.monotonic() + timeout
        while len(heard := self.ask("heard")) < count:
            assert time.monotonic() < deadline, heard
        return list(heard)


@pytest.fixture(params=["multiprocTCPBase", "multiprocUDPBase"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    node = launch.launch(None, request.param)
    _, facts, cookie = runtime.find(node.name)
    system = base.attach(request.param, facts.admin, cookie)
    yield Stage(system)
    base.detach(system)
    node.stop(5.0)


@pytest.mark.parametrize("way", ["monitor", "poll"])
def test_one_down_for_each_monitor(stage: Stage, process: subprocess.Popen[bytes], way: str) -> None:
    refs = [stage.ask(way, process.pid), stage.ask(way, caller_of(process))]
    other = bystander()
    kept = stage.ask(way, other.pid)
    assert stage.ask("heard") == []
    process.kill()
    assert sorted(stage.hears(2), key=repr) == [Down(ref, process.pid, EXITED) for ref in sorted(refs)]
    other.kill()
    other.wait()
    assert stage.hears(3)[2] == Down(kept, other.pid, EXITED)
    assert len(stage.ask("heard")) == 3


@pytest.mark.parametrize("way", ["monitor", "poll"])
def test_a_monitor_that_is_ended_is_not_told_and_leaves_the_others(
    stage: Stage, process: subprocess.Popen[bytes], way: str
) -> None:
    ended, kept = stage.ask(way, process.pid), stage.ask(way, process.pid)
    assert stage.ask("demonitor", ended) is True
    assert stage.ask("demonitor", ended) is False
    process.kill()
    assert stage.hears(1) == [Down(kept, process.pid, EXITED)]
    assert stage.ask("demonitor", kept) is False
    other = bystander()
    assert stage.ask("demonitor", stage.ask(way, other.pid)) is True
    other.kill()
    other.wait()
    time.sleep(3 * POLL_EVERY)
    assert len(stage.ask("heard")) == 1


def test_a_death_is_told_within_a_tenth_of_a_second(stage: Stage, process: subprocess.Popen[bytes]) -> None:
    stage.ask("monitor", process.pid)
    before = time.perf_counter()
    process.kill()
    stage.hears(1)
    took = time.perf_counter() - before
    print(f"Down after {took * 1000:.1f} ms")
    assert took < 0.25


def test_a_process_that_is_gone_is_down_at_once(stage: Stage) -> None:
    child = bystander()
    child.kill()
    child.wait()
    ref = stage.ask("monitor", child.pid)
    assert stage.hears(1) == [Down(ref, child.pid, NO_PROCESS)]


def test_a_recycled_pid_is_not_the_process_that_asked(stage: Stage, process: subprocess.Popen[bytes]) -> None:
    ref = stage.ask("monitor", Caller(host.HOST, process.pid, 1.0))
    assert stage.hears(1) == [Down(ref, process.pid, NO_PROCESS)]


def test_a_monitor_outlives_an_exception_of_its_actor(stage: Stage, process: subprocess.Popen[bytes]) -> None:
    ref = stage.ask("monitor", process.pid)
    stage.ask("raise")
    process.kill()
    assert Down(ref, process.pid, EXITED) in stage.hears(1)


def test_many_deaths_at_once_are_all_told(stage: Stage) -> None:
    processes = [bystander() for _ in range(8)]
    refs = {stage.ask("monitor", child.pid): child.pid for child in processes}
    for child in processes:
        child.kill()
    assert {(down.ref, down.pid) for down in stage.hears(8)} == set(refs.items())
    for child in processes:
        child.wait()


def test_monitors_work_without_processes_of_their_own(process: subprocess.Popen[bytes], eventually: Eventually) -> None:
    system = ActorSystem("simpleSystemBase", logDefs=False, transientUnique=True)
    try:
        stage = Stage(system)
        gone = stage.ask("monitor", Caller(host.HOST, process.pid, 1.0))
        assert stage.hears(1) == [Down(gone, process.pid, NO_PROCESS)]
        ref = stage.ask("monitor", process.pid)
        process.kill()
        assert stage.hears(2)[1] == Down(ref, process.pid, EXITED)
    finally:
        system.shutdown()


class Piping(Actor):  # type: ignore[misc]
    """An actor that watches a descriptor of its own, and monitors as well."""

    def receiveMessage(self, message: Any, sender: Any) -> Any:  # noqa: N802
        if isinstance(message, tuple) and message[0] == "start":
            self.reader, self.writer = os.pipe()
            self.told: list[Any] = []
            monitor(self, message[1])
            self.send(sender, (os.getpid(), self.writer))
        elif isinstance(message, WatchMessage):
            assert message.ready == [self.reader]
            self.told.append(os.read(self.reader, 1))
        elif isinstance(message, Down):
            self.told.append(message.pid)
        elif message == "write":
            os.write(self.writer, b"x")
        elif message == "told":
            self.send(sender, self.told)
        return ThespianWatch([self.reader])


def test_an_actors_own_watch_and_its_monitors_do_not_disturb_each_other(
    process: subprocess.Popen[bytes], eventually: Eventually
) -> None:
    node = launch.launch(None, "multiprocTCPBase")
    _, facts, cookie = runtime.find(node.name)
    system = base.attach("multiprocTCPBase", facts.admin, cookie)
    try:
        actor = system.createActor("tests.supervisors.test_monitor.Piping")
        system.ask(actor, ("start", process.pid), 5)
        system.tell(actor, "write")
        eventually(lambda: system.ask(actor, "told", 5) == [b"x"])
        process.send_signal(signal.SIGKILL)
        eventually(lambda: system.ask(actor, "told", 5) == [b"x", process.pid])
        system.tell(actor, "write")
        eventually(lambda: system.ask(actor, "told", 5) == [b"x", process.pid, b"x"])
    finally:
        base.detach(system)
        node.stop(5.0)


def test_a_process_is_of_this_host_though_the_host_was_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Caller.here()
    monkeypatch.setattr(host, "HOST", "renamed")
    after = Caller("renamed", before.pid, before.started)
    assert before == after
    assert before.is_here
    assert not Caller(before.host, before.pid, before.started, "another boot").is_here
