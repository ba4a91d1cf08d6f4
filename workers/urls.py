"""Which worker serves a database that is given by a URL, and with what arguments. Connects to nothing."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from actorpool._validation import nearest
from actorpool.config import PoolConfig, load_worker
from actorpool.errors import InvalidConfig

SIZE, MAX_OVERFLOW = 10, 20
"""A database's pool, unless it is told otherwise."""
MYSQL_DRIVERS = ("pymysql", "MySQLdb", "mariadb", "mysql.connector")
"""Drivers of MySQL and MariaDB, the first that is installed is taken."""
_WORKERS = {
    "postgres": "actorpool.workers:PostgresWorker",
    "sqlite": "actorpool.workers:SqliteWorker",
    "dbapi": "actorpool.workers:DbapiWorker",
    "sqlalchemy": "actorpool.workers:SqlAlchemyWorker",
}
_ADAPTERS = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "sqlite": "sqlite",
    "mysql": "dbapi",
    "mariadb": "dbapi",
}
_SECRET = re.compile(r"(?i)(^|[?&;])(password|passwd|pwd|passfile|sslpassword)=[^&;]*")
_CREDENTIALS = re.compile(r"(?<=://)([^:@/?#]*):.*@")


def config_of(url: str, adapter: Any, given: Mapping[str, Any]) -> PoolConfig:
    """The settings of a database's pool.

    Args:
        url: `postgresql://`, `postgres://`, `sqlite://`, `mysql://`, `mariadb://`, or SQLAlchemy's with a `+driver`.
        adapter: `"postgres"`, `"sqlite"`, `"dbapi"`, `"sqlalchemy"`, or a `Worker` class; None goes by the scheme.
        given: fields of `PoolConfig`; all others are arguments of the worker.

    Raises:
        InvalidConfig: a scheme or an adapter that is unknown, a driver that is missing, or a bad field.
    """
    if not isinstance(url, str) or "://" not in url:
        raise _refused("url", 'must be a URL such as "sqlite:///app.db" or "postgresql://user@host/name"')
    worker, kind = _worker_of(url, adapter)
    known = {item.name for item in fields(PoolConfig)}
    settings = {"size": SIZE, "max_overflow": MAX_OVERFLOW} | {name: given[name] for name in given if name in known}
    extra = {name: value for name, value in given.items() if name not in known}
    slips = {name: nearest(name, known) for name in extra}
    if problems := {name: f"is no field of a pool: did you mean {near!r}?" for name, near in slips.items() if near}:
        raise InvalidConfig("database", problems)
    arguments = {**_ARGUMENTS[kind](url), **extra, **settings.pop("worker_args", {})}
    if arguments.get("database") == ":memory:":
        if {given.get("size", 1), given.get("max_overflow", 0) + 1} != {1}:
            raise _refused("size", "a database in memory is one worker's: give size=1, or a file")
        settings |= {"size": 1, "max_overflow": 0}
    return PoolConfig(**{"worker": worker, **settings, "worker_args": arguments})


def within(url: Any, folder: str) -> Any:
    """The URL of a SQLite file with a relative path as that file's in a folder; anything else as it is."""
    if not isinstance(url, str):
        return url
    scheme, colon, rest = url.partition(":///")
    path, mark, query = rest.partition("?")
    if not colon or scheme.lower().partition("+")[0] != "sqlite" or path in ("", ":memory:") or path[0] == "/":
        return url
    return f"{scheme}{colon}{quote(os.path.abspath(folder))}/{path}{mark}{query}"


def name_of(url: str) -> str:
    """A pool's name for a database without one: `db_` and 8 hexadecimal digits of its URL without the password."""
    open_part = _SECRET.sub(r"\1\2=", _CREDENTIALS.sub(r"\1@", str(url)))
    return f"db_{hashlib.blake2b(open_part.encode(), digest_size=4).hexdigest()}"


def _refused(field: str, text: str) -> InvalidConfig:
    return InvalidConfig("database", {field: text})


def _worker_of(url: str, adapter: Any) -> tuple[Any, str]:
    """The worker, and which of the shipped ones it is, or is derived from."""
    if isinstance(adapter, type):
        try:
            load_worker(adapter)
        except TypeError as error:
            raise _refused("adapter", str(error)) from None
        shipped = {f"{cls.__module__}:{cls.__qualname__}" for cls in adapter.__mro__}
        for kind in _WORKERS:
            if shipped & _HOMES[kind]:
                return adapter, kind
        return adapter, "url"
    if adapter is None:
        scheme = urlsplit(url).scheme.lower()
        adapter = "sqlalchemy" if "+" in scheme else _ADAPTERS.get(scheme)
        if adapter is None:
            told = f"has the scheme {scheme!r}; known are {', '.join(_ADAPTERS)}, and SQLAlchemy's with a +driver"
            raise _refused("url", f"{told}, such as postgresql+psycopg://")
    if adapter not in _WORKERS:
        raise _refused("adapter", f"must be one of {', '.join(_WORKERS)}, or a Worker class, not {adapter!r}")
    return _WORKERS[adapter], adapter


_HOMES = {
    "postgres": {"actorpool.workers.postgres:PostgresWorker"},
    "sqlite": {"actorpool.workers.sqlite:SqliteWorker"},
    "dbapi": {"actorpool.workers.dbapi:DbapiWorker"},
    "sqlalchemy": {"actorpool.workers.alchemy:SqlAlchemyWorker"},
}


def _check_scheme(url: str, adapter: str, *schemes: str) -> str:
    scheme = urlsplit(url).scheme.lower()
    if scheme not in schemes:
        raise _refused("adapter", f"{adapter!r} serves {', '.join(schemes)}, not {scheme!r}")
    return scheme


def _need(module: str, install: str) -> None:
    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        found = False
    if not found:
        raise _refused("adapter", f"needs {module}, which is not installed: pip install {install}")


def _postgres(url: str) -> dict[str, Any]:
    _check_scheme(url, "postgres", "postgresql", "postgres")
    _need("psycopg", "'psycopg[binary]'")
    return {"conninfo": url}


def _sqlite(url: str) -> dict[str, Any]:
    _check_scheme(url, "sqlite", "sqlite")
    return {"database": _file_of(url)}


def _file_of(url: str) -> str:
    """The file of a `sqlite://` URL: three slashes are relative to this process's directory, four are absolute."""
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc:
        raise _refused("url", "sqlite:// has no host: sqlite:///file, sqlite:////absolute/file, or sqlite:// in memory")
    if path in ("", ":memory:"):
        return ":memory:"
    path = os.path.abspath(path)
    return f"file:{quote(path)}?{parts.query}" if parts.query else path


def _dbapi(url: str) -> dict[str, Any]:
    scheme = _check_scheme(url, "dbapi", "mysql", "mariadb", "sqlite", "postgresql", "postgres")
    if scheme == "sqlite":
        return {"module_or_factory": "sqlite3", "database": _file_of(url)}
    if scheme.startswith("postgres"):
        _need("psycopg", "'psycopg[binary]'")
        return {"module_or_factory": "psycopg", "conninfo": url}
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise _refused("url", "has a port that is no number from 0 to 65535") from None
    told = {
        "host": parts.hostname,
        "port": port,
        "user": None if parts.username is None else unquote(parts.username),
        "password": None if parts.password is None else unquote(parts.password),
        "database": unquote(parts.path.removeprefix("/")) or None,
    }
    return {
        "module_or_factory": _mysql_driver(),
        **{name: value for name, value in told.items() if value is not None},
        **dict(parse_qsl(parts.query)),
    }


def _mysql_driver() -> str:
    for module in MYSQL_DRIVERS:
        try:
            _need(module, "")
        except InvalidConfig:
            continue
        return module
    raise _refused("adapter", f"needs one of {', '.join(MYSQL_DRIVERS)}, and none is installed: pip install PyMySQL")


def _sqlalchemy(url: str) -> dict[str, Any]:
    _need("sqlalchemy", "'actorpool[sqlalchemy]'")
    engine: Any = import_module("sqlalchemy.engine")
    try:
        parsed = engine.make_url(url)
        driver = parsed.get_dialect()
        driver.import_dbapi()
    except ImportError as error:
        raise _refused("adapter", f"needs a driver that is not installed: {error}") from None
    except Exception as error:  # its text may hold the URL
        raise _refused("url", f"is none that SQLAlchemy understands ({type(error).__name__})") from None
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        url = parsed.set(database=os.path.abspath(parsed.database)).render_as_string(hide_password=False)
    return {"url": url}


_ARGUMENTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "postgres": _postgres,
    "sqlite": _sqlite,
    "dbapi": _dbapi,
    "sqlalchemy": _sqlalchemy,
    "url": lambda url: {"url": url},
}
