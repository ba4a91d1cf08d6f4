"""What a cluster loses on Ray, under load: no call runs twice, no lease or process is left, and after how many seconds.

Hosts are namespaces of this machine (see `rayhosts`). The limits are twice those of docs/cluster.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from actorpool.cli.cluster_examinations import QUICK
from tests.cluster.rayhosts import ROOT, Hosts, Program, why_no_ray

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
if (reason := why_no_ray()) is not None:
    pytestmark.append(pytest.mark.skip(reason=reason))

PROGRAM = str(Path(__file__).with_name("raycaller.py"))
ROLES = ["head", "db", "db", "db", "callers"]


@contextlib.contextmanager
def cluster(tmp_path: Path, roles: list[str] = ROLES, env: dict[str, str] | None = None):
    """Hosts with these roles, and four callers on the one that is for them."""
    with Hosts(roles, {**QUICK, **(env or {})}) as hosts:
        ran = tmp_path / "ran"
        callers = next(host for host in hosts.all if host.role == "callers")
        program = callers.program(PROGRAM, "callers", str(ran))
        program.wait(lambda line: line == "ready", 90)
        program.wait(lambda line: line.startswith("shares [3, 3, 3]"), 30)
        time.sleep(1.0)
        yield hosts, program, ran


def shares_after(program: Program, began: float, expected: str, limit: float) -> float:
    """How many seconds after `began` callers have these shares."""
    moment, _ = program.wait(lambda line: line.startswith(f"shares {expected}"), limit + 20, began)
    took = moment - began
    print(f"\nshares {expected} after {took:.2f} s, at {moment:.2f}")
    return took


def finish(hosts: Hosts, program: Program, ran: Path) -> dict[str, int]:
    """Stop the callers and the cluster; what they counted. Nothing ran twice, and nothing is left."""
    program.tell("stop")
    _, line = program.wait(lambda line: line.startswith("stopped"), 60)
    told = re.fullmatch(r"stopped answered (\d+) errors (\{.*\}) leases (\d+) size (\d+)", line)
    assert told is not None, line
    for moment, text in program.lines:
        if text.startswith("error"):
            print(f"{moment:.2f} {text[:400]}")
    answered, errors, leases = int(told[1]), dict(re.findall(r"'(\w+)': (\d+)", told[2])), int(told[3])
    print(line)
    calls = ran.read_text().split()
    assert len(calls) == len(set(calls)), "a call ran twice"
    assert len(calls) >= answered > 50
    assert leases == 0
    assert errors.keys() <= {"WorkerDied"}, errors
    program.tell("end")
    program.wait(lambda line: line == "ended", 60)
    deadline = time.monotonic() + 5
    while left := [pid for host in hosts.all if host.process.poll() is None for pid in host.find("actorpool.node")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    return {name: int(number) for name, number in errors.items()}


def kill(pids: list[int]) -> float:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def test_all_that_is_promised_of_a_cluster():
    with Hosts(["web", "db", "db"], QUICK) as hosts:
        program = hosts.all[0].program(str(Path(PROGRAM).with_name("raycontract.py")))
        program.wait(lambda line: line == "well" or "Error" in line, 150)
        assert program.lines[-1][1] == "well", "\n".join(line for _, line in program.lines)
        assert not any(host.find("actorpool.node") for host in hosts.all)


def test_an_agent_that_is_killed_is_replaced_with_its_node_and_workers(tmp_path):
    with cluster(tmp_path) as (hosts, program, ran):
        began = kill(hosts.all[1].find("ray::RayAgent"))
        assert shares_after(program, began, "[3, 3]", 6) < 6
        assert shares_after(program, began, "[3, 3, 3]", 6) < 6
        time.sleep(1.0)
        assert finish(hosts, program, ran).get("WorkerDied", 0) <= 4


def test_a_raylet_that_is_killed_is_a_lost_host(tmp_path):
    with cluster(tmp_path) as (hosts, program, ran):
        began = kill(hosts.all[1].find("raylet/raylet --raylet_socket"))
        assert shares_after(program, began, "[4, 5]", 10) < 10
        assert finish(hosts, program, ran).get("WorkerDied", 0) <= 8


def test_a_host_without_power_is_lost_and_others_take_over(tmp_path):
    with cluster(tmp_path) as (hosts, program, ran):
        began = time.monotonic()
        hosts.all[1].power_off()
        assert shares_after(program, began, "[4, 5]", 10) < 10
        assert finish(hosts, program, ran).get("WorkerDied", 0) <= 8


def test_a_host_whose_cable_is_cut_takes_part_again_once_it_is_mended_and_started(tmp_path):
    with cluster(tmp_path) as (hosts, program, ran):
        lost = hosts.all[1]
        began = time.monotonic()
        lost.cut()
        assert shares_after(program, began, "[4, 5]", 10) < 10
        lost.mend()
        deadline = time.monotonic() + 20
        while lost.find("raylet/raylet --raylet_socket"):  # it ends itself once it hears that it is taken for dead
            assert time.monotonic() < deadline
            time.sleep(0.1)
        began = time.monotonic()
        lost.up()
        shares_after(program, began, "[3, 3, 3]", 20)
        assert finish(hosts, program, ran).get("WorkerDied", 0) <= 8


def test_a_coordinator_that_is_killed_is_replaced_unseen(tmp_path):
    with cluster(tmp_path) as (hosts, program, ran):
        began = kill([pid for host in hosts.all for pid in host.find("ray::RayCoordinator")])
        time.sleep(0.2)
        kill(hosts.all[2].find("ray::RayAgent"))  # only a coordinator gives its successor a share
        assert shares_after(program, began, "[3, 3]", 10) < 10
        assert shares_after(program, began, "[3, 3, 3]", 10) < 10
        assert finish(hosts, program, ran).get("WorkerDied", 0) <= 4


def test_another_coordinator_serves_when_it_alone_is_killed(tmp_path):
    with cluster(tmp_path) as (hosts, program, ran):
        asker = hosts.all[-1].program(PROGRAM, "asker")
        asker.wait(lambda line: line == "asking", 60)
        time.sleep(0.5)
        began = kill([pid for host in hosts.all for pid in host.find("ray::RayCoordinator")])
        moment, line = asker.wait(lambda line: line.startswith("answered ['db']"), 30, began)
        print(f"\nanother coordinator {line}, {moment - began:.2f} s after the first one was killed")
        assert moment - began < 4
        asker.process.kill()
        assert finish(hosts, program, ran) == {}


def test_a_head_with_storage_may_be_started_again(tmp_path):
    storage = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path / "gcs")}
    with cluster(tmp_path, env=storage) as (hosts, program, ran):
        head = hosts.all[0]
        kill(head.find("gcs_server"))
        kill([pid for pid in head.find("ray") if pid != head.pid])
        time.sleep(3.0)
        head.up()
        time.sleep(8.0)
        began = kill(hosts.all[1].find("raylet/raylet --raylet_socket"))
        assert shares_after(program, began, "[4, 5]", 20) < 20
        assert finish(hosts, program, ran).get("WorkerDied", 0) <= 8


def test_the_lease_of_a_program_that_is_killed_and_of_one_whose_host_has_no_power_is_given_back(tmp_path):
    with cluster(tmp_path, [*ROLES, "holder", "holder"]) as (hosts, program, ran):
        reported = hosts.all[0].program("-c", WATCHER)
        reported.wait(lambda line: line == "leases 0", 60)
        for host, lose, limit in (
            (hosts.all[5], lambda host, pid: kill(host.find("raycaller.py holder")), 4),
            (hosts.all[6], lambda host, pid: host.power_off(), 12),
        ):
            holder = host.program(PROGRAM, "holder")
            holder.wait(lambda line: line.startswith("holds"), 60)
            reported.wait(lambda line: line == "leases 1", 20, time.monotonic() - 1)
            began = time.monotonic()
            lose(host, 0)
            moment, _ = reported.wait(lambda line: line == "leases 0", limit + 20, began)
            print(f"\nlease given back after {moment - began:.2f} s")
            assert moment - began < limit
        finish(hosts, program, ran)


WATCHER = """
import time
from actorpool.cluster import Cluster
pool, last = Cluster.connect("shop").pool("db"), None
while True:
    held = sum(lease.age > 0.3 for lease in pool.leases(host="h2"))
    if held != last:
        print("leases", held, flush=True)
        last = held
    time.sleep(0.05)
"""


def test_a_far_call_costs_at_most_twice_a_plain_call_of_an_actor():
    with Hosts(["head", "db"], QUICK) as hosts:
        program, after = hosts.all[0].program(PROGRAM, "far", "20"), 0.0
        for _ in range(3):  # a machine that others share has bad moments
            after, line = program.wait(lambda line: line.startswith("p50"), 90, after)
            after += 0.001
            ours, plain, other = map(float, line.split()[1:])
            print(f"\nfar call {ours:.0f} µs, plain call of an actor {plain:.0f} µs: {ours / plain:.2f} times")
            print(f"plain call of an async actor {other:.0f} µs: {ours / other:.2f} times")
            if ours / plain < 2.0:
                break
            program.tell("again")
        program.tell("stop")
        program.wait(lambda line: line == "ended", 30)
        assert ours / plain < 2.0


def test_local_calls_on_a_node_that_takes_part_in_a_cluster_are_as_quick_as_without_one():
    with Hosts(["db"], QUICK) as hosts:
        program = hosts.all[0].program(PROGRAM, "near", "100")
        program.wait(lambda line: line == "pools ['db', 'own']", 60)  # the node was attached to
        _, line = program.wait(lambda line: line.startswith("p50"), 60)
        before, joined, spread, after = map(float, line.split()[1:])
        print(f"\nlocal call {before:.0f} µs, in a cluster {joined:.0f} µs, afterwards {after:.0f} µs")
        print(f"by the pool of the cluster {spread:.0f} µs")
        assert joined < 2 * max(before, after)


def test_a_program_of_a_host_does_not_notice_the_death_of_agent_and_raylet(tmp_path):
    with Hosts(ROLES, QUICK) as hosts:
        host = hosts.all[1]
        own = host.program(PROGRAM, "local")
        own.wait(lambda line: line == "ready", 30)
        program = hosts.all[-1].program(PROGRAM, "callers", str(tmp_path / "ran"))
        program.wait(lambda line: line.startswith("shares [3, 3, 3]"), 90)
        kill(host.find("ray::RayAgent"))
        time.sleep(4.0)
        began = kill(host.find("raylet/raylet --raylet_socket"))
        shares_after(program, began, "[4, 5]", 10)
        time.sleep(1.0)
        own.tell("stop")
        _, line = own.wait(lambda line: line.startswith("stopped"), 20)
        print(f"\n{line}")
        assert "errors 0" in line
        assert "'db', 'own'" in line, "its node was attached to, and goes on"
        finish(hosts, program, tmp_path / "ran")


FILE = """
[system]
name = "shop"
[cluster]
engine = "ray"
[pools.own]
worker = "actorpool.workers.echo:EchoWorker"
size = 1
[pools.db]
worker = "actorpool.workers.echo:EchoWorker"
size = 4
max_overflow = 0
spread = true
"""


def test_up_spreads_a_pool_and_its_node_outlives_ray(tmp_path):
    path = tmp_path / "shop.toml"
    path.write_text(FILE)
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text("three more words")
    with Hosts(["db", "db"], QUICK) as hosts:

        def said(host, *words: str) -> str:
            program = host.program("-m", "actorpool", *words)
            program.process.wait(60)
            program.close()
            return program.lines[-1][1] if program.lines else ""

        ups = [host.program("-m", "actorpool", "up", str(path)) for host in hosts.all]
        for up in ups:
            up.wait(lambda line: "shop serves" in line, 90)
        first, second = hosts.all
        told = json.loads(said(first, "hosts", "--json"))
        assert {one["name"]: one["pools"] for one in told["hosts"]} == {"h1": {"db": 2}, "h2": {"db": 2}}
        told = json.loads(said(second, "status", "shop", "db", "--hosts", "--json"))["pool"]
        assert (told["size"], set(told["hosts"])) == (4, {"h1", "h2"})
        found = {one["what"]: one["result"] for one in json.loads(said(first, "doctor", str(path), "--json"))["checks"]}
        assert (found["ray"], found["raylet"], found["health checks"]) == ("ok", "ok", "ok")
        words = second.program(str(ROOT / "examples" / "cluster" / "words.py"), str(tmp_path))
        _, line = words.wait(lambda line: "files" in line or "Error" in line, 60)
        assert line.startswith("20 files, 60 words; calls by host: {"), line
        assert words.process.wait(30) == 0
        os.kill(second.find("actorpool up")[-1], signal.SIGTERM)
        ups[1].process.wait(30)
        assert ups[1].process.returncode == 0
        told = json.loads(said(first, "status", "shop", "db", "--hosts", "--json"))["pool"]
        assert (told["size"], set(told["hosts"])) == (4, {"h1"})
        kill(first.find("raylet/raylet --raylet_socket") + first.find("gcs_server"))
        time.sleep(5.0)
        assert json.loads(said(first, "status", "shop", "own", "--json"))["pool"]["state"] == "ready"
        os.kill(first.find("actorpool up")[-1], signal.SIGTERM)
        ups[0].process.wait(60)
        assert ups[0].process.returncode == 0


def test_a_host_that_was_reset_takes_part_again_under_its_name(tmp_path):
    with cluster(tmp_path) as (hosts, program, ran):
        began = time.monotonic()
        hosts.all[1].power_off()
        assert shares_after(program, began, "[4, 5]", 10) < 10
        former = hosts.all[1].boot_id
        again = hosts.reset(hosts.all[1])
        assert (again.name, again.boot_id == former) == ("h2", False)
        began = time.monotonic()
        again.up()
        shares_after(program, began, "[3, 3, 3] ('h2', 'h3', 'h4')", 20)
        time.sleep(1.0)
        assert finish(hosts, program, ran).get("WorkerDied", 0) <= 8
