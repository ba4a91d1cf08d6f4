"""What a supervisor logs about its children, and which of it is an event."""

import logging

import pytest

from actorpool.core.supervisor.children import End
from actorpool.core.supervisor.events import Report
from actorpool.supervisors import supervisor

CRASH = End("KeyError: 7", "Traceback (most recent call last):\n  ...\nKeyError: 7\n")


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "actorpool")

    def tell(kind, end=CRASH):
        event = supervisor.log_report("team", Report(kind, "planner", 4711, end, 2, 5, 10.0))
        (record,) = caplog.records
        return record, event

    return tell


@pytest.mark.parametrize(
    ("kind", "level", "event"),
    [
        ("terminated", "WARNING", None),
        ("start_failed", "WARNING", None),
        ("stop_failed", "WARNING", None),
        ("restarted", "WARNING", "supervisor.restarted"),
        ("gave_up", "ERROR", "supervisor.gave_up"),
    ],
)
def test_every_report_names_supervisor_child_process_reason_and_restarts(told, kind, level, event):
    record, telemetry = told(kind)
    assert record.levelname == level
    for part in ("'team'", "'planner'", "4711", "KeyError: 7", "2 restart(s) of at most 5 within 10 s"):
        assert part in record.getMessage()
    assert (telemetry[0] if telemetry else None) == event


def test_a_crash_is_logged_with_its_traceback(told):
    record, _ = told("terminated")
    assert "Traceback (most recent call last)" in record.getMessage()


def test_the_traceback_is_not_written_a_second_time_with_the_restart(told):
    record, _ = told("restarted")
    assert "Traceback" not in record.getMessage()


def test_an_event_carries_what_and_why(told):
    _, (name, measurements, metadata) = told("restarted")
    assert (name, measurements) == ("supervisor.restarted", {"restarts": 2})
    assert metadata == {"supervisor": "team", "child": "planner", "pid": 4711, "reason": "KeyError: 7"}
