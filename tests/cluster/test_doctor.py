"""What `actorpool doctor` says of Ray on this host."""

from __future__ import annotations

import re
from pathlib import Path

from actorpool.cli.cluster_examinations import QUICK, of_cluster, of_settings

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "cluster.md"
WELL = {**QUICK, "RAY_AUTH_MODE": "token", "RAY_worker_niceness": "0", "RAY_memory_monitor_refresh_ms": "0"}


def test_settings_as_documented_are_well():
    assert {finding.result for finding in of_settings(WELL)} == {"ok"}


def test_rays_defaults_are_told_with_what_they_cost_and_what_to_set():
    found = {finding.what: finding for finding in of_settings({})}
    assert found["health checks"].result == "warn"
    assert "65 s" in found["health checks"].value
    assert "RAY_health_check_period_ms=500" in found["health checks"].advice
    assert "RAY_AUTH_MODE=token" in found["ray token"].advice
    assert found["memory monitor"].result == "warn"


def test_one_setting_that_differs_is_named_alone():
    found = next(iter(of_settings({**WELL, "RAY_health_check_timeout_ms": "10000"})))
    assert found.advice.endswith("every host: RAY_health_check_timeout_ms=1000")


def test_the_page_has_the_same_settings():
    rows = dict(re.findall(r"^\| `(RAY_\w+)` \| \d+ \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.M))
    assert QUICK.items() <= rows.items()


def test_something_is_said_on_any_host():
    assert next(iter(of_cluster())).what == "ray"
