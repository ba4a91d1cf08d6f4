"""What a system tells: events to sinks and subscribers, samples, the log."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from thespian.actors import Actor

import actorpool
from actorpool import Event, LoggingSink, Ok, StatsdSink, Subscribe
from tests.acceptance import kit


def keep(event: Event) -> None:
    """A sink: one line for each event into the file that the environment names."""
    with open(os.environ["ACCEPTANCE_EVENTS"], "a") as out:
        out.write(
            json.dumps([event.name, event.pool, event.time, event.measurements, event.metadata], default=str) + "\n"
        )


def raise_always(event: Event) -> None:
    raise RuntimeError("a broken sink")


def block_always(event: Event) -> None:
    time.sleep(60)


class Kept:
    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self, name: str = "*") -> list[Event]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [event for event in (Event(*json.loads(line)) for line in lines) if fnmatch.fnmatch(event.name, name)]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setenv("ACCEPTANCE_EVENTS", str(tmp_path / "events"))
    return Kept(tmp_path / "events")


def test_every_event_arrives_with_its_measurements_pool_and_ids(
    kept: Kept, eventually: Callable[..., Any], tmp_path: Path, script: Callable[..., Any]
) -> None:
    import base64
    import pickle

    gate = tmp_path / "gate"
    with actorpool.start(telemetry="tests.acceptance.test_telemetry:keep", log_level="CRITICAL") as system:
        p = system.start_pool(
            "db", worker=kit.Toy, size=1, max_overflow=1, max_restarts=2, leak_threshold=0.05, kill_after=0.3
        )
        p.echo(1)
        with p.checkout(), p.checkout():
            time.sleep(0.1)  # a leak takes its time
            with pytest.raises(actorpool.ActorPoolError):
                p.checkout(timeout=0.01)
        with pytest.raises(actorpool.CallTimeout):
            p.call("sleep", 5, call_timeout=0.05)
        p.resize(size=2)
        holder = script(
            "import sys, pickle, base64, time\np = pickle.loads(base64.b64decode(sys.argv[1]))\n"
            "lease = p.checkout()\nprint('held', flush=True)\ntime.sleep(60)",
            base64.b64encode(pickle.dumps(p)).decode(),
        )
        holder.stdout.readline()
        holder.kill()
        eventually(lambda: p.status().reclaimed == 1)
        eventually(lambda: kept.events("pool.reclaimed"))  # a sink has but a second to say what a dying pool told it
        with pytest.raises(actorpool.WorkerDied):
            p.run(kit.die)
        away = system.start_pool(
            "away", worker=kit.Gate, worker_args={"gate": str(gate)}, size=1, checkout_timeout=0.1, backoff_min=0.02,
            backoff_max=0.05, breaker=actorpool.Breaker(failures=2, reset_after=0.2),
        )  # fmt: skip
        eventually(lambda: kept.events("breaker.opened"))
        gate.touch()
        eventually(lambda: away.echo(1) == 1)
        for _ in range(3):
            victim = eventually(lambda: p.workers()[0].pid)
            os.kill(victim, signal.SIGKILL)
            eventually(lambda victim=victim: victim not in [worker.pid for worker in p.workers()])
        eventually(lambda: p.echo(1) == 1)
        eventually(lambda: len([event for event in kept.events("pool.started") if event.pool == "db"]) == 2)
        system.stop_pool("db")
        expected = {
            "pool.started": (), "pool.stopped": (), "pool.checkout": ("wait_ms",), "pool.checkin": ("hold_ms",),
            "pool.timeout": (),
            "pool.overflow": (), "pool.reclaimed": (), "pool.leak": (), "pool.resized": (), "worker.started": (),
            "worker.connected": ("ms",), "worker.connect_error": (), "worker.restarted": (), "worker.died": (),
            "call.done": ("ms",),
            "call.timeout": (), "breaker.opened": (), "breaker.closed": (),
        }  # fmt: skip
        deadline = time.monotonic() + 8
        while (missing := set(expected) - {event.name for event in kept.events()}) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert missing == set()
    for name, measured in expected.items():
        for event in kept.events(name):
            assert event.pool in ("db", "away"), event
            assert set(measured) <= set(event.measurements), event
            assert abs(event.time - time.time()) < 60
            assert isinstance(event.metadata, dict)
    for event in kept.events("worker.*"):
        assert [key for key in event.metadata if "worker" in key], event


def test_waiters_that_are_shed_are_told(kept: Kept, eventually: Callable[..., Any]) -> None:
    with actorpool.start(telemetry="tests.acceptance.test_telemetry:keep", log_level="CRITICAL") as system:
        p = system.start_pool("db", worker=kit.Toy, size=1, max_overflow=0, queue_target=0.02, queue_interval=0.1)
        threads = [threading.Thread(target=_quietly, args=(lambda: p.run(kit.sleep_for, 0.05),)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert p.status().shed > 0
        eventually(lambda: len(kept.events("pool.shed")) > 0)


def _quietly(call: Callable[[], Any]) -> None:
    try:
        call()
    except actorpool.ActorPoolError:
        pass


def test_a_pool_that_fails_too_often_is_told_as_given_up_and_restarted(
    kept: Kept, eventually: Callable[..., Any]
) -> None:
    with actorpool.start(telemetry="tests.acceptance.test_telemetry:keep", log_level="CRITICAL") as system:
        p = system.start_pool("db", worker=kit.Toy, size=1, max_restarts=0)
        os.kill(p.workers()[0].pid, signal.SIGKILL)
        eventually(lambda: kept.events("supervisor.gave_up") and kept.events("supervisor.restarted"))
        assert p.echo(1) == 1


def test_events_carry_no_arguments_of_workers(kept: Kept, eventually: Callable[..., Any]) -> None:
    with actorpool.start(telemetry="tests.acceptance.test_telemetry:keep") as system:
        p = system.start_pool("db", worker=kit.Toy, worker_args={"secret": "hunter2"}, size=1)
        p.echo("parameters are the caller's")
        eventually(lambda: kept.events("call.done"))
    assert "hunter2" not in kept.path.read_text()


@pytest.mark.parametrize("sink", ["raise_always", "block_always"])
@pytest.mark.slow
def test_a_sink_that_fails_or_hangs_neither_breaks_nor_blocks_a_pool(sink: str) -> None:
    with actorpool.start(telemetry=f"tests.acceptance.test_telemetry:{sink}", log_level="CRITICAL") as system:
        p = system.start_pool("db", worker=kit.Toy, size=1)
        started = time.monotonic()
        for number in range(300):
            assert p.echo(number) == number
        assert time.monotonic() - started < 5
        pid = p.pid()
        assert p.status().restarts == 0
        started = time.monotonic()
        system.stop_pool("db", timeout=1)
        assert time.monotonic() - started < 4
        assert pid > 0


@pytest.fixture
def statsd() -> Iterator[Callable[[], list[str]]]:
    """A statsd server: a function that gives all lines received so far; its `.port` to send to."""
    received: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)

        def lines() -> list[str]:
            while True:
                try:
                    received.extend(server.recv(65536).decode().split("\n"))
                except BlockingIOError:
                    return [line for line in received if line]

        lines.port = server.getsockname()[1]  # type: ignore[attr-defined]
        yield lines


def test_statsd_gets_counters_timings_and_gauges_by_name(statsd: Any, eventually: Callable[..., Any]) -> None:
    with actorpool.start(telemetry=StatsdSink("127.0.0.1", statsd.port)) as system:
        p = system.start_pool("db", worker=kit.Toy, size=1)
        for _ in range(7):
            with p.checkout() as lease:
                lease.echo(1)
        p.resize(size=2)

        def counted(name: str) -> int:
            found = [line for line in statsd() if line.startswith(f"actorpool.db.{name}:") and line.endswith("|c")]
            return sum(int(line.split(":")[1].split("|")[0]) for line in found)

        eventually(lambda: counted("checkout") == 7 and counted("checkin") == 7, timeout=3)
        lines = statsd()
    assert [
        line for line in lines if not re.fullmatch(r"actorpool\.[\w.-]+:[-+]?[\d.e-]+\|(c|ms|g)(\|@[\d.]+)?", line)
    ] == []
    names = {line.split(":")[0] for line in lines}
    assert {"actorpool.db.checkout_time", "actorpool.db.started", "actorpool.db.size"} <= names
    assert {"c", "ms", "g"} <= {line.split("|")[1] for line in lines}


def test_statsd_takes_another_prefix_and_an_absent_server_harms_nothing(
    statsd: Any, free_port: int, eventually: Callable[..., Any]
) -> None:
    sinks = [StatsdSink("127.0.0.1", statsd.port, prefix="shop"), StatsdSink("127.0.0.1", free_port)]
    with actorpool.start(telemetry=sinks) as system:
        p = system.start_pool("db", worker=kit.Toy, size=1)
        assert [p.echo(n) for n in range(50)] == list(range(50))
        eventually(lambda: [line for line in statsd() if line.startswith("shop.db.")])


def test_a_list_of_sinks_all_get_the_events(
    kept: Kept, statsd: Any, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    log = tmp_path / "node.log"
    sinks = [StatsdSink("127.0.0.1", statsd.port), LoggingSink(), "tests.acceptance.test_telemetry:keep"]
    with actorpool.start(telemetry=sinks, log_level="CRITICAL", log_file=str(log)) as system:
        system.start_pool("db", worker=kit.Toy, size=1).echo(1)
        eventually(lambda: kept.events("pool.started") and [line for line in statsd() if "db.started" in line])
        eventually(lambda: "pool.started" in log.read_text())


@pytest.mark.parametrize(
    "telemetry", ["no_colon", "no.such:function", 5, [StatsdSink("127.0.0.1", 1), object()], "os:nothing"]
)
def test_a_bad_sink_is_refused_before_anything_starts(telemetry: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="(?i)telemetry|sink"):
        actorpool.start(telemetry=telemetry)


class Listener(Actor):
    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - Thespian's name
        if isinstance(message, tuple):
            self.asker = sender
            self.send(message[0], Subscribe(message[1]))
        elif isinstance(message, Ok):
            self.send(self.asker, "subscribed")
        elif isinstance(message, Event):
            self.send(self.asker, message)


def test_an_actor_that_subscribes_gets_the_events_of_its_pattern(node: actorpool.System) -> None:
    asys = node.actor_system
    listener = asys.createActor(Listener)
    assert asys.ask(listener, (node.manager, "worker.*"), 5) == "subscribed"
    p = node.start_pool("heard", worker=kit.Toy, size=1)
    p.echo(1)
    events = [asys.listen(5), asys.listen(5)]
    assert [event.name for event in events] == ["worker.started", "worker.connected"]
    assert {event.pool for event in events} == {"heard"}
    with pytest.raises(actorpool.WorkerDied):
        p.run(kit.die)
    assert asys.listen(5).name == "worker.died"
    node.stop_pool("heard")
    from thespian.actors import ActorExitRequest

    while asys.listen(0.2) is not None:  # what it has sent on, and nobody takes, would keep the actor from ending
        pass
    asys.tell(listener, ActorExitRequest())
    with node.actor_system.private() as private:
        assert isinstance(private.ask(node.manager, Subscribe("nothing.*"), 5), Ok)


def test_samples_tell_leases_out_waiting_and_total(eventually: Callable[..., Any]) -> None:
    with actorpool.start(metrics_interval=0.01) as system:
        p = system.start_pool("db", worker=kit.Toy, size=2)
        eventually(lambda: system.metrics("db").samples)
        with p.checkout(), p.checkout():
            eventually(lambda: system.metrics("db").maximum == 2)
        eventually(lambda: system.metrics("db").samples[-1].leases == 0)
        metrics = system.metrics("db")
        assert isinstance(metrics, actorpool.PoolMetrics)
        assert metrics.minimum == 0
        assert 0 < metrics.average < 2
        assert metrics.samples[-1].total == 2
        assert metrics.samples[-1].waiting == 0
        eventually(lambda: len(system.metrics("db").samples) == 100, timeout=10)
        with pytest.raises(actorpool.PoolNotFound):
            system.metrics("nothing")


def test_the_log_says_which_pools_started_failed_and_stopped(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    log = tmp_path / "node.log"
    with actorpool.start(log_file=str(log), log_level="CRITICAL") as system:
        system.start_pool("shop", worker=kit.Toy, size=1)
        with pytest.raises(ValueError, match="no such option"):
            system.start_pool("broken", worker=kit.FailsInInit)
        system.stop_pool("shop")
        eventually(lambda: "Stopped connection pool: shop" in log.read_text())
        text = log.read_text()
        assert "Started connection pool: shop" in text
        assert "Failed to start pool broken: " in text


@pytest.mark.slow
def test_warnings_reach_the_owners_standard_error_and_information_does_not(tmp_path: Path) -> None:
    text = (
        "import actorpool, os, time\nfrom tests.acceptance.kit import Toy\n"
        "with actorpool.start(LEVEL) as system:\n"
        "    p = system.start_pool('shop', worker=Toy, size=1)\n"
        "    os.kill(p.workers()[0].pid, 9)\n    p.echo(1)\n    time.sleep(0.3)\n"
    )

    def said(level: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", text.replace("LEVEL", level)], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0
        return done.stderr

    normal = said("")
    assert "shop" in normal
    assert "Started connection pool" not in normal
    assert "Started connection pool: shop" in said("log_level='INFO'")
    assert said("log_level='CRITICAL'") == ""
