"""From a parsed and expanded document to settings, with every problem found at once."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, replace
from importlib.util import find_spec
from typing import Any, TypeVar

from actorpool import _scrubbing, telemetry
from actorpool._validation import nearest
from actorpool.config import Autoscale, Breaker, PoolConfig, SharedPoolConfig, check_pool_name, load_worker
from actorpool.configuration.document import Document, InvalidFile, KeyPath, Problem, dotted, read_document
from actorpool.configuration.expansion import Expansion, converted, expand
from actorpool.configuration.settings import (
    OVERRIDABLE,
    ClusterSettings,
    Configuration,
    DashboardSettings,
    SpreadPool,
    SystemSettings,
)
from actorpool.core.machine import Backoff
from actorpool.errors import InvalidConfig
from actorpool.limits import Limits
from actorpool.supervisors.specs import ChildSpec, SupervisorSpec
from actorpool.workers import urls

Made = TypeVar("Made")

_TABLES = ("system", "telemetry", "dashboard", "cluster", "pools", "shared_pools", "supervisors")
_NUMBERS = frozenset({"int", "float", "bool"})
_OR_NOTHING = frozenset({"None", "Optional", "Union", "typing"})
_POOL_PARTS: dict[str, type] = {"breaker": Breaker, "autoscale": Autoscale, "limits": Limits}
"""Fields of a pool that are tables of their own."""


def load(
    file: str, environment: Mapping[str, str] | None = None, overrides: Mapping[str, tuple[Any, str]] | None = None
) -> Configuration:
    """Read and check a file. Imports the worker and actor classes that it names; starts nothing.

    What `${...}` puts in is from then on hidden in every text of this process, and of the nodes that it starts.

    Args:
        file: its path.
        environment: for `${NAME}`; None is that of this process.
        overrides: settings of `[system]` that count before those of the environment (`ACTORPOOL_NAME` and the like),
            which count before the file's; each with where it comes from.

    Raises:
        InvalidFile: it cannot be read, or has problems; all are named.
    """
    document = read_document(file)
    here = os.environ if environment is None else environment
    folder = os.path.dirname(os.path.abspath(file))
    expansion = expand(document.data, here, folder)
    _scrubbing.hide(expansion.secrets)
    reader = _Reader(document, expansion, folder)
    found = reader.configuration({**_of_environment(here), **(overrides or {})})
    if reader.problems or found is None:
        raise InvalidFile(file, sorted(reader.problems, key=lambda one: one.line or 0))
    return found


def _of_environment(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    wanted = {item.name: str(item.type) for item in fields(SystemSettings)}
    variables = {key: f"ACTORPOOL_{key.upper()}" for key in OVERRIDABLE}
    return {
        key: (converted(environment[name], wanted[key]), f"environment variable {name}")
        for key, name in variables.items()
        if environment.get(name)
    }


class _Reader:
    """One pass over a document that notes every problem and goes on. Relative paths begin in `folder`."""

    def __init__(self, document: Document, expansion: Expansion, folder: str) -> None:
        self._document = document
        self._expansion = expansion
        self._folder = folder
        self.problems: list[Problem] = []
        self._spread: dict[str, int | None] = {}  # pools of a cluster, and their workers on one host at most
        self._sources: dict[KeyPath, str] = {}  # of values that are not of the file
        for path, text in expansion.problems.items():
            self.problems.append(document.problem(path, text, _tables_of(path)))

    def configuration(self, overrides: Mapping[str, tuple[Any, str]]) -> Configuration | None:
        """The settings; None if some could not be made (there are problems then)."""
        data = self._expansion.data
        self._refuse_unknown((), data, _TABLES)
        given = self._table(("system",), data.get("system", {}))
        if isinstance(given.get("log_file"), str):
            given["log_file"] = os.path.join(self._folder, given["log_file"])
        given |= {key: value for key, (value, _) in overrides.items()}
        self._sources = {("system", key): source for key, (_, source) in overrides.items()}
        system = self._make(("system",), given, SystemSettings)
        dashboard = None
        if "dashboard" in data:
            dashboard = self._make(("dashboard",), data["dashboard"], DashboardSettings)
            self._need_part(("dashboard",), "actorpool.dashboard", "starlette", "uvicorn")
        cluster = self._make(("cluster",), data["cluster"], ClusterSettings) if "cluster" in data else None
        if cluster is not None:
            self._need_part(("cluster",), "ray")
        pools = self._named("pools", self._pool)
        shared = self._named("shared_pools", lambda path, table: self._make(path, table, SharedPoolConfig))
        for name in [name for name in shared if isinstance(data.get("pools"), dict) and name in data["pools"]]:
            self._note(("shared_pools", name), "has the name of one of [pools]: each needs a name of its own")
        supervisors = self._named("supervisors", self._supervisor)
        sinks = self._sinks(data.get("telemetry", {}))
        if system is None or self.problems:
            return None
        return Configuration(
            document=self._document,
            expansion=self._expansion,
            overrides={key: source for key, (_, source) in overrides.items()},
            system=system,
            sinks=sinks,
            dashboard=dashboard,
            pools={name: pool for name, pool in pools.items() if name not in self._spread},
            cluster=cluster,
            spread={name: SpreadPool(pools[name], most) for name, most in self._spread.items()},
            shared_pools=shared,
            supervisors=supervisors,
        )

    # -- noting -----------------------------------------------------------------------------------------------

    def _note(self, path: KeyPath, text: str) -> None:
        if path not in self._expansion.problems:  # what could not be expanded is told already
            if path in self._sources:
                text += f" ({self._sources[path]})"
            self.problems.append(self._document.problem(path, _scrubbing.scrub(text), _tables_of(path)))

    def _refuse_unknown(self, path: KeyPath, table: Mapping[str, Any], known: Iterable[str]) -> None:
        for key in table.keys() - set(known):
            self._note((*path, key), _unknown(key, known))

    def _table(self, path: KeyPath, value: Any) -> dict[str, Any]:
        """`value` as a dict; noted and empty, if it is no table."""
        if isinstance(value, dict):
            return dict(value)
        self._note(path, f"must be a table, not {value!r}")
        return {}

    def _need_part(self, path: KeyPath, module: str, *needs: str) -> None:
        missing = [name for name in (module, *needs) if find_spec(name) is None]
        if missing:
            extra = module.rpartition(".")[2]
            self._note(path, f"needs {', '.join(missing)}: pip install 'actorpool[{extra}]'")

    # -- tables -----------------------------------------------------------------------------------------------

    def _named(self, kind: str, make: Callable[[KeyPath, Any], Made | None]) -> dict[str, Made]:
        """The tables below `[kind]`, each made into settings under its name."""
        found = {}
        for name, table in self._table((kind,), self._expansion.data.get(kind, {})).items():
            path = (kind, name)
            try:
                check_pool_name(name)
            except InvalidConfig as error:
                self._note(path, f"has a bad name: it {error.problems['name']}")
            made = make(path, table)
            if made is not None:
                found[name] = made
        return found

    def _make(self, path: KeyPath, value: Any, kind: Callable[..., Made], **parts: type) -> Made | None:
        """`kind(**value)`, with each problem noted at its key; None if there are any.

        Args:
            path: where the table is.
            value: the table.
            kind: a dataclass that raises `InvalidConfig`.
            **parts: classes of the fields that are tables themselves.
        """
        before = len(self.problems)
        given = self._table(path, value)
        if len(self.problems) > before:
            return None
        wanted = {item.name: str(item.type) for item in fields(kind) if item.init}  # type: ignore[arg-type]
        self._refuse_unknown(path, given, wanted)
        given = self._converted(path, {key: item for key, item in given.items() if key in wanted}, wanted, parts)
        try:
            made = kind(**given)
        except InvalidConfig as error:
            for key, text in error.problems.items():
                if not self._is_noted((*path, key)):
                    self._note((*path, key), text + _meant(given.get(key), text))
            return None
        except TypeError:  # what a plain dataclass says
            for item in fields(kind):  # type: ignore[arg-type]
                if item.name not in given and item.default is MISSING:
                    self._note((*path, item.name), "is required")
            return None
        return made if len(self.problems) == before else None

    def _converted(
        self, path: KeyPath, given: Mapping[str, Any], wanted: Mapping[str, str], parts: Mapping[str, type]
    ) -> dict[str, Any]:
        """Values as their fields take them: what was one `${...}` as a number, tables as the classes in `parts`."""
        result = dict(given)
        for key, item in given.items():
            if (*path, key) in self._expansion.whole and key in wanted:
                result[key] = converted(item, wanted[key])
            elif key in parts and isinstance(item, dict):
                result[key] = self._make((*path, key), item, parts[key])
        return result

    def _is_noted(self, path: KeyPath) -> bool:
        where = self._document.problem(path, "", _tables_of(path))
        return any((one.table, one.key) == (where.table, where.key) for one in self.problems)

    def _pool(self, path: KeyPath, value: Any) -> PoolConfig | None:
        table = self._table(path, value)
        self._read_spread(path, table)
        if "url" in table or "adapter" in table:
            return self._database(path, table)
        named = "worker" in table
        if not named:
            self._note(path, 'needs a worker ("module:Class") or a url')
            table["worker"] = "actorpool.workers:Worker"  # and its other problems are told as well
        config = self._make(path, table, PoolConfig, **_POOL_PARTS)
        if config is not None and named:
            return self._with_arguments((*path, "worker_args"), config)
        return config

    def _read_spread(self, path: KeyPath, table: dict[str, Any]) -> None:
        """Take what is of a cluster out of a pool's table."""
        spread, most = table.pop("spread", False), table.pop("most", None)
        if not isinstance(spread, bool):
            self._note((*path, "spread"), f"must be true or false, not {spread!r}")
        elif spread and "cluster" not in self._expansion.data:
            self._note((*path, "spread"), "needs the hosts of a cluster: add a table [cluster]")
        elif spread:
            self._spread[str(path[-1])] = most
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            self._note((*path, "most"), f"must be a whole number of at least 1, not {most!r}")
        for key in [key for key, given in (("placement", table.get("placement")), ("most", most)) if given is not None]:
            if spread is False:
                self._note((*path, key), "is of a pool that is spread over hosts: add spread = true")

    def _database(self, path: KeyPath, table: dict[str, Any]) -> PoolConfig | None:
        """A pool given by the URL of its database; keys that are none of a pool's go to the worker."""
        before = len(self.problems)
        if "worker" in table:
            self._note((*path, "worker"), "is chosen by the url: give one of the two")
        settings = {key: value for key, value in table.items() if key not in ("url", "adapter", "worker")}
        wanted = {item.name: str(item.type) for item in fields(PoolConfig)}
        given = self._converted(path, settings, wanted, _POOL_PARTS)
        if len(self.problems) > before:
            return None
        try:
            config = urls.config_of(urls.within(table.get("url", ""), self._folder), table.get("adapter"), given)
        except InvalidConfig as error:
            for key, text in error.problems.items():
                self._note((*path, key), text)
            return None
        return self._with_arguments(path, config)

    def _with_arguments(self, path: KeyPath, config: PoolConfig) -> PoolConfig:
        """The config with the worker's arguments as its `__init__` takes them.

        Makes a worker, which connects to nothing until it is opened, to see whether it takes these.
        """
        before = len(self.problems)
        worker = load_worker(config.worker)
        arguments = {key: self._argument((*path, key), value, worker) for key, value in config.worker_args.items()}
        if len(self.problems) == before:
            self._check_arguments(path, worker, arguments)
        return replace(config, worker_args=arguments)

    def _argument(self, path: KeyPath, value: Any, worker: type) -> Any:
        """An argument; one that was one `${...}` is a number if it is annotated as nothing else."""
        wanted = _annotation(worker, str(path[-1]))
        names = set(re.findall(r"\w+", wanted))
        if path not in self._expansion.whole or not names & _NUMBERS or names - _NUMBERS - _OR_NOTHING:
            return value
        result = converted(value, wanted)
        if isinstance(result, str):
            self._note(path, f"must be {wanted}, and what `${{...}}` stands for is none")
        return result

    def _check_arguments(self, path: KeyPath, worker: type, arguments: Mapping[str, Any]) -> None:
        try:
            worker(**arguments)
        except InvalidConfig as error:
            for key, text in error.problems.items():
                self._note((*path, key), text)
        except Exception as error:  # whatever a user's own class raises
            known = ", ".join(inspect.signature(worker).parameters) or "no arguments"
            self._note(path, f"does not fit {worker.__name__}({known}): {error}")

    def _supervisor(self, path: KeyPath, value: Any) -> SupervisorSpec | None:
        before = len(self.problems)
        table = self._table(path, value)
        children = []
        listed = table.pop("children", [])
        if not isinstance(listed, list):
            self._note((*path, "children"), f"must be tables: [[{dotted(path)}.children]]")
            listed = []
        for index, child in enumerate(listed):
            children.append(self._child((*path, "children", index), child))
        table["children"] = [child for child in children if child is not None]
        made = self._make(path, table, SupervisorSpec, backoff=Backoff)
        return made if len(self.problems) == before else None

    def _child(self, path: KeyPath, value: Any) -> ChildSpec | None:
        if isinstance(value, dict) and isinstance(value.get("actor"), dict):
            nested = self._supervisor((*path, "actor"), value["actor"])
            value = {**value, "actor": SupervisorSpec() if nested is None else nested}
        return self._make(path, value, ChildSpec)

    def _sinks(self, value: Any) -> tuple[Any, ...]:
        table = self._table(("telemetry",), value)
        known = {"statsd": telemetry.StatsdSink, "logging": telemetry.LoggingSink, "function": None}
        self._refuse_unknown(("telemetry",), table, known)
        sinks: list[Any] = []
        for key, kind in known.items():
            if key not in table:
                continue
            path = ("telemetry", key)
            if kind is not None:
                sinks.append(self._make(path, table[key], kind))
                continue
            try:
                sinks += telemetry.sinks_of(table[key])
            except InvalidConfig as error:
                self._note(path, "; ".join(error.problems.values()))
        return tuple(sinks)


def _tables_of(path: KeyPath) -> int:
    """How many of a path's first keys name its table."""
    return 1 if path[:1] in (("system",), ("dashboard",), ("cluster",)) else 2


def _annotation(worker: type, name: str) -> str:
    """What a parameter of a worker is annotated with, as text; "" without an annotation."""
    try:
        parameter = inspect.signature(worker).parameters.get(name)
    except (TypeError, ValueError):  # a class that cannot tell
        return ""
    if parameter is None or parameter.annotation is parameter.empty or parameter.kind is parameter.VAR_KEYWORD:
        return ""
    return inspect.formatannotation(parameter.annotation).strip("'\"")


def _meant(value: Any, text: str) -> str:
    """The class that was meant by a `"module:Class"` whose module has no such class."""
    if "has no attribute" not in text or not isinstance(value, str):
        return ""
    module, _, name = value.partition(":")
    near = nearest(name, dir(sys.modules.get(module)))
    return f"; did you mean {module}:{near}?" if near else ""


def _unknown(key: str, known: Iterable[str]) -> str:
    near = nearest(key, known)
    if near is not None:
        return f"is unknown: did you mean {near}?"
    return f"is unknown; known are {', '.join(known)}"
