"""A dependency whose inside is used is refused when it is of a version that nobody has tried."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from actorpool.thespian_adapter import versions


def package(home: Path, version: str | None) -> ModuleType:
    """An imported package with its metadata beside it."""
    (home / "somewhat").mkdir(parents=True)
    if version is not None:
        (home / f"somewhat-{version}.dist-info").mkdir()
    module = ModuleType("somewhat")
    module.__path__ = [str(home / "somewhat")]
    return module


@pytest.mark.parametrize("version", ["4.0.1", "4.0.9", "4.0.1.post2", "4.0.10rc1"])
def test_a_version_that_was_tried_is_taken(tmp_path: Path, version: str) -> None:
    versions.require(package(tmp_path, version), "4.0.1", "4.1")


@pytest.mark.parametrize("version", ["4.0.0", "3.10.7", "4.1", "4.1.0rc1", "5.0"])
def test_another_is_refused_and_the_text_says_what_to_install(tmp_path: Path, version: str) -> None:
    with pytest.raises(ImportError) as raised:
        versions.require(package(tmp_path, version), "4.0.1", "4.1")
    assert f"has found somewhat {version}: pip install 'somewhat>=4.0.1,<4.1'" in str(raised.value)


def test_a_version_that_the_package_tells_counts_before_what_lies_beside_it(tmp_path: Path) -> None:
    module = package(tmp_path, "4.0.1")
    module.__version__ = "4.2"  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match=r"somewhat 4\.2"):
        versions.require(module, "4.0.1", "4.1")


def test_nothing_is_said_of_a_package_without_metadata(tmp_path: Path) -> None:
    versions.require(package(tmp_path, None), "4.0.1", "4.1")


@pytest.mark.slow
def test_setup_cfg_asks_for_the_versions_that_are_taken() -> None:
    root = Path(__file__).resolve().parent.parent.parent
    wanted = (root / "setup.cfg").read_text()
    assert "thespian>=4.0.1,<4.1\n" in wanted
    assert "psycopg[binary]>=3.2,<3.4\n" in wanted
    assert (
        'versions.require(thespian, "4.0.1", "4.1")'
        in (root / "actorpool" / "thespian_adapter" / "patches.py").read_text()
    )
