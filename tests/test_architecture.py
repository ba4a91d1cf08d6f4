"""The rules of docs/architecture.md that a machine can check: who imports whom, what the core touches, lengths."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "actorpool"

VALUES = {
    "actorpool._protocol",
    "actorpool.serialization",
    "actorpool.config",
    "actorpool.errors",
    "actorpool.process",
    "actorpool.limits",
    "actorpool.messages",
    "actorpool._offspring",
    "actorpool._output",
    "actorpool._choices",
    "actorpool._dataclass",
    "actorpool._validation",
    "actorpool.attention",
    "actorpool._scrubbing",
    "actorpool.status",
}
# Arrow rule: a module imports only from its own layer or from layers to its left.
LAYERS = [
    VALUES,
    {"actorpool.core"},
    {
        "actorpool.thespian_adapter",
        "actorpool._arriving",
        "actorpool.transport",
        "actorpool.telemetry",
    },
    {"actorpool.workers"},
    {"actorpool.supervisors", "actorpool.pools"},
    {"actorpool.node", "actorpool.client", "actorpool.testing"},
    {"actorpool.agents", "actorpool.benchmarks", "actorpool.cluster", "actorpool.configuration", "actorpool.dashboard"},
    {"actorpool.cli", "actorpool.__main__"},
]
IMPURE = {
    "asyncio", "concurrent", "ctypes", "datetime", "logging", "multiprocessing", "os", "pathlib", "queue", "random",
    "select", "selectors", "signal", "socket", "subprocess", "threading", "time",
}  # fmt: skip
# A program that does not use them does not pay for them.
DRIVERS = {"psycopg", "httpx", "sqlalchemy", "statsd", "rich", "starlette", "uvicorn", "pebble", "loky", "h2", "ray"}
LONGEST = 400


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by name; the mapped directories under their public names."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")) + [
        path for name in ("supervisors", "workers", "benchmarks") for path in sorted((PACKAGE / name).rglob("*.py"))
    ]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def top_level(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported (not those that only a type checker reads)."""
    for node in nodes:
        yield node
        if isinstance(node, ast.If) and not ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from top_level(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from top_level(node.body + node.orelse + node.finalbody)
            for handler in node.handlers:
                yield from top_level(handler.body)
        elif isinstance(node, ast.With):
            yield from top_level(node.body)


@cache
def imports(name: str, *, everywhere: bool = False) -> set[str]:
    """The modules that `name` imports: at its top, or also inside its functions."""
    nodes = ast.walk(tree(name)) if everywhere else top_level(tree(name).body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found.update(_meant(node.module or "", alias.name) for alias in node.names)
    return found


def _meant(module: str, name: str) -> str:
    """`from a import b`: the module a.b where that is one, else a."""
    return f"{module}.{name}" if f"{module}.{name}" in modules() else module


def layer(name: str) -> int | None:
    for number, members in enumerate(LAYERS):
        if any(name == member or name.startswith(member + ".") for member in members):
            return number
    return None


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("actorpool.")}


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_its_layer_or_below(name):
    if name == "actorpool":
        assert not ours(imports(name)), "importing actorpool must import nothing else of ours"
        return
    mine = layer(name)
    assert mine is not None, f"{name} has no place in the architecture: give it one in LAYERS"
    above = {other for other in ours(imports(name)) if (layer(other) or 0) > mine}
    assert not above, f"{name} imports from above: {sorted(above)}"


@pytest.mark.parametrize("name", sorted(name for name in modules() if name.startswith("actorpool.core")))
def test_the_core_decides_without_clock_chance_or_the_outside_world(name):
    found = imports(name, everywhere=True)
    allowed = VALUES - {"actorpool.process"} | {"actorpool.core"}
    foreign = {other for other in found if not any(f"{other}.".startswith(f"{it}.") for it in allowed)}
    outside = {other for other in foreign if other.partition(".")[0] not in sys.stdlib_module_names}
    impure = {other for other in foreign if other.partition(".")[0] in IMPURE}
    assert not outside | impure, f"{name} imports {sorted(outside | impure)}"


def loops(edges: dict[str, set[str]]) -> list[set[str]]:
    """The groups of modules that can all be reached from each other (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        path.append(name)
        for other in sorted(edges.get(name, ())):
            if other not in order:
                visit(other)
            if other in path:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == order[name]:
            group = path[path.index(name) :]
            del path[path.index(name) :]
            if len(group) > 1:
                found.append(set(group))

    for name in sorted(edges):
        if name not in order:
            visit(name)
    return found


def test_no_module_imports_itself_however_indirectly():
    """Imports for type checkers and inside functions count: whoever reads one of two modules must read the other."""
    edges = {name: ours(imports(name, everywhere=True)) - {name} for name in modules()}
    found = [" and ".join(sorted(group)) for group in loops(edges)]
    assert not found, f"these import each other: {found}"


def test_loops_of_imports_are_found():
    assert loops({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [{"b", "c"}]
    assert loops({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_private_module_or_name_is_taken_only_inside_the_package_that_has_it(name):
    taken = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("actorpool")
        for alias in node.names
    ]
    closed = [other for other in taken if not _is_open(other, name)]
    assert not closed, f"{name} takes what is private elsewhere: {closed}"


def _is_open(other: str, name: str) -> bool:
    """Whether `name` may import `other`: a private module lies in a package around it, a name is never private."""
    parts = other.split(".")
    private = [number for number, part in enumerate(parts) if part.startswith("_") and part != "__version__"]
    around = ".".join(parts[: private[0]]) if private else ""
    is_module = bool(private) and ".".join(parts[: private[0] + 1]) in modules()
    return not private or (is_module and name.startswith(around + "."))


def test_a_driver_is_loaded_only_by_modules_that_are_loaded_when_they_are_used():
    for name in sorted(modules()):
        if {other.partition(".")[0] for other in imports(name)} & DRIVERS:
            users = [other for other in modules() if name in imports(other)]
            assert not users, f"{name} imports a driver, so {users} must import it inside a function"


def test_no_class_of_the_core_inherits_from_one_that_inherits():
    classes = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for name in modules()
        if name.startswith("actorpool.core")
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ClassDef)
    }
    chains = {name: bases for name, bases in classes.items() if any(classes.get(base) for base in bases)}
    assert not chains, f"these have more than one base above them: {chains}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_module_is_longer_than_400_lines(name):
    lines = len(modules()[name].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{name} has {lines} lines: split it"


def signposts() -> list[tuple[str, list[str]]]:
    """The files that "Where do I look when" of docs/architecture.md points to, each with the names to look for."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = text.partition("## Where do I look when")[2].partition("\n## ")[0].splitlines()
    found: list[tuple[str, list[str]]] = []
    for word in re.findall(r"`([^`]+)`", " ".join(row.split("|")[2] for row in rows if row.startswith("| "))):
        if word.endswith(".py"):
            found.append((word, []))
        elif found:
            found[-1][1].append(word.rpartition(".")[2])
    return found


def test_where_the_architecture_tells_to_look_there_is_what_it_tells():
    assert len(signposts()) > 30
    for file, names in signposts():
        path = PACKAGE / file
        assert path.is_file(), f"docs/architecture.md points to {file}"
        text = path.read_text(encoding="utf-8")
        missing = [name for name in names if not re.search(rf"(def|class) {name}\b|\b{name}\b.* = ", text)]
        assert not missing, f"docs/architecture.md looks for {missing} in {file}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "core").glob("*.py")), ids=lambda path: path.name)
def test_the_tests_of_the_core_never_sleep(path):
    sleeping = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep", "asyncio.sleep"}
    ]
    assert not sleeping, f"{path.name} sleeps in line {sleeping}"
