"""`actorpool events`: what has happened, also as it happens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

import actorpool
from actorpool.node import runtime
from tests.cli.running import ACTORPOOL, clean_environment, read_until, run, told, up, write


@pytest.fixture
def shop(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        yield node


def kill_a_worker(eventually):
    """Kill one and wait until it was replaced; its pid."""
    with actorpool.connect("shop") as system:
        before = system.status("echo").restarts
        pid = system.pool("echo").workers()[0].pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: system.status("echo").restarts > before and system.status("echo").workers == 2, 20)
    return pid


def test_what_has_happened_is_told_in_order(shop, eventually):
    pid = kill_a_worker(eventually)
    events = told("events", "shop")["events"]
    assert [event["number"] for event in events] == sorted(event["number"] for event in events)
    names = [event["name"] for event in events]
    assert names.index("pool.started") < names.index("worker.died")
    (died,) = told("events", "shop", "worker.died")["events"]
    assert (died["pool"], died["metadata"]["pid"]) == ("echo", pid)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", died["time"])
    text = run("events", "shop", "worker.died").stdout
    assert "SIGKILL" in text
    assert str(pid) in text


def test_a_pattern_and_a_time_choose_among_them(shop):
    assert {event["name"] for event in told("events", "shop", "pool.*")["events"]} == {"pool.started"}
    assert told("events", "shop", "--since", "1h")["events"]
    assert told("events", "shop", "--since", "0s")["events"] == []
    none = run("events", "shop", "nothing.*")
    assert (none.returncode, none.stdout) == (0, "")
    assert "No event" in none.stderr
    assert run("events", "shop", "--since", "soon").returncode == 2


@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.slow
def test_those_to_come_are_told_as_they_come(shop, eventually, flags):
    follower = subprocess.Popen(
        [*ACTORPOOL, "events", "shop", "worker.died", "-f", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    try:
        first = kill_a_worker(eventually)
        line = read_until(follower.stdout.fileno(), "\n")
        second = kill_a_worker(eventually)
        other = read_until(follower.stdout.fileno(), "\n")
        assert str(first) in line
        assert str(second) in other
        if flags:
            assert json.loads(line)["event"]["name"] == "worker.died"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130
        assert follower.stderr.read() == ""
    finally:
        follower.kill()
        follower.communicate()


def test_the_last_of_a_pool_are_in_its_status(shop, eventually):
    kill_a_worker(eventually)
    assert "worker.died" in [event["name"] for event in told("status", "shop", "echo")["events"]]
    assert "worker.died" in run("status", "shop", "echo").stdout


def test_what_a_file_got_from_elsewhere_is_in_no_event_no_log_and_no_error(tmp_path):
    text = """
[system]
name = "shop"
[telemetry.statsd]
prefix = "${{SECRET}}"
[pools.telling]
worker = "tests.cli.workers:Telling"
checkout_timeout = 0.5
size = 1
"""
    with up(write(tmp_path, text), SECRET="hunter22") as node:
        node.wait_for("not serving: telling (degraded)")
        events = run("events", "shop", "worker.connect_error")
        assert "refused: ***" in events.stdout
        status = run("status", "shop", "telling", "--json")
        log = (Path(runtime.find("shop")[0]) / "node.log").read_text()
        assert "hunter22" not in events.stdout + status.stdout + log
    assert "hunter22" not in node.said
