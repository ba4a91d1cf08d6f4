"""What an operator does to a running pool from the shell."""

from __future__ import annotations

from tests.cli.running import run, told, up, write


def workers():
    return {worker["pid"] for worker in told("status", "shop", "echo")["workers"]}


def test_what_an_operator_does_to_a_pool_is_done(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        assert "size 3+1, 3 workers" in run("resize", "shop", "echo", "3", "--max-overflow", "1").stdout
        assert told("status", "shop", "echo")["pool"]["size"] == 3
        assert run("resize", "shop", "echo").returncode == 2
        assert run("resize", "shop", "echo", "-1").returncode == 2
        before = workers()
        assert run("recycle", "shop", "echo", "--restart").returncode == 0
        assert not before & workers()
        assert told("drain", "shop", "echo")["pool"]["state"] == "draining"
        assert told("resume", "shop", "echo")["pool"]["state"] == "ready"
