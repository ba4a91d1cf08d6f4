"""The text of the metrics, read back by the parser of prometheus-client; readiness and attention."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from actorpool._protocol.requests import Histogram
from actorpool.dashboard.metrics import STATES, text_of
from actorpool.dashboard.readiness import unready
from actorpool.dashboard.sight import Sight, Tally, memories, state_document
from actorpool.status import LeaseInfo, PoolStatus, TreeNode

ROOT = Path(__file__).resolve().parents[2]
parser = pytest.importorskip("prometheus_client.parser")

POOL = PoolStatus(
    "write", "overflow", size=3, overflow=1, workers=0, waiting=2, monitors=3, total=4, checkouts=70, timeouts=5,
    shed=6, restarts=7, reclaimed=8, connect_errors=9, max_overflow=2, oldest_wait=1.5, oldest_lease=41.0,
)  # fmt: skip
EVIL = '"}\n# evil\\'
TREE = TreeNode(
    "root",
    "supervisor",
    1,
    "running",
    children=(TreeNode(EVIL, "supervisor", 2, "running", 3), TreeNode("x", "actor", 3, "running")),
)


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def of_states(text, metric):
    return {dict(labels)["state"]: value for (name, labels), value in samples(text).items() if name == metric}


def test_every_figure_of_a_pool_is_told_under_its_name():
    found = samples(text_of(Sight("shop", 0.0, (POOL,)), TREE, Tally()))
    of_pool = {name: value for (name, labels), value in found.items() if labels == (("pool", "write"),)}
    assert {name.removeprefix("actorpool_"): value for name, value in of_pool.items()} == {
        "size": 3, "limit": 5, "leases": 3, "waiting": 2, "oldest_wait_seconds": 1.5, "oldest_lease_seconds": 41.0,
        "checkouts_total": 70, "timeouts_total": 5, "shed_total": 6, "reclaimed_total": 8, "restarts_total": 7,
        "connect_errors_total": 9,
    }  # fmt: skip


def test_workers_and_states_have_one_sample_for_each_state():
    text = text_of(Sight("shop", 0.0, (POOL,)), TREE, Tally())
    states = of_states(text, "actorpool_pool_state")
    assert of_states(text, "actorpool_workers") == {"idle": 0, "used": 3, "other": 1}
    assert len(states) == 8
    assert [state for state, value in states.items() if value] == ["overflow"]


def test_what_a_name_holds_stays_a_label():
    found = samples(text_of(Sight("shop", 0.0), TREE, Tally()))
    restarts = {dict(labels)["supervisor"]: value for (name, labels), value in found.items() if "supervisor" in name}
    assert restarts == {"root": 3, f"root/{EVIL}": 0}


def test_histograms_have_buckets_that_add_up():
    waits = Histogram((0.001, 0.1), (7, 2, 1), 3.5)
    text = text_of(Sight("shop", 0.0, (POOL,)), TREE, Tally(waits={"write": waits}))
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    family = families["actorpool_wait_seconds"]
    assert family.type == "histogram"
    found = [(one.name.rpartition("_")[2], one.labels.get("le"), one.value) for one in family.samples]
    assert found[:3] == [("bucket", "0.001", 7), ("bucket", "0.1", 9), ("bucket", "+Inf", 10)]
    assert found[3:] == [("sum", None, 3.5), ("count", None, 10)]
    assert {one.labels["pool"] for one in family.samples} == {"write"}
    assert "actorpool_hold_seconds" not in families


def test_each_sink_tells_how_many_events_it_dropped():
    found = samples(text_of(Sight("shop", 0.0), None, Tally(dropped={"statsd": 3, "shop.log:note": 0})))
    dropped = {labels: value for (name, labels), value in found.items() if name == "actorpool_events_dropped_total"}
    assert dropped == {(("sink", "statsd"),): 3, (("sink", "shop.log:note"),): 0}


def test_what_is_not_known_has_no_sample():
    text = text_of(Sight("shop", 0.0), None, Tally())
    assert [name for name, _ in samples(text)] == ["actorpool_build_info"]
    assert "actorpool_size" not in text


@pytest.mark.parametrize("state", ["full", "overflow", "degraded", "suspended", "circuit_open", "ready"])
def test_a_node_is_ready_whatever_load_and_servers_do(state):
    assert unready([dataclasses.replace(POOL, state=state)], TREE, []) == []


@pytest.mark.parametrize("state", ["starting", "draining"])
def test_a_node_is_not_ready_while_a_pool_starts_or_drains(state):
    assert unready([dataclasses.replace(POOL, state=state)], TREE, []) == [f"pool write is {state}"]


def gave_up(name):
    return {"name": "supervisor.gave_up", "pool": None, "metadata": {"supervisor": name}}


def test_a_node_is_not_ready_after_a_supervisor_gave_up_until_it_runs_again():
    assert unready([], TREE, [gave_up("agents")]) == ["supervisor agents gave up"]
    back = dataclasses.replace(TREE, children=(TreeNode("agents", "supervisor", 9, "running"),))
    assert unready([], back, [gave_up("agents")]) == []


def test_a_supervisor_that_is_being_restarted_is_a_reason():
    tree = dataclasses.replace(TREE, children=(TreeNode("agents", "supervisor", None, "restarting"),))
    assert unready([], tree, [])[0] == "supervisor agents is restarting"


def test_attention_is_a_sentence_with_the_commands_that_help():
    full = dataclasses.replace(POOL, state="full")
    lease = LeaseInfo(1, 4, 4242, "web-1", 41.0)
    (need,) = state_document(Sight("shop", 0.0, (full,)), {"write": [lease]})["attention"]
    assert need["text"].startswith("write: all 3 workers are out; 2 wait, the oldest 1.5s; oldest lease 41s: pid 4242")
    assert need["commands"] == [
        "actorpool status shop write",
        "actorpool stack shop write 4",
        "actorpool resize shop write 4",
    ]


def test_a_supervisor_that_gave_up_needs_attention_before_every_pool():
    full = dataclasses.replace(POOL, state="full")
    found = state_document(Sight("shop", 0.0, (full,)), {}, troubles=["supervisor agents gave up"])["attention"]
    assert [(need["pool"], need["need"]) for need in found] == [(None, 4), ("write", 3)]
    assert found[0]["text"] == "supervisor agents gave up"
    assert found[0]["commands"] == ["actorpool tree shop", "actorpool events shop 'supervisor.*'"]
    assert found[0]["runbook"] == "docs/runbook.md#a-supervisor-gave-up"


@pytest.mark.parametrize(
    ("state", "command"),
    [
        ("degraded", "actorpool events shop 'worker.*'"),
        ("circuit_open", "actorpool events shop 'worker.*'"),
        ("suspended", "actorpool resume shop write"),
        ("draining", "actorpool resume shop write"),
    ],
)
def test_a_pool_that_serves_nobody_is_told_with_the_command_that_says_why_or_ends_it(state, command):
    pool = dataclasses.replace(POOL, state=state, waiting=0)
    (need,) = state_document(Sight("shop", 0.0, (pool,)), {})["attention"]
    assert need["commands"] == ["actorpool status shop write", command]


def test_the_runbook_has_the_sections_that_the_page_names():
    titles = re.findall(r"(?m)^## (.*)$", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"))
    there = {f"docs/runbook.md#{title.lower().replace(' ', '-')}" for title in titles}
    pools = [dataclasses.replace(POOL, name=state, state=state) for state in STATES]
    named = {
        need["runbook"] for need in state_document(Sight("shop", 0.0, tuple(pools)), {}, troubles=["x"])["attention"]
    }
    assert len(named - {None}) >= 3
    assert named - {None} <= there


def test_the_memory_of_a_pool_is_that_of_its_workers(monkeypatch):
    monkeypatch.setattr("actorpool.dashboard.sight.memory", {11: 5, 12: 7}.get)
    workers = tuple(TreeNode(str(pid), "worker", pid, "idle") for pid in (11, 12, 13, None))
    pools = (TreeNode("write", "pool", 2, "running", children=workers), TreeNode("read", "pool", 3, "running"))
    assert memories(dataclasses.replace(TREE, children=pools)) == {"write": 12}


def test_a_pool_that_does_not_answer_needs_attention_first():
    full = dataclasses.replace(POOL, state="full")
    found = state_document(Sight("shop", 0.0, (full,), {"read": "TimeoutError"}), {})
    assert [need["pool"] for need in found["attention"]] == ["read", "write"]
