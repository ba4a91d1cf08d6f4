"""What a shell asks at every Tab."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import actorpool
from tests.cli.running import ACTORPOOL, FILE, LONG_NAME, clean_environment, run, up, write

LIMIT = 0.150
"""Seconds that a person does not notice."""
MODULES = 12
"""Of actorpool; the rest is click, and what that needs of the standard library."""


def complete(words, *, importing=False):
    """What bash is told for the last of the words."""
    environment = clean_environment(
        _ACTORPOOL_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
    )
    command = [*ACTORPOOL[:1], *(["-X", "importtime"] if importing else []), *ACTORPOOL[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
    return done.stderr if importing else [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    text = FILE + f'[pools.{LONG_NAME}]\nworker = "actorpool.workers:EchoWorker"\nsize = 1\n'
    with up(write(tmp_path_factory.mktemp("shop"), text)) as node:
        node.wait_for("serves")
        yield node


def test_commands_are_completed():
    assert set(complete("actorpool st")) == {"status", "stack"}


def test_options_are_completed():
    assert "--max-overflow" in complete("actorpool resize --")


def test_nodes_and_pools_are_completed(shop):
    assert complete("actorpool status s") == ["shop"]
    assert complete("actorpool resize shop e") == ["echo"]
    assert complete("actorpool resize shop a") == [LONG_NAME]
    assert not any(complete("actorpool resize absent e"))


def test_workers_are_completed(shop, eventually):
    with actorpool.connect("shop") as system:
        for pool in ("echo", LONG_NAME):
            ids = [str(worker.id) for worker in system.pool(pool).workers()]
            eventually(lambda ids=ids, pool=pool: complete(f"actorpool stack shop {pool} ") == ids)
        system.pool("echo").resize(size=1)
        eventually(lambda: len(complete("actorpool stack shop echo ")) == 1, timeout=20)
    assert not any(complete("actorpool stack shop absent "))
    assert not any(complete("actorpool stack absent echo "))


@pytest.mark.parametrize(
    "words", ["actorpool ", "actorpool status ", "actorpool resize shop ", "actorpool stack shop echo "]
)
def test_little_is_loaded_for_it(shop, words):
    """Time is what others leave of the machine; what is loaded is what it costs here."""
    loaded = {line.rpartition("|")[2].strip() for line in complete(words, importing=True).splitlines()}
    assert "click" in loaded
    packages = {name.partition(".")[0] for name in loaded}
    foreign = {"thespian", "rich", "psutil", "psycopg", "cloudpickle", "httpx", "asyncio", "multiprocessing"}
    assert not packages & foreign
    assert not {"actorpool.client", "actorpool.node.runtime", "actorpool.messages"} & loaded
    ours = {name for name in loaded if name.partition(".")[0] == "actorpool"}
    assert len(ours) <= MODULES, sorted(ours)


@pytest.mark.slow
def test_it_takes_less_than_the_patience_of_a_hand(shop):
    """The best of some attempts, and three times as long as on a machine that does nothing else."""
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        assert complete("actorpool resize shop ") == [LONG_NAME, "echo"]
        best = min(best, time.perf_counter() - began)
        if best < LIMIT:
            break
    assert best < 3 * LIMIT


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(shell):
    assert "_ACTORPOOL_COMPLETE" in run("completion", shell).stdout


def test_an_unknown_shell_is_wrong_usage():
    assert run("completion", "cmd").returncode == 2


def test_the_script_works_in_bash(shop):
    script = f"""
actorpool() {{ {sys.executable} -m actorpool "$@"; }}
eval "$(actorpool completion bash)"
complete -p actorpool
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30, env=clean_environment())
    assert "_actorpool_completion" in done.stdout, done.stderr
