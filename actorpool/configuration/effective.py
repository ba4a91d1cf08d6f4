"""Every value in force, with where it comes from, and without a secret: what `actorpool doctor FILE --show` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actorpool._scrubbing import HIDDEN, setting_as_text, settings_of
from actorpool.configuration.document import KeyPath, dotted
from actorpool.configuration.settings import Configuration


@dataclass(frozen=True)
class Effective:
    """One value. `source` is the command line, a variable, a line of the file with its references, or `default`."""

    table: str
    key: str
    value: str
    source: str


def effective(config: Configuration) -> list[Effective]:
    """The values of all tables, in the order of the file."""
    view = _View(config)
    view.settings(("system",), config.system)
    for sink in config.sinks:
        view.settings(("telemetry", type(sink).__name__.removesuffix("Sink").lower()), sink)
    if config.dashboard is not None:
        view.settings(("dashboard",), config.dashboard)
    if config.cluster is not None:
        view.settings(("cluster",), config.cluster)
    every = {**config.pools, **{name: one.config for name, one in config.spread.items()}}
    for name, pool in every.items():
        path = ("pools", name)
        url = config.expansion.data["pools"][name].get("url")
        if url is not None:
            view.add((*path, "url"), url)
        view.settings(path, pool)
        if name in config.spread:
            view.add((*path, "spread"), True)
            view.add((*path, "most"), config.spread[name].most)
    for name, shared in config.shared_pools.items():
        view.settings(("shared_pools", name), shared)
    for name, spec in config.supervisors.items():
        view.settings(("supervisors", name), spec)
    return view.found


class _View:
    def __init__(self, config: Configuration) -> None:
        self._config = config
        self.found: list[Effective] = []

    def settings(self, path: KeyPath, settings: Any) -> None:
        """All fields of a dataclass; those that are dataclasses themselves, field by field."""
        for place, value in settings_of(settings, path):
            self.add(place, value)

    def add(self, path: KeyPath, value: Any) -> None:
        """One value."""
        count = 1 if path[0] in ("system", "dashboard", "cluster") else 2
        table, key = dotted(path[:count]), dotted(path[count:])
        self.found.append(Effective(table, key, self._text(path, value), self._source(path)))

    def _text(self, path: KeyPath, value: Any) -> str:
        if path in self._config.expansion.whole and isinstance(value, str):
            return HIDDEN
        return setting_as_text(value)

    def _source(self, path: KeyPath) -> str:
        if path[0] == "system" and path[1] in self._config.overrides:
            return self._config.overrides[str(path[1])]
        document, expansion = self._config.document, self._config.expansion
        path = _written(document.data, path)
        if not path:
            return "default"
        below = [place for place in expansion.sources if place[: len(path)] == path]
        references = [reference for place in below for reference in expansion.sources[place]]
        return " ".join([f"{document.file}:{document.line(path)}", *references])


def _written(data: Any, path: KeyPath) -> KeyPath:
    """Where in a file a value is written; what follows from the URL of a pool's database, at the URL. () is nowhere."""
    places, url = [path], (*path[:2], "url")
    if path[0] == "pools" and path[2] in ("worker", "worker_args") and _is_written(data, url):
        beside = (*path[:2], *path[3:])  # arguments of the worker may be beside the URL
        places += [beside, url] if path[2] == "worker_args" else [url]
    return next((place for place in places if _is_written(data, place)), ())


def _is_written(data: Any, path: KeyPath) -> bool:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True
