"""A TOML document, and the line on which each of its keys is written."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from actorpool.errors import InvalidConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KeyPath = tuple["str | int", ...]
"""Where a value is: keys of tables, and indices into arrays."""

_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file.

    Attributes:
        file: the path, as it was given.
        line: the line of the key, or of the table that should have it; None where there is no line to show.
        table: such as `pools.write`; empty for the file as a whole.
        key: the key within the table; empty for the table as a whole.
        text: what was expected, and what was found.
    """

    file: str
    line: int | None
    table: str
    key: str
    text: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        table = f" [{self.table}]" if self.table else ""
        return f"{place}:{table} {self.key + ' ' if self.key else ''}{self.text}"


class InvalidFile(InvalidConfig):
    """A configuration file was refused before anything started; `found` has every problem."""

    found: tuple[Problem, ...]

    def __init__(self, file: str, found: Sequence[Problem]) -> None:
        super().__init__(file, {".".join(filter(None, (one.table, one.key))): one.text for one in found})
        self.found = tuple(found)
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        self.args = ("\n  ".join([f"{file} has {count}; nothing was started", *map(str, found)]),)


class Document:
    """A parsed file.

    Args:
        file: its path, for problems.
        text: what is written there.

    Attributes:
        data: the tables, as `tomllib` gives them.

    Raises:
        InvalidFile: it is no TOML.
    """

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        try:
            self.data: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidFile(file, [_syntax_problem(file, text, str(error))]) from error
        self._lines = key_lines(text)

    def line(self, path: KeyPath) -> int | None:
        """The line of a key; of the nearest table around it, if it is not written."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)

    def problem(self, path: KeyPath, text: str, tables: int = 2) -> Problem:
        """A problem of what is at `path`, whose first `tables` keys name the table."""
        return Problem(self.file, self.line(path), dotted(path[:tables]), dotted(path[tables:]), text)


def read_document(file: str) -> Document:
    """Read a file.

    Raises:
        InvalidFile: it cannot be read, is not UTF-8, or is no TOML.
    """
    try:
        with open(file, encoding="utf-8-sig") as opened:
            return Document(file, opened.read())
    except OSError as error:
        raise InvalidFile(file, [Problem(file, None, "", "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise InvalidFile(file, [Problem(file, None, "", "", f"is not UTF-8: {error.reason}")]) from error


def dotted(path: KeyPath) -> str:
    """A path as it is written in TOML, with indices of arrays in brackets: `children[0].id`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line on which each key and each table of a valid document is written, counted from 1.

    A statement ends where the lines from its first one on are valid TOML by themselves.
    """
    lines = text.splitlines()
    found: dict[KeyPath, int] = {}
    lengths: dict[KeyPath, int] = {}  # arrays of tables: how many of their tables have begun
    table: KeyPath = ()
    number = 0
    while number < len(lines):
        first, statement = number, ""
        parsed = None
        while parsed is None and number < len(lines):
            statement += lines[number] + "\n"
            number += 1
            parsed = _parsed(statement)
        if not parsed:
            continue  # a comment, an empty line
        if statement.lstrip().startswith("["):
            table = _header(parsed, lengths)
            found.setdefault(table, first + 1)
        else:
            for path in _paths(parsed, table):
                found.setdefault(path, first + 1)
    return found


def _parsed(statement: str) -> dict[str, Any] | None:
    try:
        parsed: dict[str, Any] = tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return None
    return parsed


def _header(parsed: Any, lengths: dict[KeyPath, int]) -> KeyPath:
    """The path of `[a.b]` or `[[a.b]]`, with the index of the last table of each array on the way."""
    path: KeyPath = ()
    while parsed:
        key, parsed = next(iter(parsed.items()))
        path += (key,)
        if isinstance(parsed, list):
            lengths[path] = lengths.get(path, 0) + 1
            parsed = parsed[0]
        if path in lengths:
            path += (lengths[path] - 1,)
    return path


def _paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Every path below `path`."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in below:
        yield (*path, key)
        yield from _paths(item, (*path, key))


def _syntax_problem(file: str, text: str, message: str) -> Problem:
    place = _AT_LINE.search(message)
    line = int(place[1]) if place else text.count("\n") + 1
    message = _AT_LINE.sub(r" in column \2", message)
    return Problem(file, line, "", "", f"is no TOML: {message[:1].lower()}{message[1:]}")
