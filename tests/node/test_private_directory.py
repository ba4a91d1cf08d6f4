"""A manager without a node has a directory of its own, and cleans up after those that were killed."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from actorpool.supervisors import private


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short directory for temporary files: the path of a unix socket has at most 107 bytes."""
    directory = Path(os.environ["ACTORPOOL_RUNTIME_DIR"], f"t{os.getpid()}")
    directory.mkdir(exist_ok=True)
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory


def left_by(place: Path, name: str, age: float, *, serving: bool = False) -> tuple[Path, socket.socket]:
    directory = place / f"{private.PREFIX}{name}"
    directory.mkdir()
    manager = socket.socket(socket.AF_UNIX)
    manager.bind(str(directory / "manager"))
    if serving:
        manager.listen()
    else:
        manager.close()
    os.utime(directory / "manager", (time.time() - age,) * 2)
    return directory, manager


def test_a_long_path_of_temporary_files_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    mine = Path(private.private_directory())
    with socket.socket(socket.AF_UNIX) as pool:
        pool.bind(str(mine / f"{'x' * 40}.pool"))
    assert mine.parent == Path("/tmp")
    shutil.rmtree(mine)


def test_what_a_killed_manager_left_is_removed_and_nothing_else(place: Path) -> None:
    killed, _ = left_by(place, "killed", 2 * private.OLD)
    starting, _ = left_by(place, "starting", 0)
    serving, manager = left_by(place, "serving", 2 * private.OLD, serving=True)
    other = place / f"{private.PREFIX}0" / "manager"
    other.mkdir(parents=True)
    mine = Path(private.private_directory())
    manager.close()
    assert mine.is_dir()
    assert mine.stat().st_mode & 0o777 == 0o700
    assert not killed.exists()
    assert starting.is_dir()
    assert serving.is_dir()
    assert other.is_dir()
