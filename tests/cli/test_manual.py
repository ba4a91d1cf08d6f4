"""The pages and examples for operators say what is so."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from actorpool import cli
from actorpool.cli.manual import manual
from actorpool.configuration import load

ROOT = Path(__file__).resolve().parent.parent.parent
UNITS = sorted((ROOT / "examples").rglob("*.service"))
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *UNITS, *sorted((ROOT / "examples" / "container").iterdir())]


def test_the_page_of_the_command_line_is_what_the_code_makes():
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert text == manual() + "\n", "run: python -m actorpool.cli.manual > docs/command-line.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists_with_its_options(page):
    group = cli._actorpool
    context = click.Context(group, info_name="actorpool")
    for name, rest in re.findall(r"\bactorpool ([a-z]+)((?: +(?:-{1,2})?[\w.*\[\]|'/-]+)*)", page.read_text("utf-8")):
        command = group.get_command(context, name)
        if command is None:
            continue  # prose, such as "actorpool node"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        for option in re.findall(r"(?<= )--?[a-z][a-z-]*", rest):
            assert option in known, f"{page.name}: actorpool {name} has no {option}"


def test_the_example_in_the_page_is_a_good_file(tmp_path, monkeypatch):
    (example,) = re.findall(r"```toml\n(.*?)```", manual(), re.DOTALL)
    (tmp_path / "db").write_text("hunter22\n")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "agents.py").write_text("from thespian.actors import Actor\nclass Planner(Actor): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "shop.toml"
    file.write_text(example.replace("/run/secrets/db", "db"))
    config = load(str(file), {"DATABASE_URL": "postgresql://app@db/app"})
    assert (config.system.name, config.pools["read"].size) == ("shop", 10)


def test_the_file_of_the_container_is_good():
    assert load(str(ROOT / "examples" / "container" / "shop.toml"), {}).pools["db"].size == 4


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.parent.name)
def test_systemd_takes_the_units(unit, tmp_path):
    text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text("utf-8"))
    copy = tmp_path / unit.name.replace("@", "@shop")
    copy.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert copy.name not in done.stderr
