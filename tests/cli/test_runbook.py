"""The runbook's commands, each in the state in which somebody would type it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import actorpool
from tests.cli.running import run, up

TEXT = (Path(__file__).resolve().parent.parent.parent / "docs" / "runbook.md").read_text(encoding="utf-8")
BLOCKS = {
    title: [shlex.split(line)[1:] for line in re.findall(r"(?m)^actorpool .*$", block)]
    for title, block in re.findall(r"(?ms)^## ([^\n]*)\n.*?```console\n(.*?)```", TEXT)
}
OF_A_CLUSTER = "A host is missing"
HOLDER = """
import time, actorpool
lease = actorpool.connect("shop").pool("write").checkout()
print("out", flush=True)
time.sleep(60)
"""
WAITER = "import actorpool; actorpool.connect('shop').pool('write').checkout(timeout=50)"


@contextlib.contextmanager
def node(folder, monkeypatch, pool="", tables=""):
    monkeypatch.chdir(folder)
    worker = "actorpool.workers:EchoWorker"
    settings = pool or f"worker = '{worker}'"
    Path("shop.toml").write_text(
        f"[system]\nname = 'shop'\n[pools.write]\n{settings}\nsize = 1\nmax_overflow = 0\n{tables}"
    )
    with up(folder / "shop.toml") as running:
        yield running


def typed(title):
    """The section's commands, done; each with its exit code and its words."""
    assert len(BLOCKS[title]) == 3
    done = [run(*arguments) for arguments in BLOCKS[title]]
    for one in done:
        assert "Traceback" not in one.stderr
        assert one.returncode in (0, 1), one.stderr
    return [(one.returncode, one.stdout + one.stderr) for one in done]


def test_every_section_has_its_test():
    tested = {
        "Callers wait", "Degraded", "A worker keeps dying", "A supervisor gave up", "A node does not start",
        "Memory grows", "The disk is full",
    }  # fmt: skip
    assert set(BLOCKS) == tested | {OF_A_CLUSTER}


def test_the_commands_about_a_missing_host_are_such(tmp_path, monkeypatch):
    """What they tell is tested with Ray, in `tests/cluster`."""
    monkeypatch.chdir(tmp_path)
    Path("shop.toml").write_text("[system]\nname = 'shop'\n")
    for arguments in BLOCKS[OF_A_CLUSTER]:
        assert run(*arguments).returncode in (0, 1), arguments


def test_callers_wait(tmp_path, monkeypatch, eventually):
    with node(tmp_path, monkeypatch) as running:
        running.wait_for("serves")
        holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE)
        assert holder.stdout.readline()
        waiter = subprocess.Popen([sys.executable, "-c", WAITER])
        try:
            with actorpool.connect("shop") as system:
                eventually(lambda: system.status("write").waiting == 1, 20)
            (_, all_pools), (_, one), (code, resized) = typed("Callers wait")
            assert "write: all 1 workers are out; 1 wait, the oldest" in all_pools
            assert f"pid {holder.pid}" in one
            assert code == 0
            assert "size 8" in resized
            assert waiter.wait(20) == 0
        finally:
            for process in (holder, waiter):
                process.kill()
                process.communicate()


@pytest.mark.slow
def test_degraded(tmp_path, monkeypatch):
    pool = "worker = 'tests.cli.workers:Away'\ncheckout_timeout = 0.5"
    with node(tmp_path, monkeypatch, pool) as running:
        running.wait_for("not serving: write (degraded)")
        (_, status), (examined, found), (recycled, _) = typed("Degraded")
        assert "its workers cannot connect" in status
        assert examined == 1
        assert "ConnectionError: the server is away" in found
        assert recycled == 1


def test_a_worker_keeps_dying(tmp_path, monkeypatch, eventually):
    with node(tmp_path, monkeypatch) as running:
        running.wait_for("serves")
        with actorpool.connect("shop") as system:
            os.kill(system.pool("write").workers()[0].pid, signal.SIGKILL)
            eventually(lambda: system.status("write").restarts == 1, 20)
            eventually(lambda: system.status("write").workers == 1, 20)
        (_, events), (_, status), (_, suspended) = typed("A worker keeps dying")
        assert "SIGKILL" in events
        assert "restarts 1" in status
        assert "suspended" in suspended
        with actorpool.connect("shop") as system:  # what was started by the node since then ends before the test does
            system.pool("write").resume()


def test_a_supervisor_gave_up(tmp_path, monkeypatch, eventually):
    tables = """
[supervisors.agents]
max_restarts = 0
[[supervisors.agents.children]]
id = "planner"
actor = "actorpool.workers:EchoWorker"
"""
    with node(tmp_path, monkeypatch, tables=tables) as running:
        running.wait_for("serves")
        with actorpool.connect("shop") as system:
            agents = named(system.tree(), "agents")
            os.kill(named(agents, "planner").pid, signal.SIGKILL)
            eventually(lambda: (found := named(system.tree(), "agents")) is None or found.pid != agents.pid, 20)
        (_, tree), (_, events), (examined, _) = typed("A supervisor gave up")
        assert "agents" not in tree or re.search(r"agents.*restart", tree)
        assert "supervisor.gave_up" in events
        assert examined == 0


def named(tree, id):
    if tree.id == id:
        return tree
    return next((found for child in tree.children if (found := named(child, id))), None)


def test_a_node_does_not_start(tmp_path, monkeypatch):
    with node(tmp_path, monkeypatch) as running:
        running.wait_for("serves")
        (_, nodes), (_, found), (code, refused) = typed("A node does not start")
        assert "shop" in nodes
        assert "node shop" in found
        assert code == 1
        assert "a node named 'shop' is running" in refused


def test_memory_grows(tmp_path, monkeypatch):
    with node(tmp_path, monkeypatch) as running:
        running.wait_for("serves")
        (_, before), (code, _), (_, after) = typed("Memory grows")
        assert code == 0
        assert re.search(r"MEMORY.*\n.*\d MiB", before)
        assert re.search(r"MEMORY.*\n.*\d MiB", after)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
@pytest.mark.slow
def test_the_disk_is_full(tmp_path, monkeypatch, short_path):
    small = short_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        monkeypatch.setenv("ACTORPOOL_RUNTIME_DIR", str(small))
        with node(tmp_path, monkeypatch) as running:
            running.wait_for("serves")
            with contextlib.suppress(OSError), open(small / "filling", "wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            (examined, found), (_, status), (_, refused) = typed("The disk is full")
            assert examined == 1
            assert re.search(r"fail\s+disk", found)
            assert "ready" in status
            assert "a node named 'shop' is running" in refused
            os.rename("shop.toml", "other.toml")
            other = run("up", "other.toml", "--name", "other")
            assert other.returncode == 1
            assert "No space left" in other.stderr
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
