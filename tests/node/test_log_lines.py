"""The lines of a node's log."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import tempfile

import pytest

import actorpool
from actorpool.node import log_lines


def record(text, level=logging.INFO, name="actorpool", exc_info=None):
    return logging.LogRecord(name, level, "file.py", 1, text, (), exc_info)


def test_a_json_line_has_who_what_and_when():
    line = json.loads(log_lines.formatter("json", "shop").format(record("worker 3 of pool write: a\nline")))
    assert (line["node"], line["pool"], line["worker"]) == ("shop", "write", 3)
    assert (line["level"], line["pid"], line["message"]) == ("INFO", os.getpid(), "worker 3 of pool write: a\nline")
    assert line["time"].endswith("Z")
    assert list(line)[:4] == ["time", "level", "node", "pool"]


def test_others_messages_name_no_pool_of_ours():
    line = json.loads(log_lines.formatter("json", "shop").format(record("the pool of others", name="urllib3")))
    assert (line["pool"], line["worker"]) == (None, None)


def test_a_traceback_is_within_its_line():
    try:
        raise ValueError("no")
    except ValueError:
        text = log_lines.formatter("json", "shop").format(record("failed", exc_info=sys.exc_info()))
    assert "\n" not in text
    assert "ValueError: no" in json.loads(text)["traceback"]


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7)]
)
def test_in_the_journal_each_line_has_its_priority_and_no_time(monkeypatch, level, priority):
    with tempfile.TemporaryFile("w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        lines = log_lines.for_stream(stream, "text", "shop").format(record("one\ntwo", level))
        assert lines == f"<{priority}>one\n<{priority}>two"
        elsewhere = log_lines.for_stream(io.StringIO(), "text", "shop").format(record("one", level))
        assert not elsewhere.startswith("<")


def test_a_node_writes_json_if_it_is_told_to(tmp_path):
    file = tmp_path / "node.log"
    with actorpool.start(log_file=file, log_format="json") as system:
        system.start_pool("write", worker="actorpool.workers:EchoWorker", size=1)
        name = system.name
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["node"] for line in lines} == {name}
    assert any(line["message"] == "Started connection pool: write" and line["pool"] == "write" for line in lines)


def test_another_format_is_refused():
    with pytest.raises(actorpool.InvalidConfig, match="log_format: must be one of text, json"):
        actorpool.start(log_format="xml")
