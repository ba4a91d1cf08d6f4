"""What `actorpool doctor` says of Ray on this host."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from actorpool.cli import cluster_examinations as examinations
from actorpool.cli.cluster_examinations import QUICK, of_cluster, of_first_process, of_settings, of_versions

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE, EXAMPLE = ROOT / "docs" / "cluster.md", ROOT / "examples" / "cluster" / "ray.env"
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


def test_the_page_and_the_example_have_the_same_settings():
    rows = dict(re.findall(r"^\| `(RAY_\w+)` \| \d+ \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.M))
    assert QUICK.items() <= rows.items()
    example = dict(re.findall(r"^#?(RAY_\w+)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.M))
    assert {finding.result for finding in of_settings(example)} == {"ok"}
    assert all(f"`{name}" in PAGE.read_text(encoding="utf-8") for name in example)


def looked(monkeypatch, version="2.60.0", environment=WELL):
    """What is found where this version of Ray is installed, and a raylet has this environment."""

    def installed(name):
        if version is None:
            raise examinations.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(examinations.metadata, "version", installed)
    raylet = None if environment is None else examinations._Raylet(environment, sys.executable)
    monkeypatch.setattr(examinations, "_raylet", lambda: raylet)
    return {finding.what: finding for finding in of_cluster()}


def test_where_all_is_as_documented_nothing_is_complained_of(monkeypatch):
    monkeypatch.setattr(examinations, "_first_process", lambda: "systemd")
    found = looked(monkeypatch)
    assert {finding.result for finding in found.values()} == {"ok"}
    assert set(found) == {"ray", "raylet", "health checks", "ray token", "niceness", "memory monitor", "process 1"}


def test_a_version_that_is_not_tested_is_a_warning_and_none_at_all_a_failure(monkeypatch):
    found = looked(monkeypatch, "2.59.1")["ray"]
    assert (found.result, found.value, found.advice) == ("warn", "2.59.1", "tested with 2.60.*")
    (found,) = looked(monkeypatch, None).values()
    assert (found.result, found.what, found.advice) == ("fail", "ray", "pip install 'actorpool[ray]'")


def test_a_program_with_other_versions_than_the_raylet_is_told_that_ray_refuses_it():
    assert of_versions("Ray 2.60.0 Python 3.11.7", "Ray 2.60.0 Python 3.11.7").result == "ok"
    found = of_versions("Ray 2.60.0 Python 3.11.7", "Ray 2.60.0 Python 3.12.1")
    assert (found.result, found.value) == ("fail", "Ray 2.60.0 Python 3.11.7")
    assert "this program has Ray 2.60.0 Python 3.12.1" in found.advice


def test_a_host_without_a_raylet_is_told_how_to_start_one(monkeypatch):
    found = looked(monkeypatch, environment=None)["raylet"]
    assert found.result == "warn"
    assert "ray start --address=HEAD:6379" in found.advice


def test_niceness_matters_only_where_it_cannot_be_taken_back(monkeypatch):
    for user, result in ((0, "ok"), (1000, "warn")):
        monkeypatch.setattr(examinations.os, "geteuid", lambda user=user: user)
        found = looked(monkeypatch, environment={**WELL, "RAY_worker_niceness": "15"})["niceness"]
        assert (found.result, found.value) == (result, "15")
    assert "RAY_worker_niceness=0" in found.advice


def test_a_first_process_that_does_not_reap_is_told(monkeypatch):
    assert of_first_process("systemd").result == "ok"
    found = of_first_process("sleep")
    assert found.result == "warn"
    assert "ray start --block" in found.advice
