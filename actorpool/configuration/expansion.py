"""`${...}` in the strings of a document: expanded once, after parsing, and never again.

`${NAME}` is a variable of the environment, `${NAME:-default}` has a default for one that is unset or empty,
`${file:PATH}` is the content of a file without the newline at its end, `$$` is a dollar sign.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actorpool.configuration.document import KeyPath

_REFERENCE = re.compile(r"\$(?:\$|\{([^}]*)(\}?))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass
class Expansion:
    """What became of a document.

    Attributes:
        data: the tables, with every string expanded.
        whole: where a value was exactly one `${...}`, which a numeric field converts.
        sources: for each value in which something was expanded, the references without their defaults.
        secrets: what was put in, which no log, error or list may show.
        problems: by path, what could not be expanded.
    """

    data: dict[str, Any] = field(default_factory=dict)
    whole: set[KeyPath] = field(default_factory=set)
    sources: dict[KeyPath, list[str]] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    problems: dict[KeyPath, str] = field(default_factory=dict)


def expand(data: Mapping[str, Any], environment: Mapping[str, str], folder: str) -> Expansion:
    """Expand every string of a document.

    Args:
        data: its tables.
        environment: the variables that `${NAME}` may name.
        folder: where a relative PATH of `${file:PATH}` begins.
    """
    result = Expansion()
    lookup = _Lookup(environment, folder)
    result.data = _expanded(data, (), result, lookup)
    return result


def _expanded(value: Any, path: KeyPath, result: Expansion, lookup: _Lookup) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, (*path, key), result, lookup) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, (*path, index), result, lookup) for index, item in enumerate(value)]
    if not isinstance(value, str) or "$" not in value:
        return value

    def put_in(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        text = lookup.find(match[1]) if match[2] else _Missing("has `${` without `}`; write `$$` for a dollar sign")
        if isinstance(text, _Missing):
            result.problems[path] = text
            return ""
        name, has_default, _ = match[1].partition(":-")
        result.sources.setdefault(path, []).append(f"${{{name}:-...}}" if has_default else match[0])
        result.secrets.add(text)
        if match[0] == value:
            result.whole.add(path)
        return text

    return _REFERENCE.sub(put_in, value)


class _Missing(str):
    """Why there is no value."""

    __slots__ = ()


class _Lookup:
    def __init__(self, environment: Mapping[str, str], folder: str) -> None:
        self._environment = environment
        self._folder = folder

    def find(self, reference: str) -> str:
        """What a reference stands for, or a `_Missing`."""
        if reference.startswith("file:"):
            return self._content(reference.removeprefix("file:"))
        name, has_default, default = reference.partition(":-")
        if not _NAME.match(name):
            return _Missing(
                f"has `${{{reference}}}`: expected ${{NAME}}, ${{NAME:-default}} or ${{file:PATH}}; "
                "write `$$` for a dollar sign"
            )
        value = self._environment.get(name)
        if has_default:
            return value or default
        if value is None:
            return _Missing(f"needs the environment variable {name}, which is not set; ${{{name}:-...}} has a default")
        return value

    def _content(self, path: str) -> str:
        try:
            with open(os.path.join(self._folder, path), encoding="utf-8") as file:
                return file.read().removesuffix("\n")
        except OSError as error:
            return _Missing(f"needs the file {path}, which cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            return _Missing(f"needs the file {path}, which is not UTF-8")


def converted(text: str, wanted: str) -> Any:
    """A value of exactly one `${...}` as what its field takes.

    Args:
        text: what was put in.
        wanted: the field's annotation, such as `"float | None"`.

    Returns:
        The number or boolean; `text` itself, if the field takes none or it is none.
    """
    kinds: list[tuple[str, Callable[[str], Any]]] = [("int", int), ("float", _number), ("bool", _boolean)]
    names = set(re.findall(r"\w+", wanted))
    for name, convert in kinds:
        if name in names:
            try:
                return convert(text.strip())
            except (ValueError, KeyError):
                continue
    return text


def _number(text: str) -> float:
    """A whole number stays one, so that it is shown as it was written."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]
