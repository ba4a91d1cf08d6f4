"""docs/workers.md: every block of Python in it runs, and its tables have the real arguments and defaults."""

from __future__ import annotations

import importlib
import inspect
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorpool import workers
from tests.workers.mariadb import MariaDb
from tests.workers.pgserver import PgServer
from tests.workers.webserver import WebServer

PAGE = Path(__file__).parents[2] / "docs" / "workers.md"
TEXT = PAGE.read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODULE = re.compile(r"# (\w+\.py)\n")
"""The first line of a block that is a file of its own."""
SECTION = re.compile(r"^##+ (.*)$", re.MULTILINE)


def program(with_mariadb: bool, **names: Any) -> str:
    """The page as a program, line for line: what is no block is left empty, and the names are given in the first line.

    Args:
        with_mariadb: the imports and the blocks about MariaDB; else all but these.
    """
    lines = [""] * TEXT.count("\n")
    for number, block in enumerate(BLOCK.finditer(TEXT)):
        wanted = number == 0 or ("MARIADB" in block[1]) is with_mariadb
        if wanted and not MODULE.match(block[1]):
            begin = TEXT[: block.start(1)].count("\n")
            lines[begin : begin + block[1].count("\n")] = block[1].splitlines()
    given = "; ".join(f"{name} = {value!r}" for name, value in names.items())
    lines[0] = f"import actorpool; system = actorpool.start(log_level='CRITICAL'); {given}"
    return "\n".join([*lines, "system.shutdown()"])


def run(tmp_path: Path, text: str) -> None:
    for block in BLOCK.finditer(TEXT):
        if module := MODULE.match(block[1]):
            (tmp_path / module[1]).write_text(block[1])
    script = tmp_path / "page.py"
    script.write_text(text)
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A service that answers each line by the same line."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[:2]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_the_page_is_a_program_that_runs(pg: PgServer, web: WebServer, echo: tuple[str, int], tmp_path: Path) -> None:
    run(tmp_path, program(False, POSTGRES=pg.dsn, SERVICE=web.url, ECHO=echo, FOLDER=str(tmp_path)))


def test_so_is_what_it_says_of_mariadb(mariadb: MariaDb, tmp_path: Path) -> None:
    run(tmp_path, program(True, MARIADB=mariadb.parameters()))


SHIPPED = ["PostgresWorker", "SqliteWorker", "DbapiWorker", "SqlAlchemyWorker", "HttpWorker"]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_argument_is_in_its_workers_table_with_its_default(name: str) -> None:
    section = TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]
    table = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", section, re.MULTILINE))
    arguments = inspect.signature(getattr(workers, name).__init__).parameters.values()
    for argument in arguments:
        if argument.name == "self" or argument.kind is argument.VAR_KEYWORD:
            continue
        told = table.pop(argument.name)
        if told != "required":
            assert told.strip("`").strip('"') == str(argument.default), argument.name
    assert not table, "arguments that it does not have"


def test_every_method_is_told() -> None:
    base = importlib.import_module("actorpool.workers.base")
    internal = {
        "open_cursor",
        "fetch",
        "close_cursor",
        "begin_block",
        "end_block",
        "transact",
    }  # of iterate, transaction
    for name in SHIPPED:
        for method in set(base.methods_of(getattr(workers, name))) - internal:
            assert f"`{method}(" in TEXT, f"{name}.{method}"


def test_its_links_lead_somewhere() -> None:
    headings = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in SECTION.findall(TEXT)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in headings, target
        else:
            assert (PAGE.parent / target).exists(), target
