"""What a shell asks at every Tab."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.cli.running import ACTORPOOL, FILE, LONG_NAME, clean_environment, run, up, write

LIMIT = 0.150


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


def test_no_heavy_library_is_loaded_for_it(shop):
    loaded = complete("actorpool resize shop ", importing=True)
    for library in (
        "thespian",
        "rich",
        "psutil",
        "psycopg",
        "cloudpickle",
        "actorpool.client",
        "actorpool.node.runtime",
    ):
        assert f" {library}\n" not in loaded


def test_it_takes_less_than_the_patience_of_a_hand(shop):
    """The processor time of the best of some attempts: what others do to the machine is not counted."""
    import resource

    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert complete("actorpool resize shop ") == [LONG_NAME, "echo"]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if best < LIMIT:
            break
        time.sleep(0.1)
    assert best < LIMIT


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
