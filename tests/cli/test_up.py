"""`actorpool up` and `down`: the node of a file, from its start to its end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import psutil
import pytest

import actorpool
from actorpool.node import runtime
from tests.cli.running import ACTORPOOL, FILE, clean_environment, read_until, run, told, up, write

SLOW_FILE = """
[system]
name = "shop"
[pools.slow]
worker = "tests.cli.workers:SlowToOpen"
size = 1
checkout_timeout = 30
"""

SLOW_CALL = """
import sys, time, actorpool
pool = actorpool.connect(sys.argv[1]).pool("echo")
lease = pool.checkout()
print("out", flush=True)
lease.run(lambda connection: time.sleep(60))
"""


@pytest.fixture
def holder():
    """Start a process that runs a call of 60 s in a pool of the node."""
    started = []

    def hold(name):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW_CALL, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout.readline() == b"out\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def below(name):
    """The processes of a node."""
    process = psutil.Process(runtime.find(name)[1].pid)
    return [process, *process.children(recursive=True)]


def alive(processes):
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_node_serves_until_the_first_signal_which_drains_it(tmp_path, number):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        with actorpool.connect("shop") as system:
            assert system.pool("echo").run(lambda connection: 3) == 3
        processes = below("shop")
        node.signal(number)
        assert node.end() == 0
    assert not alive(processes)
    assert "draining: 0 leases out" in node.said


def test_a_second_signal_ends_it_at_once_with_a_long_call_running(tmp_path, holder):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        holder("shop")
        processes = below("shop")
        node.signal(signal.SIGINT)
        node.wait_for("draining: 1 leases out")
        began = time.monotonic()
        node.signal(signal.SIGINT)
        assert node.end() == 130
        took = time.monotonic() - began
    assert not alive(processes)
    assert took < 1.0, f"{took:.2f} s"


def test_a_drain_ends_at_its_limit_and_is_no_failure(tmp_path, holder):
    with up(write(tmp_path), "--drain-timeout", "0.2") as node:
        node.wait_for("serves")
        holder("shop")
        node.signal(signal.SIGTERM)
        assert node.end() == 0


def test_a_drain_lets_a_call_finish(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        with actorpool.connect("shop") as system:
            lease = system.pool("echo").checkout()
            node.signal(signal.SIGTERM)
            node.wait_for("draining: 1 leases out")
            assert lease.run(lambda connection: "finished") == "finished"
            lease.checkin()
            assert node.end() == 0


def test_a_name_that_is_taken_is_refused_and_the_running_node_not_touched(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        second = run("up", str(write(tmp_path)))
        assert second.returncode == 1
        assert "a node named 'shop' is running" in second.stderr
        assert "actorpool down shop" in second.stderr
        assert told("status", "shop")["pools"][0]["state"] == "ready"


def test_it_exits_with_1_when_its_node_dies(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        os.kill(runtime.find("shop")[1].pid, signal.SIGKILL)
        assert node.end() == 1
    assert "ended by itself (signal 9)" in node.said
    assert "node.log" in node.said


def test_down_ends_a_node_in_the_foreground_which_then_exits_with_0(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        done = run("down", "shop")
        assert (done.returncode, done.stdout) == (0, "shop has ended\n")
        assert node.end() == 0
    assert "shop was ended" in node.said


def test_a_daemon_outlives_the_command_that_started_it(tmp_path):
    started = run("up", str(write(tmp_path)), "--daemon")
    try:
        assert started.returncode == 0, started.stderr
        with actorpool.connect("shop") as system:
            assert system.pool("echo").run(lambda connection: 3) == 3
    finally:
        ended = run("down", "shop")
    assert ended.returncode == 0
    assert run("down", "shop").returncode == 1


def test_a_signal_before_it_serves_leaves_nothing_behind(tmp_path):
    with up(write(tmp_path, SLOW_FILE)) as node:
        deadline = time.monotonic() + 20
        while "shop" not in runtime.running() and time.monotonic() < deadline:
            time.sleep(0.02)
        processes = below("shop")
        node.signal(signal.SIGTERM)
        assert node.end() == 130
    assert not alive(processes)


@pytest.mark.slow
def test_status_answers_while_pools_start(tmp_path, eventually):
    with up(write(tmp_path, SLOW_FILE)) as node:
        found = eventually(lambda: told("status", "shop")["pools"], 30)
        assert [(pool["name"], pool["state"]) for pool in found] == [("slow", "starting")]
        assert run("status", "shop", "--check").returncode == 1
        node.signal(signal.SIGTERM)
        assert node.end() == 130


def test_a_pool_that_cannot_start_is_named_and_nothing_is_left(tmp_path):
    never = "[system]\nname = 'shop'\n[pools.never]\nworker = 'tests.cli.workers:Never'\n"
    done = run("up", str(write(tmp_path, never)))
    assert done.returncode == 1
    assert "[pools.never] PermanentError: the password is wrong" in done.stderr
    assert "Traceback" not in done.stderr
    assert "shop" not in runtime.running()


def test_a_bad_file_is_refused_before_anything_starts(tmp_path):
    done = run("up", str(write(tmp_path, "[system]\nname = 'shop'\n[pools.a]\nworkr = 'x'\nsize = -1")))
    assert done.returncode == 2
    assert "shop.toml:4: [pools.a] workr is unknown: did you mean worker?" in done.stderr
    assert "shop.toml:5: [pools.a] size must be at least 0, not -1" in done.stderr


def test_workers_of_the_current_directory_are_found(tmp_path):
    (tmp_path / "ours.py").write_text("from actorpool.workers import EchoWorker\nclass Ours(EchoWorker): pass\n")
    file = write(tmp_path, "[system]\nname = 'shop'\n[pools.a]\nworker = 'ours:Ours'\nsize = 1")
    started = subprocess.run(
        [*ACTORPOOL, "up", str(file), "--daemon"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        timeout=50,
    )
    try:
        assert started.returncode == 0, started.stderr
    finally:
        run("down", "shop", "--now")


def test_a_service_manager_hears_when_it_serves_lives_and_stops(tmp_path, short_path):
    address = str(short_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(20)
        heard = []

        def hear_until(word):
            while word not in "\n".join(heard):
                heard.append(manager.recv(4096).decode())

        with up(write(tmp_path), NOTIFY_SOCKET=address, WATCHDOG_USEC="300000") as node:
            hear_until("READY=1")
            with actorpool.connect("shop") as system:
                assert system.status("echo").state == "ready"
                environment = system.pool("echo").run(lambda connection: dict(__import__("os").environ))
            assert "NOTIFY_SOCKET" not in environment
            del heard[:]
            for _ in range(3):
                del heard[:]
                hear_until("WATCHDOG=1")
            node.signal(signal.SIGTERM)
            hear_until("STOPPING=1")
            assert node.end() == 0


@pytest.mark.slow
def test_no_watchdog_is_fed_while_the_manager_does_not_answer(tmp_path, short_path, eventually):
    address = str(short_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        fed = []
        listener = threading.Thread(target=lambda: [fed.append(manager.recv(4096)) for _ in iter(int, 1)], daemon=True)
        listener.start()
        with up(write(tmp_path), NOTIFY_SOCKET=address, WATCHDOG_USEC="150000") as node:
            node.wait_for("serves")
            with actorpool.connect("shop") as system:
                pid = next(child.pid for child in system.tree().children if child.id == "manager")
            os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(0.3)  # whatever was under way
                before = len(fed)
                time.sleep(0.7)
                assert len(fed) == before
            finally:
                os.kill(pid, signal.SIGCONT)
            eventually(lambda: len(fed) > before)
            node.signal(signal.SIGTERM)
            node.end()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a name space of processes")
def test_as_process_1_of_a_container_it_drains_and_ends(tmp_path):
    command = ["unshare", "-fp", "--kill-child", "--mount-proc", *ACTORPOOL, "up", str(write(tmp_path))]
    outer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=clean_environment())
    try:
        said = read_until(outer.stderr.fileno(), "\n")
        if "unshare" in said:
            pytest.skip(said)
        read_until(outer.stderr.fileno(), "serves", text=said)
        (inner,) = psutil.Process(outer.pid).children()
        inner.send_signal(signal.SIGTERM)
        assert outer.wait(20) == 0
    finally:
        outer.kill()
        outer.communicate()


def test_a_pool_that_is_not_enabled_is_not_started(tmp_path):
    text = FILE + "enabled = false\n[pools.other]\nworker = 'actorpool.workers:EchoWorker'\nsize = 1\n"
    with up(write(tmp_path, text)) as node:
        node.wait_for("serves")
        assert "runs 1 pool." in node.said
        assert [pool["name"] for pool in told("status", "shop")["pools"]] == ["other"]


def test_a_dashboard_is_served_and_a_port_that_is_taken_is_refused_without_a_traceback(tmp_path, free_port):
    text = FILE + f"[dashboard]\nport = {free_port}\n"
    with up(write(tmp_path, text)) as node:
        node.wait_for("serves")
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/healthz", timeout=10) as answer:
            assert answer.status == 200
        other = run("up", str(write(tmp_path, text)), "--name", "other")
        assert other.returncode == 1
        assert f"cannot listen on 127.0.0.1:{free_port}" in other.stderr
        assert "Traceback" not in other.stderr
