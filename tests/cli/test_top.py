"""`actorpool top` in a terminal, and its frames without one."""

from __future__ import annotations

import json
import os
import re
import signal
from types import SimpleNamespace

import pytest
from rich.console import Console

import actorpool
from actorpool.cli.output import size
from actorpool.cli.status import Member
from actorpool.cli.top_screen import Frame, Screen
from actorpool.status import LeaseInfo, PoolStatus, WorkerInfo
from tests.cli.running import read_until, resize, run, terminal, up, write


def pool(name, state="ready", **figures):
    return PoolStatus(
        **{"name": name, "state": state, "size": 2, "overflow": 0, "workers": 2, "waiting": 0, "monitors": 0, **figures}
    )


def drawn(screen, pools, columns=80, lines=24, **frame):
    """The lines of one frame on a terminal of that size."""
    console = Console(width=columns, height=lines, force_terminal=True, color_system=None)
    with console.capture() as captured:
        size = SimpleNamespace(width=columns, height=lines)
        console.print(screen.drawn(Frame([("shop", one) for one in pools], **frame), size), height=lines, end="")
    return captured.get().split("\n")


def test_what_needs_attention_comes_first():
    pools = [pool("a"), pool("b", "full", workers=0, monitors=2), pool("c", waiting=3), pool("d", "degraded")]
    lines = drawn(Screen(), pools)
    assert [line.split()[0] for line in lines[2:6]] == ["d", "c", "b", "a"]
    assert "2 need attention" in lines[0]
    assert any("d: its workers cannot connect" in line for line in lines)
    assert any("c: 3 wait" in line for line in lines)


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (30, 6), (200, 50), (10, 2)])
@pytest.mark.parametrize("view", ["", "enter", "w", "e", "?", "/"])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_a_frame_is_as_high_and_no_wider_than_the_terminal(columns, lines, view, count):
    screen = Screen()
    pools = [pool(f"pool-{number}", "full", waiting=1) for number in range(count)]
    drawn(screen, pools, columns, lines)
    if view:
        screen.press(view)
    shown = drawn(screen, pools, columns, lines)
    assert len(shown) == lines
    assert max(map(len, shown)) <= columns


def test_pools_that_do_not_fit_are_counted():
    lines = drawn(Screen(), [pool(f"pool-{number:03}") for number in range(100)])
    kept = sum(line.startswith("pool-") for line in lines)
    assert f"... and {100 - kept} more" in "\n".join(lines)


def test_keys_sort_filter_and_choose():
    screen = Screen()
    pools = [pool("a", restarts=1), pool("b", monitors=2), pool("c", waiting=1)]
    order = lambda: [line.split()[0] for line in drawn(screen, pools)[2:5] if "ready" in line]  # noqa: E731
    assert order() == ["c", "a", "b"]
    screen.press("s")
    assert order() == ["a", "b", "c"]
    screen.press("s")
    assert order()[0] == "b"
    for key in "/c":
        screen.press(key)
    assert order() == ["c"]
    screen.press("q")  # a letter of the filter
    assert screen.wanted == "cq"
    screen.press("escape")
    assert len(order()) == 3


def test_enter_shows_the_leases_of_the_chosen_pool():
    screen = Screen()
    lease = LeaseInfo(7, 1, 4242, "web-1", 41.0)
    asked = []

    def leases():
        return [lease]

    system = SimpleNamespace(pool=lambda name: asked.append(name) or SimpleNamespace(leases=leases))
    pools = [pool("a"), pool("b")]
    drawn(screen, pools)
    screen.press("down")
    screen.press("enter")
    frame = Frame([("shop", one) for one in pools])
    screen.follow(frame, {"shop": system})
    assert asked == ["b"]
    text = "\n".join(drawn(screen, pools, leases=frame.leases))
    assert "pid 4242 on web-1" in text
    assert "41s" in text
    screen.press("enter")
    assert "pid 4242" not in "\n".join(drawn(screen, pools, leases=frame.leases))


def member(id, memory):
    return Member(WorkerInfo(id, 4000 + id, "idle", 0, 0, None, False), memory)


def test_memory_is_told_of_each_worker_of_each_pool_and_of_all():
    screen = Screen()
    pools = [pool("a", total=2), pool("b", total=2)]
    workers = {
        ("shop", "a"): [member(1, 5 << 20), member(2, 7 << 20)],
        ("shop", "b"): [member(1, 200 << 20), member(2, None)],
    }
    lines = drawn(screen, pools, workers=workers)
    assert size(212 << 20) in lines[0]
    shown = {line.split()[0]: line for line in lines[2:4]}
    assert size(12 << 20) in shown["a"]
    assert size(200 << 20) in shown["b"]
    while screen.sort != "memory":
        screen.press("s")
    assert drawn(screen, pools, workers=workers)[2].startswith("b")
    screen.press("w")
    lines = drawn(screen, pools, workers=workers)
    assert "workers of a, the largest first" in lines[1]
    assert [line.split()[0] for line in lines[3:5]] == ["2", "1"]
    assert size(7 << 20) in lines[3]
    screen.press("w")
    assert drawn(screen, pools, workers=workers)[2].startswith("b")


@pytest.mark.parametrize("sort", ["need", "restarts"])
def test_all_keys_are_named_in_80_columns(sort):
    screen = Screen()
    screen.sort = sort
    assert drawn(screen, [pool("a")])[-1].rstrip().endswith("? help")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with up(write(tmp_path_factory.mktemp("shop"))) as node:
        node.wait_for("serves")
        yield node


@pytest.mark.slow
def test_a_worker_that_is_killed_is_seen_to_be_restarted(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        with terminal(("top", "shop")) as (process, reader):
            text = read_until(reader, "RESTARTS")
            assert line_of("echo", text)[-2] == "0"
            with actorpool.connect("shop") as system:
                os.kill(system.pool("echo").workers()[0].pid, signal.SIGKILL)
            for _ in range(20):
                text = read_until(reader, "sorted by")
                if line_of("echo", text)[-2] == "1":
                    break
            assert line_of("echo", text)[:4] == ["echo", "ready", "0", "2"]
            os.write(reader, b"q")
            assert "\x1b[?1049l" in read_until(reader, "\x1b[?25h")  # the screen and the cursor are as before
            assert process.wait(10) == 0


def line_of(name, text):
    """The words of the last line that a terminal has shown for a pool; its last but one are the restarts."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    return next((words for line in reversed(plain.splitlines()) if (words := line.split())[:1] == [name]), [""] * 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_terminal_is_as_it_was_after_a_signal(shop, number):
    import termios

    with terminal(("top", "shop")) as (process, reader):
        before = termios.tcgetattr(reader)
        read_until(reader, "RESTARTS")
        process.send_signal(number)
        read_until(reader, "\x1b[?25h")
        assert process.wait(10) == 0
        assert termios.tcgetattr(reader) == before


def test_the_memory_of_each_worker_is_in_the_document_of_a_frame(shop):
    (found,) = json.loads(run("top", "shop", "--once", "--json").stdout)["pools"]
    memories = [one["memory_bytes"] for one in found["processes"]]
    assert len(memories) == 2
    assert all(100_000 < one < 1 << 30 for one in memories)
    assert found["memory_bytes"] == sum(memories)


def test_without_a_terminal_one_frame_is_printed(shop):
    done = run("top")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split()[0] == "POOL"
    assert done.stdout.splitlines()[2].split()[0] == "echo"


def test_a_terminal_that_changes_its_size_is_followed(shop):
    with terminal(("top", "shop")) as (process, reader):
        assert "SINCE" in read_until(reader, "sorted by")
        resize(reader, 6, 30)
        process.send_signal(signal.SIGWINCH)
        for _ in range(10):
            text = read_until(reader, "sorted by")
            if "SINCE" not in text:
                break
        assert "SINCE" not in text
        assert line_of("echo", text)[:2] == ["echo", "ready"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
