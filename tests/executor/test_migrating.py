"""docs/migrating.md: what it says to write runs, line by line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

import actorpool

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
SECTIONS = dict(re.findall(r"^## From (\S+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
LINE = re.compile(r"^\| [^|]* \| `([^|]*)` \|", re.MULTILINE)


def run(section: str, **names: Any) -> int:
    """Run a section's block and its table; how many lines that were."""
    text = SECTIONS[section]
    names["__name__"] = "migrating"
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(block, names)
    lines = LINE.findall(text)
    assert len(lines) == text.count("\n| ") - 1  # but the head
    try:
        for line in lines:
            exec(compile(line, line, "exec"), names)
    finally:
        for name in ("ex", "pool", "system"):
            if isinstance(names.get(name), (actorpool.Executor, actorpool.System)):
                names[name].shutdown()
    return len(lines)


@pytest.mark.parametrize("section", ["ProcessPoolExecutor", "multiprocessing.Pool", "poolboy"])
def test_every_line_runs(section: str) -> None:
    assert run(section) >= 10


def test_every_line_about_psycopg_pool_runs(pg: Any) -> None:
    given = conninfo_to_dict(pg.dsn)
    dsn = f"postgresql://{given['user']}@/{given['dbname']}?host={quote(str(given['host']), safe='')}"
    assert run("psycopg_pool", DSN=dsn) >= 12
