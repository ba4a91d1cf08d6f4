"""Sinks against real sockets and processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from actorpool.errors import InvalidConfig
from actorpool.messages import Event
from actorpool.telemetry import Counted, FunctionSink, Hub, StatsdSink
from actorpool.telemetry.complaints import QUIET
from actorpool.telemetry.function import ProcessOutlet
from actorpool.telemetry.runner import Runner


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(5)
        yield listening


@pytest.fixture
def statsd(server: socket.socket) -> Iterator[Hub]:
    hub = Hub([StatsdSink("localhost", server.getsockname()[1])], "db")
    yield hub
    hub.close()


def received(server: socket.socket) -> list[str]:
    return server.recv(65536).decode().split("\n")


def test_a_checkout_is_a_counter_and_a_timing(server, statsd):
    statsd.emit(Event("pool.checkout", "db", time.time(), {"wait_ms": 1.5}, {"worker": 1}))
    assert received(server) == ["actorpool.db.checkout:1|c", "actorpool.db.checkout_time:1.500000|ms"]


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        (
            Event("pool.checkin", "db", 1e9, {"hold_ms": 2}),
            ["actorpool.db.checkin:1|c", "actorpool.db.hold_time:2.000000|ms"],
        ),
        (Event("pool.timeout", "db", 1e9, {"timeout": 5.0}), ["actorpool.db.timeout:1|c"]),
        (Event("pool.overflow", "db", 1e9, {"overflow": 2}), ["actorpool.db.overflow:1|c"]),
        (Event("pool.resized", "db", 1e9, {"size": 2}), ["actorpool.db.resized:1|c", "actorpool.db.size:2|g"]),
        (Event("worker.restarted", "db", 1e9), ["actorpool.db.worker.restarted:1|c"]),
        (
            Event("call.done", "db", 1e9, {"ms": 0.25}),
            ["actorpool.db.call.done:1|c", "actorpool.db.call.done_time:0.250000|ms"],
        ),
        (
            Event("pool.sample", "db", 1e9, {"leases": 3, "wait_ms_p50": 0.5, "sessions": None}),
            ["actorpool.db.leases:3|g", "actorpool.db.wait_ms_p50:0.5|g"],
        ),
        (Event("supervisor.gave_up", None, 1e9), ["actorpool.supervisor.gave_up:1|c"]),
    ],
)
def test_names_and_kinds_of_statsd_figures(server, statsd, event, lines):
    statsd.emit(event)
    assert received(server) == lines


def test_frequent_events_travel_in_full_datagrams_and_the_rest_with_a_flush(server, statsd):
    now = time.time()
    for _ in range(1000):
        statsd.emit(Event("pool.checkout", "db", now, {"wait_ms": 0.01}))
    statsd.flush()
    datagrams = []
    while sum(line.endswith("|c") for datagram in datagrams for line in datagram) < 1000:
        datagrams.append(received(server))
    assert len(datagrams) < 100
    assert max(len("\n".join(lines)) for lines in datagrams) <= 1432


def test_counts_are_sums_and_their_timings_a_sample_with_its_rate(server):
    hub = Hub([StatsdSink("localhost", server.getsockname()[1])], "my.db", counts=True)
    assert (hub.interval, hub.wants("pool.checkout"), hub.wants("pool.timeout")) == (1.0, False, True)
    hub.count("my.db", [Counted("pool.checkin", 101, 7.5, [1.0, 2.0]), Counted("call.done", 1, 0.5, [])])
    assert received(server) == [
        "actorpool.my_db.checkin:101|c",
        "actorpool.my_db.hold_time:7.500000|ms",
        "actorpool.my_db.hold_time:1.000000|ms|@0.020000000",
        "actorpool.my_db.hold_time:2.000000|ms|@0.020000000",
        "actorpool.my_db.call.done:1|c",
        "actorpool.my_db.call.done_time:0.500000|ms",
    ]
    hub.close()


@pytest.mark.parametrize("interval", [0, -1, 0.001, float("nan"), float("inf"), True, "1", None])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(InvalidConfig, match="interval"):
        StatsdSink(interval=interval)


def test_a_figure_that_the_kernel_does_not_take_is_counted(free_port):
    class Full:
        def sendto(self, data, address):
            raise BlockingIOError

        def close(self):
            pass

    outlet = StatsdSink("127.0.0.1", free_port).open()
    outlet._client._sock.close()
    outlet._client._sock = Full()
    outlet.emit(Event("worker.restarted", "db", 1.0))
    assert outlet.dropped == 1
    outlet.close()


def test_without_a_server_nothing_happens(free_port):
    hub = Hub([StatsdSink("127.0.0.1", free_port)], "db")
    for second in range(100):
        hub.emit(Event("pool.started", "db", float(second)))
    hub.close()


FUNCTION = """
import os, time
out = open({path!r}, "a", buffering=1)
def note(event): print(os.getpid(), event.name, event.measurements.get("n"), file=out)
def slow(event): note(event); time.sleep(60)
def fails(event): raise RuntimeError("never works")
def dies(event): os._exit(3)
def fatal(event):
    note(event)
    if event.measurements["n"] == "fatal": os._exit(3)
def sometimes(event):
    note(event)
    if event.measurements["n"] % 2: raise ValueError("odd")
"""


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A user's module `user_functions` and the file it writes to."""
    path = tmp_path / "notes"
    (tmp_path / "user_functions.py").write_text(FUNCTION.format(path=str(path)))
    monkeypatch.syspath_prepend(str(tmp_path))
    return path


def test_a_function_gets_every_event_in_order_in_a_process_of_its_own(notes):
    hub = Hub([FunctionSink("user_functions:note")])
    for number in range(500):
        hub.emit(Event("call.done", "db", 1.0, {"n": number}))
    hub.close()
    lines = [line.split() for line in notes.read_text().splitlines()]
    assert [line[1:] for line in lines] == [["call.done", str(number)] for number in range(500)]
    assert {int(line[0]) for line in lines} != {os.getpid()}


def test_a_function_that_blocks_delays_nobody_and_does_not_outlive_its_actor(notes, eventually, monkeypatch):
    monkeypatch.setattr("actorpool.telemetry.function.GRACE", 0.2)
    hub = Hub([FunctionSink("user_functions:slow")])
    hub.emit(Event("call.done", "db", 1.0))
    eventually(notes.exists)
    begun = time.monotonic()
    for _ in range(1000):
        hub.emit(Event("call.done", "db", 1.0))
    assert time.monotonic() - begun < 1
    hub.close()
    assert time.monotonic() - begun < 3


def test_a_function_that_blocks_loses_events_beyond_the_backlog_and_says_so(notes, monkeypatch, caplog):
    monkeypatch.setattr("actorpool.telemetry.function.GRACE", 0.2)
    monkeypatch.setattr("actorpool.telemetry.function.BACKLOG", 10)
    hub = Hub([FunctionSink("user_functions:slow")])
    for _ in range(50):
        hub.emit(Event("call.done", "db", 1.0, {"n": "x" * 65536}))
    assert [record.getMessage() for record in caplog.records] == [
        "telemetry function user_functions:slow is 10 events behind: dropping"
    ]
    assert 25 < hub.dropped()["user_functions:slow"] <= 40  # what was neither sent nor among the 10
    hub.close()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("user_functions:fails", "RuntimeError: never works"),
        ("user_functions:missing", "AttributeError"),
        ("no_such_module:f", "ModuleNotFoundError"),
        ("sys:path", "TypeError"),
    ],
)
def test_a_function_that_does_not_work_is_logged_once(notes, eventually, caplog, target, said):
    hub = Hub([FunctionSink(target)])

    def complained() -> bool:
        hub.emit(Event("call.done", "db", 1.0))
        return bool(caplog.records)

    eventually(complained, timeout=20)
    for _ in range(100):
        hub.emit(Event("call.done", "db", 1.0))
    hub.close()
    assert len(caplog.records) == 1
    assert target in caplog.text
    assert said in caplog.text


def test_a_function_that_ends_its_process_is_started_again_and_gets_the_later_events(notes, eventually):
    now = 0.0
    outlet = ProcessOutlet("user_functions:fatal", clock=lambda: now)

    def gone() -> bool:
        try:
            outlet.flush()
        except ConnectionResetError:
            return True
        return False

    outlet.emit(Event("call.done", "db", 1.0, {"n": "fatal"}))
    eventually(gone, timeout=20)
    outlet.emit(Event("call.done", "db", 1.0, {"n": "early"}))  # not yet: it would start a process for each event
    assert outlet._process is None
    now = QUIET
    outlet.emit(Event("call.done", "db", 1.0, {"n": "late"}))
    eventually(lambda: notes.read_text().split()[2::3] == ["fatal", "early", "late"], timeout=20)
    outlet.close()


def test_the_functions_process_dies_with_its_actor(notes, eventually):
    script = (
        "import os, time\nfrom actorpool.messages import Event\n"
        "from actorpool.telemetry.function import ProcessOutlet\n"
        "outlet = ProcessOutlet('user_functions:slow'); outlet.emit(Event('call.done', 'db', 1.0))\n"
        f"while not (os.path.exists({str(notes)!r}) and os.path.getsize({str(notes)!r})): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(notes.parent), os.environ["PYTHONPATH"]])}
    assert subprocess.run([sys.executable, "-c", script], env=env).returncode == -9
    runner = int(notes.read_text().split()[0])
    eventually(lambda: not os.path.exists(f"/proc/{runner}"), timeout=2)


def test_nothing_is_started_before_the_first_event():
    outlet = ProcessOutlet("sys:exit")
    outlet.flush()
    outlet.close()


def test_a_function_that_raises_is_called_with_every_later_event_and_complains_once_in_a_while():
    now, calls, complaints = 0.0, [], []

    def function(event: Event) -> None:
        calls.append(event.measurements["n"])
        raise (ValueError if event.measurements["n"] != 3 else KeyError)("no")

    run = Runner(function, complaints.append, clock=lambda: now)
    for number in range(6):
        run(Event("call.done", "db", 1.0, {"n": number}))
    assert calls == [0, 1, 2, 3, 4, 5]
    assert complaints == ["ValueError: no", "KeyError: 'no'"]
    now = QUIET
    run(Event("call.done", "db", 1.0, {"n": 6}))
    assert complaints[2:] == ["ValueError: no"]


def test_a_function_that_raises_now_and_then_gets_every_event(notes, eventually, caplog):
    hub = Hub([FunctionSink("user_functions:sometimes")])
    for number in range(100):
        hub.emit(Event("call.done", "db", 1.0, {"n": number}))

    def heard() -> bool:
        hub.flush()
        return notes.exists() and [int(n) for n in notes.read_text().split()[2::3]] == list(range(100))

    eventually(heard, timeout=20)
    hub.close()
    assert len([record for record in caplog.records if "odd" in record.getMessage()]) <= 1


def test_a_dot_in_the_name_of_a_pool_makes_no_further_level_of_names(server, statsd):
    statsd.emit(Event("pool.timeout", "db.eu.west", 1e9, {"timeout": 5.0}))
    assert received(server) == ["actorpool.db_eu_west.timeout:1|c"]
