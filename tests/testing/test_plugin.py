"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import configparser
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

CONFTEST = """
import pytest
from actorpool.workers import SqliteWorker

@pytest.fixture(scope="session")
def actorpool_pool(actorpool_system, tmp_path_factory):
    args = {"database": str(tmp_path_factory.mktemp("db") / "app.db")}
    pool = actorpool_system.start_pool("db", worker=SqliteWorker, worker_args=args, size=2)
    pool.execute("CREATE TABLE t (x int)")
    return pool
"""


def run(folder: Path, *options: str, **files: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on some files, in a process of its own."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "actorpool.testing.plugin", "-p", "no:cacheprovider", *options]
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    return subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)],
        env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, timeout=50, cwd=folder,
    )  # fmt: skip


@pytest.mark.slow
def test_each_test_has_a_sandbox_of_its_own_and_a_system_for_all(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "-W", "error",
        conftest=CONFTEST,
        test_it="""
import pytest

seen = set()

def count(pool):
    return pool.execute("SELECT count(*) FROM t").scalar()

@pytest.mark.parametrize("x", range(3))
def test_starts_from_nothing(actorpool_sandbox, actorpool_pool, actorpool_system, x):
    assert count(actorpool_pool) == 0
    actorpool_pool.execute("INSERT INTO t VALUES (1)")
    actorpool_sandbox.execute("INSERT INTO t VALUES (2)")
    assert count(actorpool_pool) == count(actorpool_sandbox) == 2
    seen.add(actorpool_system.name)
    assert actorpool_system.pools() == ["db"]

def test_without_it_nothing_is_left(actorpool_pool):
    assert count(actorpool_pool) == 0
    assert len(seen) == 1
""",
    )  # fmt: skip
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_a_project_that_has_not_named_its_pool_is_told_how(tmp_path: Path) -> None:
    done = run(tmp_path, test_it="def test_it(actorpool_sandbox): pass\n")
    assert done.returncode == 1
    assert "define a fixture called actorpool_pool" in done.stdout


def test_it_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        test_it="""
import sys

def test_it():
    ours = {name for name in sys.modules if name.startswith("actorpool")}
    assert ours == {"actorpool", "actorpool.testing", "actorpool.testing.plugin"}
""",
    )
    assert "1 passed" in done.stdout, done.stdout


def test_it_shows_its_fixtures(tmp_path: Path) -> None:
    done = run(tmp_path, "--fixtures", test_it="")
    for name in ("actorpool_system", "actorpool_sandbox", "actorpool_pool"):
        assert name in done.stdout


def test_pytest_finds_it_by_its_entry_point() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    name, _, module = settings["options.entry_points"]["pytest11"].strip().partition(" = ")
    assert (name, module) == ("actorpool", "actorpool.testing.plugin")
    assert hasattr(importlib.import_module(module), "actorpool_sandbox")


def test_the_package_has_what_it_promises() -> None:
    code = "import actorpool.testing as t; [getattr(t, name) for name in t.__all__]; print(dir(t))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    for name in ("sandbox", "ScriptedWorker", "assert_drained", "eventually"):
        assert f"'{name}'" in done.stdout, done.stderr
    assert not hasattr(importlib.import_module("actorpool.testing"), "nothing")
