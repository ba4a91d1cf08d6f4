"""What an operator asks a node: the names and figures that outside programs rely on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import PoolStatus, SessionInfo, StatsdSink
from actorpool.status import LeaseInfo, TreeNode, WorkerInfo
from actorpool.supervisors import ChildSpec, SupervisorSpec
from tests.acceptance import kit

FREQUENT = {"pool.checkout", "pool.checkin", "call.done"}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            PoolStatus,
            "name state size overflow workers waiting monitors total checkouts checkins timeouts shed restarts "
            "reclaimed connect_errors wait_ms_p50 wait_ms_p99 hold_ms_p50 since oldest_wait oldest_lease hold_ms_p99 "
            "parked",
        ),
        (WorkerInfo, "id pid state calls restarts connected_at overflow"),
        (LeaseInfo, "id worker_id caller_pid caller_host age program function"),
        (SessionInfo, "key worker_id pid busy calls age idle"),
        (
            TreeNode,
            "id kind pid state restarts children since strategy restarts_used restarts_limit restarts_period last_end "
            "output",
        ),
    ],
)
def test_figures_have_the_names_of_the_manual(kind: type, names: str) -> None:
    there = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    assert [name for name in names.split() if name not in there] == []


def test_a_pool_where_nobody_waits_says_zero(pool: Callable[..., actorpool.Pool]) -> None:
    status = pool().status()
    assert (status.oldest_wait, status.oldest_lease, status.parked, status.waiting) == (0.0, 0.0, 0, 0)


@pytest.mark.parametrize("seconds", [0.7, pytest.param(3.0, marks=pytest.mark.slow)])
def test_who_holds_who_waits_and_for_how_long_is_told_within_half_a_second(
    pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any], seconds: float
) -> None:
    p = pool()
    began = time.monotonic()
    holder = threading.Thread(target=p.run, args=(kit.sleep_for, seconds + 1.0))
    holder.start()
    eventually(lambda: p.status().monitors == 1)
    held = asked = time.monotonic()
    waiter = threading.Thread(target=lambda: p.echo(1, checkout_timeout=30))
    waiter.start()
    eventually(lambda: p.status().waiting == 1)
    waits = time.monotonic()
    time.sleep(seconds)
    before = time.monotonic()
    status, (lease,) = p.status(), p.leases()
    after = time.monotonic()
    holder.join()
    waiter.join()
    assert before - waits <= status.oldest_wait <= after - asked
    assert before - held <= status.oldest_lease <= lease.age <= after - began
    assert (lease.caller_pid, lease.function) == (os.getpid(), "sleep_for")
    assert lease.program in " ".join([sys.executable, *sys.orig_argv])
    assert p.leases() == []


def test_the_history_is_numbered_and_asked_by_pattern_number_and_limit(
    node: actorpool.System, pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool()
    p.echo(1)
    os.kill(p.workers()[0].pid or 0, signal.SIGKILL)
    (died,) = eventually(lambda: [event for event in node.events("worker.died") if event.pool == p.name])
    assert {"worker", "pid", "reason"} <= set(died.metadata)
    eventually(lambda: [event for event in node.events("worker.connected", after=died.number) if event.pool == p.name])
    events = node.events()
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    assert not FREQUENT & {event.name for event in events}
    assert [event.number for event in node.events(limit=2)] == numbers[-2:]
    assert all(event.number > died.number for event in node.events(after=died.number))
    assert {event.name.partition(".")[0] for event in node.events("worker.*")} == {"worker"}


def nodes(tree: TreeNode) -> Iterator[TreeNode]:
    yield tree
    for child in tree.children:
        yield from nodes(child)


def test_the_tree_says_since_when_and_why(
    node: actorpool.System, pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(max_restarts=7, restart_period=30.0)
    with pytest.raises(actorpool.WorkerDied):
        p.run(last_words)

    def restarted() -> TreeNode | None:
        (found,) = [one for one in nodes(node.tree()) if one.id == p.name]
        return found if found.children and found.children[0].last_end else None

    found = eventually(restarted)
    assert (found.kind, found.restarts_used, found.restarts_limit, found.restarts_period) == ("pool", 1, 7, 30.0)
    worker = found.children[0]
    assert worker.last_end.startswith("exit status 9")
    assert worker.output.splitlines() == [f"line {number}" for number in range(5, 25)]
    for one in nodes(node.tree()):
        assert one.since is None or abs(time.time() - one.since) < 600
        assert one.strategy is None or one.kind == "supervisor"


def last_words(_: Any) -> None:
    for number in range(25):
        print(f"line {number}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(9)


def test_a_leak_is_told_once_and_its_return_as_what_it_is(
    node: actorpool.System, pool: Callable[..., actorpool.Pool], eventually: Callable[..., Any]
) -> None:
    p = pool(leak_threshold=0.1)

    def told(name: str) -> list[Any]:
        return [event for event in node.events(name) if event.pool == p.name]

    lease = p.checkout()
    eventually(lambda: told("pool.leak"))
    lease.checkin()
    eventually(lambda: told("pool.leak_returned"))
    assert len(told("pool.leak")) == 1


def test_supervisors_of_users_are_heard(eventually: Callable[..., Any]) -> None:
    team = SupervisorSpec([ChildSpec("frail", kit.Toy)], max_restarts=1, max_seconds=60)
    with actorpool.start(log_level="CRITICAL") as system:
        system.supervise(SupervisorSpec([ChildSpec("team", team, restart="temporary")]))
        for name in ("supervisor.restarted", "supervisor.gave_up"):
            (frail,) = eventually(lambda: [one for one in nodes(system.tree()) if one.id == "frail" and one.pid])
            os.kill(frail.pid, signal.SIGKILL)
            eventually(lambda name=name: [one for one in system.events(name) if one.metadata["child"] == "frail"])


def test_a_dot_in_a_pools_name_is_an_underscore_for_statsd_and_the_log_may_be_json(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    log = tmp_path / "node.log"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        sink = StatsdSink("127.0.0.1", server.getsockname()[1], interval=0.1)
        received: list[str] = []

        def lines() -> list[str]:
            try:
                received.extend(server.recv(65536).decode().split("\n"))
            except BlockingIOError:
                pass
            return received

        with actorpool.start(telemetry=sink, log_file=log, log_format="json", log_level="CRITICAL") as system:
            p = system.start_pool("shop.db", worker=kit.Toy, size=1)
            p.echo(1)
            eventually(lambda: any(line.startswith("actorpool.shop_db.checkout:") for line in lines()))
            os.kill(p.workers()[0].pid or 0, signal.SIGKILL)
            eventually(lambda: "killed by SIGKILL" in log.read_text())
    assert not [line for line in received if line.startswith("actorpool.shop.db")]
    written = [json.loads(line) for line in log.read_text().splitlines()]
    (ended,) = [one for one in written if "killed by SIGKILL" in one["message"]]
    assert (ended["level"], ended["pool"]) == ("WARNING", "shop.db")
