"""Hub and samples: pure, so no socket, process or clock is needed."""

from __future__ import annotations

import logging
import pickle
import sys
import types
from dataclasses import dataclass, field

import pytest

from actorpool.errors import InvalidConfig
from actorpool.messages import Event
from actorpool.status import PoolMetrics, Sample
from actorpool.telemetry import EVENTS, FREQUENT, FunctionSink, Hub, LoggingSink, Samples, StatsdSink, sinks_of
from actorpool.telemetry.complaints import KINDS, QUIET, Complaints
from actorpool.telemetry.events import matcher


def event(name: str = "pool.checkout", time: float = 100.0, **measurements: float) -> Event:
    return Event(name, "db", time, measurements)


@dataclass
class Recorder:
    """A sink that is its own outlet; `broken` makes it raise."""

    pattern: str = "*"
    broken: bool = False
    seen: list[str] = field(default_factory=list, repr=False)
    opened: int = field(default=0, repr=False)
    asked: int = field(default=0, repr=False)

    def open(self) -> Recorder:
        self.opened += 1
        return self

    def wants(self, name: str) -> bool:
        self.asked += 1
        return bool(matcher(self.pattern)(name))

    def emit(self, event: Event) -> None:
        if self.broken:
            raise RuntimeError("no disk")
        self.seen.append(event.name)

    def flush(self) -> None:
        self.seen.append("flush")

    def close(self) -> None:
        self.seen.append("close")


class Address:
    """Like an actor's address: compares, but has no hash."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and other.name == self.name

    def __repr__(self) -> str:
        return self.name


ALICE, BOB = Address("alice"), Address("bob")


def test_nobody_wants_anything_of_an_empty_hub():
    hub = Hub()
    assert not any(hub.wants(name) for name in EVENTS)
    assert hub.emit(event()) == []


def test_a_sink_gets_what_it_wants_and_is_asked_once_for_each_name():
    sink = Recorder("pool.*")
    hub = Hub([sink], "db")
    assert hub.wants("pool.checkout")
    assert not hub.wants("worker.died")
    for name in ("pool.checkout", "worker.died", "pool.checkin", "pool.checkout"):
        hub.emit(event(name))
    assert sink.seen == ["pool.checkout", "pool.checkin", "pool.checkout"]
    assert (sink.opened, sink.asked) == (1, 3)


def test_a_subscriber_gets_an_event_once_however_many_of_its_patterns_match():
    hub = Hub()
    hub.subscribe("worker.*", ALICE)
    hub.subscribe("*", ALICE)
    hub.subscribe("*.died", BOB)
    happened = event("worker.died")
    assert hub.emit(happened) == [(ALICE, happened), (BOB, happened)]
    assert [address for address, _ in hub.emit(event("pool.started"))] == [ALICE]


def test_subscribing_twice_changes_nothing_and_unsubscribing_forgets_every_pattern():
    hub = Hub()
    for pattern in ("worker.*", "worker.*", "pool.*"):
        hub.subscribe(pattern, ALICE)
    hub.subscribe("pool.*", BOB)
    assert hub.subscriptions == [("worker.*", ALICE), ("pool.*", ALICE), ("pool.*", BOB)]
    hub.unsubscribe(ALICE)
    assert hub.subscriptions == [("pool.*", BOB)]
    assert hub.wants("pool.checkin")
    assert not hub.wants("worker.died")


def test_a_new_subscription_is_heard_although_the_name_was_unwanted_before():
    hub = Hub()
    assert not hub.wants("pool.leak")
    hub.subscribe("pool.leak", ALICE)
    assert hub.wants("pool.leak")


def test_a_sink_that_raises_gets_the_later_events_and_is_logged_at_most_once_in_ten_seconds(caplog):
    now = 0.0
    broken, sound = Recorder(broken=True), Recorder()
    hub = Hub([broken, sound], "db", clock=lambda: now)
    with caplog.at_level(logging.ERROR, "actorpool"):
        for now in (0.0, 1.0, QUIET - 0.1):  # noqa: B007
            hub.emit(event())
        assert [record.getMessage() for record in caplog.records] == [
            f"pool db: telemetry sink {Recorder(broken=True)!r} failed: RuntimeError('no disk')"
        ]
        now = QUIET
        hub.emit(event())
    assert len(caplog.records) == 2
    assert len(sound.seen) == 4
    broken.broken = False
    hub.emit(event())
    assert broken.seen == ["pool.checkout"]
    assert broken.opened == 1


def test_a_sink_that_cannot_be_opened_is_opened_again_after_a_while(caplog):
    now, opened = 0.0, []

    class Late(Recorder):
        def open(self):
            opened.append(now)
            if now < QUIET:
                raise OSError("not there yet")
            return self

    sink = Late()
    hub = Hub([sink], clock=lambda: now)
    for now in (0.0, 1.0, QUIET, QUIET + 1):  # noqa: B007
        hub.emit(event())
    assert opened == [0.0, QUIET]
    assert sink.seen == ["pool.checkout"] * 2
    assert len(caplog.records) == 1


def test_what_a_sink_has_not_taken_is_counted_under_its_name():
    class Closed(Recorder):
        def open(self):
            raise OSError("not there yet")

    hub = Hub([Recorder(broken=True), Recorder(), Closed(), LoggingSink()], "db")
    for _ in range(3):
        hub.emit(event())
    assert hub.dropped() == {"recorder": 3, "closed": 3, "logging": 0}


def test_each_kind_of_error_is_told_once_in_a_while_whatever_the_wall_clock_does():
    now = 100.0
    complaints = Complaints(lambda: now)
    assert complaints.due(ValueError("a"))
    assert not complaints.due(ValueError("b"))
    assert complaints.due(KeyError("a"))
    now += QUIET
    assert complaints.due(ValueError("c"))
    for number in range(10 * KINDS):
        assert complaints.due(type(f"Error{number}", (Exception,), {})())
    assert len(complaints._told) <= KINDS


def test_a_hub_that_is_told_all_its_listeners_knows_no_others():
    hub = Hub()
    hub.subscribe("pool.*", ALICE)
    assert hub.wants("pool.started")
    hub.listen([("worker.*", BOB)])
    assert hub.subscriptions == [("worker.*", BOB)]
    assert not hub.wants("pool.started")
    assert hub.wants("worker.died")


def test_a_sink_that_cannot_be_opened_breaks_nothing(caplog):
    hub = Hub([FunctionSink("no_such_module:function")], "db", here=True)
    assert hub.wants("pool.started")
    assert hub.emit(event("pool.started")) == []
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "no_such_module" in caplog.text


def test_in_the_users_own_process_a_function_is_called_directly():
    hub = Hub([FunctionSink("tests_collected_events:append")], here=True)
    module = types.ModuleType("tests_collected_events")
    collected: list[Event] = []
    module.append = collected.append  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        hub.emit(event("pool.started"))
    finally:
        del sys.modules[module.__name__]
    assert collected == [event("pool.started")]


def test_flush_and_close_reach_sinks_that_were_opened():
    used, unused = Recorder(), Recorder()
    hub = Hub([used])
    Hub([unused]).flush()
    hub.emit(event())
    hub.flush()
    hub.close()
    assert used.seen == ["pool.checkout", "flush", "close"]
    assert unused.opened == 0


def test_a_logging_sink_writes_one_line_for_each_event_that_its_pattern_covers(caplog):
    hub = Hub([LoggingSink("WARNING", pattern="worker.*")])
    hub.emit(event())
    hub.emit(Event("worker.died", "db", 1.0, {"ms": 1.23456}, {"worker": 3}))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "worker.died pool=db ms=1.235 worker=3")
    ]


def test_a_logging_sink_below_the_loggers_level_is_not_even_asked():
    logging.getLogger("actorpool.quiet").setLevel(logging.ERROR)
    assert not Hub([LoggingSink("INFO", "actorpool.quiet")]).wants("pool.started")


def test_sinks_are_settings_that_travel():
    for sink in (StatsdSink("127.0.0.1", 9, "x"), LoggingSink("DEBUG"), FunctionSink("os.path:basename")):
        assert pickle.loads(pickle.dumps(sink)) == sink


@pytest.mark.parametrize(
    ("telemetry", "kinds"),
    [
        (None, []),
        (LoggingSink(), [LoggingSink]),
        ("os.path:basename", [FunctionSink]),
        ([StatsdSink(), "os.path:basename"], [StatsdSink, FunctionSink]),
        (Recorder(), [Recorder]),
    ],
)
def test_what_start_takes_as_telemetry(telemetry, kinds):
    assert [type(sink) for sink in sinks_of(telemetry)] == kinds


@pytest.mark.parametrize("wrong", [5, print, "nomodule", "a b:c", LoggingSink, [StatsdSink(), 7, "x"]])
def test_what_is_no_sink_is_refused_by_name(wrong):
    with pytest.raises(InvalidConfig, match="telemetry"):
        sinks_of(wrong)


def test_every_wrong_entry_of_a_list_is_named():
    with pytest.raises(InvalidConfig) as caught:
        sinks_of([StatsdSink(), 7, "x"])
    assert list(caught.value.problems) == ["telemetry[1]", "telemetry[2]"]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"port": 0}, {"port"}),
        ({"port": True}, {"port"}),
        ({"port": "8125", "prefix": "a:b"}, {"port", "prefix"}),
        ({"host": "no host of this name"}, {"host"}),
        ({"host": 5}, {"host"}),
    ],
)
def test_a_statsd_sink_names_its_bad_settings(fields, wrong):
    with pytest.raises(InvalidConfig) as caught:
        StatsdSink(**fields)
    assert caught.value.problems.keys() == wrong


def test_a_logging_sink_refuses_an_unknown_level():
    with pytest.raises(InvalidConfig, match="level"):
        LoggingSink("LOUD")


def test_every_frequent_event_is_an_event():
    assert set(EVENTS) > FREQUENT


def sample(leases: int, time: float = 0.0) -> Sample:
    return Sample(time, leases, waiting=0, total=4, wait_ms_p50=0.1, wait_ms_p99=0.2)


def test_metrics_of_no_samples_are_zero():
    assert Samples().metrics() == PoolMetrics((), 0, 0, 0.0)


def test_metrics_are_minimum_maximum_and_average_of_the_leases_in_the_samples():
    samples = Samples()
    for leases in (3, 1, 5):
        samples.add(sample(leases))
    metrics = samples.metrics()
    assert (metrics.minimum, metrics.maximum, metrics.average) == (1, 5, 3.0)
    assert [item.leases for item in metrics.samples] == samples.leases() == [3, 1, 5]


def test_only_the_last_hundred_samples_count():
    samples = Samples()
    for number in range(250):
        samples.add(sample(number))
    assert len(samples) == 100
    assert samples.metrics().minimum == 150
