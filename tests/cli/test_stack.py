"""`actorpool stack`: where workers are in their code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.running import run, told, up, write

CALLER = """
import sys, time, actorpool
def a_call_that_takes_long(connection):
    time.sleep(60)
lease = actorpool.connect("shop").pool("echo").checkout()
print(lease.worker_id, flush=True)
lease.run(a_call_that_takes_long)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with up(write(tmp_path_factory.mktemp("shop"))) as node:
        node.wait_for("serves")
        yield node


def test_the_stack_of_a_busy_worker_has_the_function_that_runs(shop, eventually):
    caller = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True)
    try:
        worker = caller.stdout.readline().strip()
        eventually(lambda: "a_call_that_takes_long" in run("stack", "shop", "echo", worker).stdout, 20)
        everyone = run("stack", "shop", "echo").stdout
        assert "worker 1 (pid" in everyone
        assert "worker 2 (pid" in everyone
        stacks = told("stack", "shop", "echo")["stacks"]
        assert [one["worker"] for one in stacks] == [1, 2]
    finally:
        caller.kill()
        caller.communicate()


def test_a_worker_that_is_none_is_told_with_those_that_are(shop):
    absent = run("stack", "shop", "echo", "77")
    assert absent.returncode == 1
    assert "has no worker 77. Its workers: 1, 2." in absent.stderr
    assert run("stack", "shop", "echo", "one").returncode == 2
