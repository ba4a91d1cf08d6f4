"""The runtime directory: who may have it, who holds it, what is left in it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from actorpool import __version__, process
from actorpool.errors import AuthenticationFailed, InvalidConfig, SystemDown
from actorpool.node import runtime
from actorpool.node.runtime import NodeFacts, RuntimeDirectory


@pytest.fixture(autouse=True)
def top(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the nodes of this test are."""
    monkeypatch.setenv("ACTORPOOL_RUNTIME_DIR", str(short_path))
    return short_path / f"actorpool-{os.geteuid()}"


def facts(directory: RuntimeDirectory, **changes: object) -> NodeFacts:
    """What a node that is this very process would publish."""
    values = {
        "name": directory.name,
        "pid": os.getpid(),
        "started": process.start_time(os.getpid()),
        "version": __version__,
        "protocol": runtime.PROTOCOL,
        "base": "multiprocTCPBase",
        "admin": "/somewhere",
        "root": 2,
        "fingerprint": runtime.fingerprint(directory.cookie),
    }
    return NodeFacts(**{**values, **changes})  # type: ignore[arg-type]


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def abandon(name: str | None) -> str:
    """The directory that a killed node left."""
    program = f"""
import os
from actorpool.node.runtime import RuntimeDirectory
directory = RuntimeDirectory.claim({name!r})
open(os.path.join(directory.path, "manager"), "w").close()
open(os.path.join(directory.path, "node.log"), "w").close()
print(directory.path, flush=True)
os.kill(os.getpid(), 9)
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stdout.strip()


def test_the_directory_and_the_cookie_are_the_users_alone(top: Path) -> None:
    old = os.umask(0)
    try:
        directory = RuntimeDirectory.claim("shop")
    finally:
        os.umask(old)
    assert mode(top) == mode(top / "shop") == 0o700
    assert mode(top / "shop" / "cookie") == 0o600
    assert bytes.fromhex((top / "shop" / "cookie").read_text()) == directory.cookie
    assert len(directory.cookie) == 32
    directory.release()


def test_every_node_has_a_cookie_of_its_own() -> None:
    first = RuntimeDirectory.claim("shop")
    first.release()
    second = RuntimeDirectory.claim("shop")
    assert second.cookie != first.cookie
    second.release()


def test_a_directory_that_was_opened_to_others_is_closed_again(top: Path) -> None:
    top.mkdir(mode=0o755)
    directory = RuntimeDirectory.claim(None)
    assert mode(top) == 0o700
    directory.release()


def test_a_link_in_place_of_the_directory_is_refused(top: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    top.symlink_to(elsewhere)
    with pytest.raises(AuthenticationFailed, match="is no directory"):
        RuntimeDirectory.claim("shop")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_directory_is_refused(top: Path) -> None:
    top.mkdir()
    os.chown(top, 12345, -1)
    with pytest.raises(AuthenticationFailed, match="belongs to uid 12345"):
        RuntimeDirectory.claim("shop")


def test_the_base_is_the_sessions_directory_else_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTORPOOL_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime.root() == str(tmp_path / f"actorpool-{os.geteuid()}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "not there"))
    assert runtime.root() == f"/tmp/actorpool-{os.geteuid()}"


def test_a_name_that_is_held_is_refused_and_its_holder_untouched(top: Path) -> None:
    directory = RuntimeDirectory.claim("shop")
    with pytest.raises(InvalidConfig, match="a node named 'shop' is running"):
        RuntimeDirectory.claim("shop")
    assert bytes.fromhex((top / "shop" / "cookie").read_text()) == directory.cookie
    directory.release()


def test_many_claims_of_one_name_at_once_have_one_winner() -> None:
    program = """
import sys
from actorpool.errors import InvalidConfig
from actorpool.node.runtime import RuntimeDirectory
try:
    RuntimeDirectory.claim("shop")
    print("mine", flush=True)
except InvalidConfig:
    print("taken", flush=True)
sys.stdin.read()
"""
    claims = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [claim.stdout.readline().strip() for claim in claims]  # type: ignore[union-attr]
    for claim in claims:
        claim.communicate("")
    assert sorted(answers) == ["mine", "taken", "taken", "taken"]


@pytest.mark.parametrize("name", ["", "1st", "_made_up", "a/b", "..", "a" * 65, 7])
def test_a_name_that_cannot_be_a_directorys_is_refused(name: object) -> None:
    with pytest.raises(InvalidConfig) as refused:
        RuntimeDirectory.claim(name)  # type: ignore[arg-type]
    assert list(refused.value.problems) == ["name"]


def test_a_path_that_is_too_long_for_a_socket_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTORPOOL_RUNTIME_DIR", str(tmp_path / ("x" * 80)))
    with pytest.raises(InvalidConfig, match=r"107 bytes.*set ACTORPOOL_RUNTIME_DIR to a shorter one"):
        RuntimeDirectory.claim("shop")


def test_an_unnamed_node_leaves_nothing_and_a_named_one_its_log(top: Path) -> None:
    for name in (None, "shop"):
        directory = RuntimeDirectory.claim(name)
        directory.publish(facts(directory))
        for file in ("node.log", "db.pool"):
            Path(directory.path, file).touch()
        directory.release()
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == ["shop", "shop/node.log"]


def test_what_killed_nodes_left_is_removed_by_the_next_one(top: Path) -> None:
    named, unnamed = abandon("shop"), abandon(None)
    assert os.listdir(unnamed)
    RuntimeDirectory.claim("other").release()
    assert not os.path.exists(unnamed)
    directory = RuntimeDirectory.claim("shop")
    assert sorted(os.listdir(named)) == ["cookie", "node.log"]
    directory.release()


def test_a_running_node_is_not_swept_away() -> None:
    directory = RuntimeDirectory.claim(None)
    RuntimeDirectory.claim("other").release()
    assert os.path.exists(os.path.join(directory.path, "cookie"))
    directory.release()


def test_a_running_node_is_found_with_its_cookie() -> None:
    directory = RuntimeDirectory.claim("shop")
    directory.publish(facts(directory))
    assert runtime.find("shop") == (directory.path, facts(directory), directory.cookie)
    assert runtime.running() == ["shop"]
    directory.release()
    assert runtime.running() == []


def test_a_node_that_does_not_run_is_system_down_and_the_text_names_those_that_do() -> None:
    directory = RuntimeDirectory.claim("shop")
    directory.publish(facts(directory))
    with pytest.raises(SystemDown, match=r"no node named 'stall' runs .*running: shop\): start it with"):
        runtime.find("stall")
    directory.release()
    with pytest.raises(SystemDown, match="running: none"):
        runtime.find("shop")


def test_a_recycled_pid_is_not_the_node() -> None:
    directory = RuntimeDirectory.claim("shop")
    directory.publish(facts(directory, started=1.0))
    with pytest.raises(SystemDown):
        runtime.find("shop")
    directory.release()


def test_another_protocol_is_told_from_no_node() -> None:
    directory = RuntimeDirectory.claim("shop")
    with open(os.path.join(directory.path, "node.json"), "w") as file:
        json.dump({**asdict(facts(directory, protocol=99, version="9.9")), "more": 1}, file)
    with pytest.raises(SystemDown, match=r"of actorpool 9.9 .protocol 99.*use one version on both sides"):
        runtime.find("shop")
    directory.release()


@pytest.mark.slow
def test_a_cookie_that_is_not_the_nodes_is_refused() -> None:
    directory = RuntimeDirectory.claim("shop")
    directory.publish(facts(directory))
    cookie = Path(directory.path, "cookie")
    for text, problem in (("ab" * 32, "is not the cookie"), ("zz", "cannot be read"), ("", "is not the cookie")):
        cookie.write_text(text)
        with pytest.raises(AuthenticationFailed, match=problem):
            runtime.find("shop")
    cookie.unlink()
    with pytest.raises(AuthenticationFailed, match="cannot be read"):
        runtime.find("shop")
    directory.release()


def test_a_cookie_that_others_can_read_is_refused() -> None:
    directory = RuntimeDirectory.claim("shop")
    directory.publish(facts(directory))
    os.chmod(os.path.join(directory.path, "cookie"), 0o640)
    with pytest.raises(AuthenticationFailed, match="mode 0o640: it must be yours alone"):
        runtime.find("shop")
    directory.release()


def test_twenty_directories_leave_no_descriptor(open_descriptors) -> None:  # type: ignore[no-untyped-def]
    before = open_descriptors()
    for _ in range(20):
        RuntimeDirectory.claim(None).release()
    assert open_descriptors() == before


def test_a_directory_that_is_swept_while_it_is_claimed_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made = os.mkdir
    swept: list[str] = []

    def mkdir_and_sweep(path: str, mode: int = 0o777) -> None:
        made(path, mode)
        if not swept and os.path.basename(path).startswith(runtime.ANONYMOUS):
            swept.append(path)
            os.rmdir(path)

    monkeypatch.setattr(os, "mkdir", mkdir_and_sweep)
    claimed = runtime.RuntimeDirectory.claim(None)
    assert swept
    assert claimed.path != swept[0]
    claimed.release()
