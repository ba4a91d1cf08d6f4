"""Every command in every situation: exit codes, streams, colour, errors as text and as documents."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from actorpool import cli
from tests.cli.running import LONG_NAME, clean_environment, run, run_in_terminal, up, write

ESCAPE = "\x1b"
FILE = f"""
[system]
name = "{{name}}"
[pools.{LONG_NAME}]
worker = "actorpool.workers:EchoWorker"
size = 2
[shared_pools.feeds]
"""

# Commands that look or act, with arguments that are right, each as it is for the node `shop`.
LOOKING = {
    "status": ["status", "shop"],
    "status of a pool": ["status", "shop", LONG_NAME],
    "tree": ["tree", "shop"],
    "top": ["top", "shop", "--once"],
    "events": ["events", "shop"],
    "stack": ["stack", "shop", LONG_NAME],
    "metrics": ["metrics", "shop"],
}
ACTING = {
    "resize": ["resize", "shop", LONG_NAME, "2"],
    "suspend": ["suspend", "shop", LONG_NAME],
    "resume": ["resume", "shop", LONG_NAME],
    "drain": ["drain", "shop", LONG_NAME],
    "recycle": ["recycle", "shop", LONG_NAME],
}
COMMANDS = {name: arguments for name, arguments in {**LOOKING, **ACTING}.items() if arguments[0] in cli.COMMANDS}
OF_NODES = {**COMMANDS, "down": ["down", "shop"], "dashboard": ["dashboard", "shop"]}
OF_POOLS = {name: arguments for name, arguments in COMMANDS.items() if LONG_NAME in arguments}
WITHOUT_JSON = {"metrics", "dashboard"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A node with a pool whose name is as long as it may be."""
    with up(write(tmp_path_factory.mktemp("shop"), FILE)) as node:
        node.wait_for("serves")
        yield node


def as_json(arguments):
    done = run(*arguments, "--json")
    (line,) = done.stdout.splitlines()
    return done.returncode, json.loads(line)


@pytest.mark.parametrize("command", OF_NODES)
def test_a_node_that_does_not_run_is_exit_code_1_with_advice(command):
    arguments = [argument if argument != "shop" else "absent" for argument in OF_NODES[command]]
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: No node 'absent' runs")
    assert "actorpool up" in done.stderr
    assert "Traceback" not in done.stderr
    if command not in WITHOUT_JSON:
        code, document = as_json(arguments)
        assert code == 1
        assert list(document) == ["schema", "error"]
        assert document["error"]["code"] == "node_not_found"
        assert document["error"]["hint"]


@pytest.mark.parametrize("command", OF_POOLS)
@pytest.mark.slow
def test_a_pool_that_is_not_there_is_exit_code_1_with_the_names_of_those_that_are(shop, command):
    arguments = [argument if argument != LONG_NAME else "absent" for argument in OF_POOLS[command]]
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "has no pool 'absent'" in done.stderr
    assert LONG_NAME in done.stderr
    assert "Traceback" not in done.stderr
    if command not in WITHOUT_JSON:
        code, document = as_json(arguments)
        assert (code, document["error"]["code"]) == (1, "pool_not_found")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_flag_that_is_none_is_exit_code_2_and_starts_nothing(command):
    done = run(command, "--frobnicate", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "usage"
    done = run(command, "--frobnicate")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: No such option: --frobnicate" in done.stderr or "Error: No such option '--frobnicate'" in done.stderr


@pytest.mark.parametrize("command", OF_NODES)
def test_a_name_that_cannot_be_one_is_exit_code_2(command):
    arguments = [argument if argument != "shop" else "no name" for argument in OF_NODES[command]]
    assert run(*arguments).returncode == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_in_a_pipe_nothing_is_cut_and_nothing_is_coloured(shop, command):
    done = run(*COMMANDS[command], COLUMNS="40")
    assert done.returncode == 0, done.stderr
    assert ESCAPE not in done.stdout + done.stderr
    assert not [line for line in done.stdout.splitlines() if line != line.rstrip()]
    if command not in ("stack", "events"):
        assert LONG_NAME in done.stdout


def test_status_through_cat_has_the_whole_name_of_a_pool_and_no_escape(shop):
    done = subprocess.run(
        f"{sys.executable} -m actorpool status shop | cat",
        shell=True, capture_output=True, text=True, timeout=50, env=clean_environment(),
    )  # fmt: skip
    assert any(line.startswith(f"{LONG_NAME}  ") for line in done.stdout.splitlines())
    assert ESCAPE not in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
    ids=["terminal", "NO_COLOR", "dumb", "NO_COLOR and FORCE_COLOR"],
)
@pytest.mark.slow
def test_in_a_terminal_lines_fit_and_colour_is_as_the_environment_says(shop, command, environment, coloured):
    code, text = run_in_terminal(*COMMANDS[command], **environment)
    assert code == 0, text
    if not coloured:
        assert ESCAPE not in text
    elif command in ("status", "status of a pool", "tree", "top"):
        assert ESCAPE in text
    if command not in ("metrics", "stack"):
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
        assert max(map(len, plain.splitlines()), default=0) <= 80 or command in ACTING


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.slow
def test_colour_can_be_forced_in_a_pipe(shop, command):
    done = run(*COMMANDS[command], FORCE_COLOR="1")
    assert done.returncode == 0
    if command in ("status", "status of a pool", "tree", "top"):
        assert ESCAPE in done.stdout
    assert ESCAPE not in run(*COMMANDS[command], FORCE_COLOR="1", TERM="dumb").stdout


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in WITHOUT_JSON])
def test_json_is_one_document_without_colour_that_begins_with_its_schema(shop, command):
    done = run(*COMMANDS[command], "--json", FORCE_COLOR="1")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert next(iter(json.loads(line))) == "schema"


def test_the_keys_of_a_pool_are_those_of_its_status(shop):
    from dataclasses import fields

    from actorpool.status import PoolStatus

    _, document = as_json(["status", "shop"])
    assert document["node"] == "shop"
    assert [set(pool) for pool in document["pools"]] == [{item.name for item in fields(PoolStatus)}] * 2


@pytest.mark.slow
def test_check_says_by_its_exit_code_whether_all_pools_asked_about_serve(shop):
    assert run("resume", "shop", LONG_NAME).returncode == 0
    assert run("status", "shop", "--check").returncode == 0
    assert run("suspend", "shop", LONG_NAME).returncode == 0
    try:
        assert run("status", "shop", "--check").returncode == 1
        assert run("status", "--check").returncode == 1
        assert run("status", "shop", LONG_NAME, "--check").returncode == 1
        assert run("status", "shop", "feeds", "--check").returncode == 0
        assert run("status", "shop").returncode == 0
    finally:
        assert run("resume", "shop", LONG_NAME).returncode == 0


def test_without_a_node_status_says_how_to_start_one(monkeypatch, tmp_path):
    done = run("status", ACTORPOOL_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    assert "actorpool up" in done.stderr
    assert run("status", "--check", ACTORPOOL_RUNTIME_DIR=str(tmp_path)).returncode == 1


def test_a_shared_pool_is_told_from_one_that_lends_workers(shop):
    code, document = as_json(["resize", "shop", "feeds", "3"])
    assert (code, document["error"]["code"]) == (1, "wrong_kind_of_pool")


def test_a_command_that_is_none_is_told_with_the_nearest():
    done = run("statsu")
    assert done.returncode == 2
    assert "Did you mean 'status'?" in done.stderr
