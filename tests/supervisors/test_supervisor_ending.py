"""Ending processes from an actor that is about to end: asked, given their time, killed; with and without pidfds."""

import subprocess
import sys
import time

import pytest

from actorpool import process
from actorpool.supervisors.ending import end_processes

OBEDIENT = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
DEAF_AT_FIRST = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(0.3);"
    "signal.signal(signal.SIGTERM, signal.SIG_DFL); time.sleep(60)"
)


@pytest.fixture(params=["pidfd", "polling"], autouse=True)
def way(request, monkeypatch):
    if request.param == "polling":
        monkeypatch.setattr(process, "watch_descriptor", lambda pid: None)


@pytest.fixture
def run():
    processes = []

    def start(program):
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        processes.append(child)
        assert child.stdout.readline() == b"up\n"
        return child.pid

    yield start
    for child in processes:
        child.kill()
        child.communicate()


def took(pids, within):
    began = time.monotonic()
    end_processes(pids, within)
    assert not any(map(process.alive, pids))
    return time.monotonic() - began


def test_who_obeys_is_gone_at_once(run):
    assert took([run(OBEDIENT), run(OBEDIENT)], 5.0) < 1.0


def test_who_does_not_is_killed_at_the_common_time(run):
    assert 0.4 <= took([run(STUBBORN), run(OBEDIENT), run(STUBBORN)], 0.4) < 1.5


def test_brutal_kill_asks_nobody(run):
    assert took([run(STUBBORN)], "brutal_kill") < 1.0


def test_a_process_that_lost_the_first_request_is_asked_again(run):
    assert took([run(DEAF_AT_FIRST)], "infinity") < 2.0


def test_who_is_gone_already_costs_nothing(run):
    pid = run(OBEDIENT)
    process.kill(pid)
    end_processes([pid, 2**22 + 1], 5.0)
    assert took([], "infinity") < 0.1
