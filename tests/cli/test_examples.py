"""The alerts and the board know only metrics that there are, and each alert leads to a section of the runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import actorpool
from tests.cli.running import run, up, write

ROOT = Path(__file__).resolve().parent.parent.parent
RULES = ROOT / "examples" / "prometheus" / "actorpool.rules.yml"
BOARD = ROOT / "examples" / "grafana" / "actorpool.json"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
METRICS = set(
    "workers size limit leases waiting oldest_wait_seconds oldest_lease_seconds checkouts_total timeouts_total "
    "shed_total reclaimed_total restarts_total connect_errors_total wait_seconds hold_seconds pool_state "
    "supervisor_restarts_total events_dropped_total build_info wait_seconds_bucket hold_seconds_bucket".split()
)
SECTIONS = {re.sub(r"\s+", "-", title.lower()) for title in re.findall(r"(?m)^## (.*)$", RUNBOOK)}


@pytest.mark.parametrize("file", [RULES, BOARD], ids=lambda file: file.name)
def test_every_metric_that_is_asked_for_is_one_of_ours(file):
    text = file.read_text(encoding="utf-8")
    expressions = re.findall(r'expr"?: (.*)', text)
    asked = {name for expression in expressions for name in re.findall(r"\bactorpool_(\w+)", expression)}
    assert asked
    assert asked <= METRICS


def test_every_alert_leads_to_a_section_of_the_runbook_which_names_it():
    text = RULES.read_text(encoding="utf-8")
    alerts = re.findall(r"alert: (\w+)", text)
    anchors = re.findall(r"runbook: docs/runbook\.md#([\w-]+)", text)
    assert len(alerts) == len(anchors) > 5
    for alert, anchor in zip(alerts, anchors, strict=True):
        assert anchor in SECTIONS
        assert f"`{alert}`" in RUNBOOK


def test_the_board_has_a_figure_in_every_panel():
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    assert {variable["name"] for variable in board["templating"]["list"]} == {"source", "instance", "pool"}
    assert all(panel["targets"] for panel in board["panels"])


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")


@needs_promtool
@pytest.mark.parametrize("arguments", [("rules", RULES), ("config", RULES.with_name("prometheus.yml"))])
def test_promtool_takes_the_rules_and_the_configuration(arguments):
    done = subprocess.run(["promtool", "check", *map(str, arguments)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_takes_the_metrics(tmp_path):
    with up(write(tmp_path)) as node:
        node.wait_for("serves")
        with actorpool.connect("shop") as system:
            system.pool("echo").run(lambda connection: 3)
        text = run("metrics", "shop").stdout
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
