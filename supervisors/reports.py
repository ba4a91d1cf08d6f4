"""What a supervisor says about its children: one log record for each event that matters, and events for telemetry."""

from __future__ import annotations

import logging
import reprlib
from typing import Any

from actorpool.core.supervisor.events import Report
from actorpool.supervisors.supervised import plain
from actorpool.thespian_adapter.shell import log as _log

_TEXTS = {
    "terminated": (logging.WARNING, "ended"),
    "start_failed": (logging.WARNING, "did not start"),
    "stop_failed": (logging.WARNING, "did not stop as told"),
    "restarted": (logging.INFO, "was restarted after it ended"),
    "gave_up": (logging.ERROR, "was restarted too often and is given up; it ended"),
}
_EVENTS = {"restarted": "supervisor.restarted", "gave_up": "supervisor.gave_up"}

Telling = tuple[str, dict[str, Any], dict[str, Any]]


def log(supervisor: Any, report: Report) -> Telling | None:
    """Log a crash report.

    Args:
        supervisor: how the supervisor is called.
        report: what the machine reports.

    Returns:
        Name, measurements and metadata of the event that goes with it, if one does.
    """
    level, what = _TEXTS[report.kind]
    process = "" if report.pid is None else f" (pid {report.pid})"
    text = f"supervisor {supervisor!r}: child {reprlib.repr(report.id)}{process} {what}: {report.end.reason}"
    window = f"; {report.window} restart(s) of at most {report.limit} within {report.period:g} s"
    trace = f"\n{report.end.traceback.rstrip()}" if report.end.traceback and level > logging.INFO else ""
    _log.log(level, "%s%s%s", text, window, trace)
    name = _EVENTS.get(report.kind)
    if name is None:
        return None
    metadata = {
        "supervisor": supervisor,
        "child": plain(report.id),
        "pid": report.pid,
        "reason": str(report.end.reason),
    }
    return name, {"restarts": report.window}, metadata
