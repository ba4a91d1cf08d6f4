"""What leaves a process as text has no secret in it: logs, events, errors of connecting, stacks, last words.

A process hides what it knows to be secret: the arguments of its workers, and what was put into a configuration file.
A child that it forks knows the same. Passwords in URLs and connection strings are found by their form, wherever they
are from. What a caller's own function raises is the caller's, and is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar
from urllib.parse import unquote

from actorpool.serialization.pickling import Pickled

HIDDEN = "***"
SHORTEST = 4
"""Characters; what is shorter says nothing, and is found in every other word."""
PUBLIC = frozenset({"host", "port", "database", "dbname", "module_or_factory", "user", "path", "base_url"})
"""Arguments of workers that are no secrets, but for a password in a URL. The driver is a module."""

_URL = re.compile(r"(\b[a-zA-Z][\w+.-]*://[^\s/:@]*:)([^\s@]+)(?=@)")
_SETTING = re.compile(r"(\b(?:password|passwd|pwd)\s*=\s*)('(?:[^'\\]|\\.)*'|\"[^\"]*\"|[^\s&;,)'\"]+)", re.IGNORECASE)
_secrets: set[str] = set()
_pattern: re.Pattern[str] | None = None

Error = TypeVar("Error", bound=BaseException)


def hide(texts: Iterable[str]) -> None:
    """From now on these are scrubbed in this process, and in those that it forks."""
    global _pattern
    new = {text for text in texts if len(text) >= SHORTEST} - _secrets
    if new:
        _secrets.update(new)
        longest_first = sorted(_secrets, key=len, reverse=True)  # one may be a part of another
        _pattern = re.compile("|".join(map(re.escape, longest_first)))


def hidden() -> tuple[str, ...]:
    """What is hidden here, to be hidden in a process that is not forked."""
    return tuple(sorted(_secrets))


def hide_arguments(arguments: Any) -> bool:
    """Hide what a worker is given; whether anything of it is secret."""
    found = set(_strings(arguments, secret=True))
    hide(found)
    return any(len(text) >= SHORTEST for text in found)


def _strings(value: Any, secret: bool) -> Iterable[str]:
    """The secrets in an argument: whole strings, and the passwords in them."""
    if isinstance(value, str):
        if secret:
            yield value
            yield repr(value)[1:-1]
        for match in _URL.finditer(value):
            yield from (match[2], unquote(match[2]))
        for match in _SETTING.finditer(value):
            yield match[2].strip("'\"")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, secret and name not in PUBLIC)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _strings(item, secret)


def scrub(text: str) -> str:
    """The text without secrets."""
    if _pattern is not None:
        text = _pattern.sub(HIDDEN, text)
    if "://" in text:
        text = _URL.sub(rf"\g<1>{HIDDEN}", text)
    return _SETTING.sub(rf"\g<1>{HIDDEN}", text)


def scrub_value(value: Any) -> Any:
    """A plain value without secrets, in its keys' order; what is no text stays."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {key: scrub_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(scrub_value, value)) if type(value) in (list, tuple) else value
    return value


def settings_of(settings: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every setting of a dataclass, and of those in it, with the way to it; arguments that may be secret are hidden.

    What is still packed is opened, so this runs where user code may.
    """
    for item in fields(settings):
        value, here = getattr(settings, item.name), (*path, item.name)
        if not item.init:
            continue
        if isinstance(value, Pickled):
            value = value.open()
        if is_dataclass(value) and not isinstance(value, type):
            yield from settings_of(value, here)
        elif item.name == "children":
            for index, child in enumerate(value):
                yield from settings_of(child, (*here, index))
        elif item.name == "worker_args":
            yield from (((*here, key), value[key] if _is_harmless(key, value[key]) else HIDDEN) for key in value)
        elif item.name == "args":
            yield from (((*here, key), HIDDEN) for key in value)
        else:
            yield here, value


def _is_harmless(key: str, value: Any) -> bool:
    return key in PUBLIC or value is None or isinstance(value, (bool, int, float))


def settings_as_text(settings: Any) -> dict[str, str]:
    """All of that by dotted names, as a person would write it."""
    return {".".join(map(str, path)): setting_as_text(value) for path, value in settings_of(settings)}


def setting_as_text(value: Any) -> str:
    """A setting as a person would write it, without secrets."""
    if isinstance(value, type):
        value = f"{value.__module__}:{value.__qualname__}"
    return scrub(value if isinstance(value, str) else repr(value))


def _fields(error: BaseException) -> dict[str, Any]:
    """What an `OSError` makes its text of, which is not in its `__dict__`."""
    names = ("strerror", "filename", "filename2") if isinstance(error, OSError) else ()
    return {name: getattr(error, name) for name in names}


def scrub_error(error: Error) -> Error:
    """The error and what it comes of, without secrets in their arguments."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        try:
            one.args = tuple(map(scrub_value, one.args))
            for name, value in {**vars(one), **_fields(one)}.items():
                if isinstance(value, (str, list, tuple, dict)):
                    setattr(one, name, scrub_value(value))
        except (
            Exception
        ):  # an error of a class that lets nothing be set: it is told by its class alone, if it is hiding
            pass
        left += [one.__cause__, one.__context__]
    return error
