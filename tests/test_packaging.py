"""What a user gets: one import package, light to import, with the names that the documentation promises."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import actorpool
from actorpool.serialization import pickling

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("benchmarks", "supervisors", "workers")
REPOSITORY_ONLY = ("actorpool/benchmarks/simulations/",)
ERRORS = """
InvalidConfig PoolNotFound PoolAlreadyExists PoolStopped PoolDown CheckoutTimeout PoolFull TooManyWaiting QueueShed
CircuitOpen WorkerUnavailable CallTimeout WorkerDied LeaseExpired MethodNotFound RemoteError PermanentError
AuthenticationFailed SystemDown RestartIntensityExceeded
"""
PUBLIC = {
    "actorpool": """
        start connect System Pool AsyncPool Lease AsyncLease SharedPool LocalPool PoolConfig PoolStatus PoolMetrics
        Breaker Autoscale ConnectionManager StartPool StopPool ListPools GetPoolStatus WithConnection Checkout Checkin
        Call Grant Ok Err Subscribe Event StatsdSink LoggingSink pool_size ActorPoolError Executor database
    """
    + ERRORS,
    "actorpool.errors": "ActorPoolError" + ERRORS,
    "actorpool.workers": """
        Worker method Reply RetryAfter PermanentError spawn_worker WorkerActor
        PostgresWorker SqliteWorker HttpWorker DbapiWorker SqlAlchemyWorker EchoWorker pool_size cache_key
    """,
    "actorpool.supervisors": """
        Supervisor SupervisorSpec ChildSpec Supervised IGNORE Backoff start_supervisor monitor ChildInfo SupervisorError
        StartChild TerminateChild RestartChild DeleteChild WhichChildren CountChildren GetChildSpec WhereIs Down
    """,
}


def python(code: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **kwargs)  # type: ignore[call-overload, no-any-return]


def modules_on_disk() -> set[str]:
    """Every module's path as it is to be installed: `actorpool/workers/base.py`."""
    plain = {str(path.relative_to(ROOT)) for path in (ROOT / "actorpool").rglob("*.py")}
    mapped = {f"actorpool/{path.relative_to(ROOT)}" for name in MAPPED for path in (ROOT / name).rglob("*.py")}
    return {name for name in plain | mapped if not name.startswith(REPOSITORY_ONLY)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from a copy (building leaves files behind)."""
    pytest.importorskip("setuptools", minversion="70.1", reason="building a wheel without the network needs it here")
    place = tmp_path_factory.mktemp("build")
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "tests")
    shutil.copytree(ROOT, place / "source", symlinks=True, ignore=unwanted)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    done = python(build, cwd=place / "source")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(place.glob("*.whl"))) as archive:
        yield archive


@pytest.mark.slow
def test_the_wheel_installs_one_import_package_with_every_module(wheel):
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in files} == {"actorpool"}
    assert {name for name in files if name.endswith(".py")} == modules_on_disk()
    assert "actorpool/py.typed" in files


@pytest.mark.slow
def test_a_users_own_workers_package_beside_the_installed_wheel_is_the_users(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    (tmp_path / "app" / "workers").mkdir(parents=True)
    (tmp_path / "app" / "workers" / "__init__.py").write_text("mine = True\n")
    code = "import workers, actorpool.workers; print(workers.mine, actorpool.workers.Worker.__module__)"
    done = python(code, cwd=tmp_path / "app", env={**os.environ, "PYTHONPATH": str(tmp_path / "site")})
    assert done.stdout.split() == ["True", "actorpool.workers.base"], done.stderr


@pytest.mark.slow
def test_the_wheel_declares_its_command_and_its_dependencies(wheel):
    facts = {name.rpartition("/")[2]: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info/" in name}
    assert "actorpool = actorpool.cli:main" in facts["entry_points.txt"]
    needed = {
        re.split("[<>=!~;]", line.split()[1])[0]
        for line in facts["METADATA"].splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    }
    assert {"thespian", "cloudpickle", "psycopg[binary]", "httpx", "statsd"} <= needed


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    there = {".".join(Path(name).parent.parts) for name in modules_on_disk()}
    assert listed == sorted(there)


@pytest.mark.parametrize("name", MAPPED)
def test_a_mapped_package_is_reached_under_its_public_name_in_a_checkout(name):
    link = ROOT / "actorpool" / name
    assert link.is_symlink()
    assert link.resolve() == ROOT / name


@pytest.mark.slow
def test_nobody_imports_our_directories_under_their_second_name():
    offenders = []
    for path in [*ROOT.rglob("*.py")]:
        if any(part.startswith(".") or part in {"build", "dist"} for part in path.relative_to(ROOT).parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )  # fmt: skip
            if any(name.partition(".")[0] in MAPPED for name in names):
                offenders.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not offenders


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_every_promised_name_is_there(module):
    code = (
        f"import {module} as module\n"
        f"names = {PUBLIC[module].split()!r}\n"
        "print(*[name for name in names if not hasattr(module, name)])"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


class EditableFinder:
    """Serves one package, as an editable install does: what is below it is found along the package's path."""

    def __init__(self, package: Path) -> None:
        self.package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name != self.package.name:
            return None
        return importlib.util.spec_from_file_location(name, self.package / "__init__.py")


def test_what_an_editable_install_serves_travels_by_name(tmp_path, monkeypatch):
    (tmp_path / "served" / "below").mkdir(parents=True)
    (tmp_path / "served" / "__init__.py").touch()
    (tmp_path / "served" / "below" / "__init__.py").touch()
    (tmp_path / "served" / "below" / "things.py").write_text("class Thing:\n    pass\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, EditableFinder(tmp_path / "served")])
    data = pickling.dumps(importlib.import_module("served.below.things").Thing)
    for name in ("served", "served.below", "served.below.things"):
        del sys.modules[name]
    assert b"served.below.things" in data
    assert b"cloudpickle" not in data


def test_what_type_checkers_see_is_what_there_is():
    """The three lists of actorpool/__init__.py say the same."""
    source = ast.parse((ROOT / "actorpool" / "__init__.py").read_text())
    block = next(node for node in source.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == actorpool._HOME
    assert sorted(seen) == sorted(actorpool.__all__)
    assert set(seen) <= set(dir(actorpool))


def test_importing_actorpool_imports_no_driver_and_is_quick():
    heavy = "psycopg httpx sqlalchemy statsd rich click starlette uvicorn thespian cloudpickle psutil multiprocessing"
    done = python(f"import actorpool, sys; print(*[name for name in {heavy.split()!r} if name in sys.modules])")
    assert done.stdout.split() == [], done.stderr


def test_importing_workers_and_supervisors_imports_no_driver():
    drivers = "psycopg httpx sqlalchemy statsd rich click starlette uvicorn"
    code = "import actorpool.workers, actorpool.supervisors, sys\n"
    done = python(code + f"print(*[name for name in {drivers.split()!r} if name in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'poool'"):
        _ = actorpool.poool


def test_windows_is_refused_with_a_reason():
    done = python("import sys; sys.platform = 'win32'; import actorpool")
    assert done.returncode == 1
    assert "ImportError: actorpool does not run on Windows" in done.stderr


def test_the_readme_and_ci_run_the_same_test_command():
    steps = ("-m venv .venv && .venv/bin/pip install -q -e '.[test]'", ".venv/bin/python -m pytest")
    assert f"{steps[0]} && {steps[1]}" in (ROOT / "README.md").read_text()
    run = (ROOT / ".ci" / "run").read_text()
    assert all(step in run for step in steps)
