"""`actorpool doctor`: the machine, the file, its servers, and what it never shows."""

from __future__ import annotations

import json
import os
import socket
import threading

import pytest

from actorpool.cli import examinations
from actorpool.configuration import load
from tests.cli.running import run, up, write

GOOD = """
[system]
name = "{name}"
[pools.write]
worker = "actorpool.workers:EchoWorker"
size = 2
"""


def checks(*arguments, **environment):
    done = run("doctor", *arguments, "--json", **environment)
    assert done.stdout, done.stderr
    found = {}
    for check in json.loads(done.stdout)["checks"]:
        found.setdefault(check["what"], check)
    return done.returncode, found


def test_a_healthy_machine_is_told_line_by_line():
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    words = {line.split()[0] for line in done.stdout.splitlines()}
    assert words <= {"ok", "warn"}
    for what in ("kernel", "pidfd", "files", "runtime dir", "libraries"):
        assert what in done.stdout


def test_the_pools_of_a_file_are_connected(tmp_path):
    code, found = checks(str(write(tmp_path, GOOD)))
    assert code == 0
    assert found["pool write"]["value"] == "connects"


@pytest.mark.slow
def test_a_server_that_refuses_is_a_failure_without_its_password(tmp_path, free_port):
    text = f"""
[system]
name = "shop"
[pools.write]
worker = "actorpool.workers:PostgresWorker"
worker_args = {{{{ conninfo = "postgresql://app:${{{{PASSWORD}}}}@127.0.0.1:{free_port}/app" }}}}
"""
    done = run("doctor", str(write(tmp_path, text)), PASSWORD="hunter22")
    assert done.returncode == 1
    assert "fail pool write" in done.stdout
    assert "hunter22" not in done.stdout + done.stderr


def test_a_server_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(examinations, "ANSWER_WITHIN", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = (
            GOOD
            + f"""
[pools.silent]
worker = "actorpool.workers:PostgresWorker"
worker_args = {{{{ conninfo = "host=127.0.0.1 port={silent.getsockname()[1]}", connect_timeout = 2 }}}}
"""
        )
        config = load(str(write(tmp_path, text)), {})
        found = {one.what: one for one in examinations.of_servers(config)}
    assert found["pool silent"].result == "fail"
    assert "no answer within 0.3 s" in found["pool silent"].value
    assert found["pool write"].result == "ok"
    assert threading.active_count() < 20


def test_a_real_server_with_too_little_room_is_a_warning(tmp_path, pg):
    text = f"""
[system]
name = "shop"
[pools.write]
worker = "actorpool.workers:PostgresWorker"
worker_args = {{{{ conninfo = "{pg.dsn}" }}}}
size = 900
[pools.read]
worker = "actorpool.workers:PostgresWorker"
worker_args = {{{{ conninfo = "{pg.dsn}" }}}}
size = 900
"""
    code, found = checks(str(write(tmp_path, text)))
    assert code == 0
    assert found["connections"]["result"] == "warn"
    assert "its pools may take 1820" in found["connections"]["value"]


def test_the_limits_of_the_machine_are_compared_with_the_sum_of_sizes(tmp_path, monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda number: (100, 100))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    text = GOOD.replace("size = 2", "size = 200")
    config = load(str(write(tmp_path, text)), {})
    found = {one.what: one for one in examinations._limits(config)}
    assert found["processes"].result == "fail"
    assert "at most 100, 215 needed" in found["processes"].value
    assert found["files"].result == "fail"


def test_a_runtime_directory_that_is_too_long_or_not_ours_fails(tmp_path):
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    code, found = checks(str(write(tmp_path, GOOD)), ACTORPOOL_RUNTIME_DIR=str(deep))
    assert code == 1
    assert found["socket paths"]["result"] == "fail"
    (tmp_path / f"actorpool-{os.geteuid()}").symlink_to(tmp_path)
    code, found = checks(ACTORPOOL_RUNTIME_DIR=str(tmp_path))
    assert (code, found["runtime dir"]["result"]) == (1, "fail")


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert examinations._port("127.0.0.1", server.getsockname()[1]).result == "warn"


def test_running_nodes_are_told_with_their_version(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        _, found = checks()
        assert "actorpool 0." in found["node shop"]["value"]


def test_a_bad_file_is_exit_code_2_with_every_problem(tmp_path):
    file = str(write(tmp_path, "[system]\nnam = 'shop'\n[pools.a]\nworker = 3\n"))
    done = run("doctor", file)
    assert done.returncode == 2
    assert "did you mean name?" in done.stderr
    problems = json.loads(run("doctor", file, "--json").stdout)["error"]["problems"]
    assert {(problem["table"], problem["key"]) for problem in problems} == {
        ("system", "nam"), ("system", "name"), ("pools.a", "worker"),
    }  # fmt: skip


SECRET = """
[system]
name = "${{NAME}}"
drain = 3
[telemetry.statsd]
port = 9125
[pools.write]
worker = "actorpool.workers:PostgresWorker"
worker_args = {{ conninfo = "postgresql://a:pa55word@db/", password = "swordfish", host = "db", statement_timeout = 3 }}
size = "${{SIZE:-7}}"
breaker = {{ failures = 2 }}
[supervisors.agents]
[[supervisors.agents.children]]
id = "planner"
actor = "actorpool.workers:EchoWorker"
args = {{ token = "opensesame" }}
"""


def test_every_value_in_force_is_shown_with_its_source_and_no_secret(tmp_path):
    file = str(write(tmp_path, SECRET))
    done = run("doctor", file, "--show", NAME="shop", ACTORPOOL_DRAIN="5")
    assert done.returncode == 0, done.stderr
    for secret in ("pa55word", "swordfish", "opensesame"):
        assert secret not in done.stdout
    rows = {
        (row["table"], row["key"]): row
        for row in json.loads(run("doctor", file, "--show", "--json", NAME="shop").stdout)["values"]
    }
    assert rows["system", "name"]["source"] == f"{file}:3 ${{NAME}}"
    assert rows["system", "drain"] == {"table": "system", "key": "drain", "value": "3", "source": f"{file}:4"}
    assert rows["system", "base"]["source"] == "default"
    assert rows["telemetry.statsd", "port"]["value"] == "9125"
    assert rows["pools.write", "worker_args.password"]["value"] == "***"
    assert rows["pools.write", "worker_args.host"]["value"] == "db"
    assert rows["pools.write", "worker_args.statement_timeout"]["value"] == "3"
    assert rows["pools.write", "size"]["value"] == "7"
    assert rows["pools.write", "size"]["source"] == f"{file}:10 ${{SIZE:-...}}"
    assert rows["pools.write", "breaker.failures"]["value"] == "2"
    assert rows["pools.write", "breaker.window"]["source"] == "default"
    assert rows["supervisors.agents", "children[0].args.token"]["value"] == "***"


@pytest.mark.parametrize("arguments", [["--show"], ["absent.toml"]])
def test_a_file_is_needed_where_one_is_asked_about(arguments):
    assert run("doctor", *arguments).returncode == 2
