"""A database in one line: the worker by the scheme, the arguments by the URL, the name without the password."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import actorpool
from actorpool import InvalidConfig
from actorpool.workers import DbapiWorker, SqlAlchemyWorker, SqliteWorker, Worker, cache_key, method, urls
from tests.workers.mariadb import MariaDb
from tests.workers.pgserver import PgServer


@pytest.fixture(scope="module")
def node() -> Iterator[actorpool.System]:
    with actorpool.start() as system:
        yield system


class Mine(SqliteWorker):
    """A worker of the user's own."""


class Other(Worker):
    """One that is derived from no shipped worker."""

    @method
    def told(self) -> Any:
        return vars(self)


def planned(url: str, adapter: Any = None, **given: Any) -> tuple[Any, dict[str, Any]]:
    config = urls.config_of(url, adapter, given)
    return config.worker, dict(config.worker_args)


# -- which worker, with what -----------------------------------------------------------------------------------


def test_a_file_is_found_in_the_callers_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with actorpool.start() as node:
        monkeypatch.chdir("/")
        monkeypatch.chdir(tmp_path)
        db = node.start_database("sqlite:///shop.db", size=2)
        db.execute("create table t (x int)")
        assert (tmp_path / "shop.db").exists()
        other = node.start_database(f"sqlite:///{tmp_path}/shop.db", "again", size=1)
        assert other.execute("select count(*) from t").scalar() == 0


@pytest.mark.parametrize("adapter", [None, "dbapi", "sqlalchemy", Mine])
def test_a_file_is_served_by_any_adapter_that_can(adapter: Any, node: actorpool.System, tmp_path: Path) -> None:
    db = node.start_database(f"sqlite:///{tmp_path / 'ä b%25.db'}", "file", adapter=adapter, size=1)
    try:
        db.execute("create table t (x int)")
        with db.transaction() as tx:
            tx.execute("insert into t values (1)")
        assert db.execute("select count(*) from t").scalar() == 1
    finally:
        node.stop_pool("file")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_has_one_worker(url: str, node: actorpool.System) -> None:
    db = node.start_database(url, "memory")
    try:
        db.execute("create table t (x int)")
        wait([db.submit(lambda connection: connection.execute("insert into t values (1)") and None) for _ in range(9)])
        assert db.execute("select count(*) from t").scalar() == 9
        assert (db.status().size, db.status().total) == (1, 1)
    finally:
        node.stop_pool("memory")
    for fields in ({"size": 2}, {"max_overflow": 1}):
        with pytest.raises(InvalidConfig, match="one worker's"):
            node.start_database(url, **fields)


def test_settings_of_a_file_go_into_its_uri() -> None:
    assert planned("sqlite:////data/a b.db?mode=ro")[1] == {"database": "file:/data/a%20b.db?mode=ro"}


def test_a_postgresql_is_reached_by_either_scheme(pg: PgServer, node: actorpool.System) -> None:
    url = pg.dsn if "://" in pg.dsn else None
    parts = pg.parameters() if url is None and hasattr(pg, "parameters") else None
    if url is None and parts is None:
        from psycopg.conninfo import conninfo_to_dict

        given = conninfo_to_dict(pg.dsn)
        url = f"postgresql://{given['user']}@/{given['dbname']}?host={quote(str(given['host']), safe='')}"
    assert url is not None
    for number, scheme in enumerate(("postgresql", "postgres")):
        db = node.start_database(f"{scheme}{url[url.index('://') :]}", f"pg{number}", size=1, application_name="mine")
        try:
            assert db.execute("select 1").scalar() == 1
            assert db.execute("show application_name").scalar() == "mine"
        finally:
            node.stop_pool(f"pg{number}")


def test_a_mariadb_is_reached_by_the_driver_that_is_installed(mariadb: MariaDb, node: actorpool.System) -> None:
    host, port = mariadb.address
    for scheme in ("mysql", "mariadb"):
        db = node.start_database(f"{scheme}://root@{host}:{port}/actorpool?charset=utf8mb4", scheme, size=1)
        try:
            assert db.execute("select database()").scalar() == "actorpool"
        finally:
            node.stop_pool(scheme)


def test_a_url_of_mysql_becomes_arguments_of_its_driver() -> None:
    worker, args = planned("mysql://me:p%40ss@db.example:3307/shop?charset=utf8mb4")
    assert worker == "actorpool.workers:DbapiWorker"
    assert args.pop("module_or_factory") in urls.MYSQL_DRIVERS
    assert args == {
        "host": "db.example", "port": 3307, "user": "me", "password": "p@ss", "database": "shop", "charset": "utf8mb4",
    }  # fmt: skip


def test_what_is_no_field_of_a_pool_goes_to_the_worker() -> None:
    config = urls.config_of(
        "sqlite:////data/a.db", None, {"size": 3, "pragmas": {"cache_size": 10}, "worker_args": {"timeout": 1.0}}
    )
    assert config.size == 3
    assert config.max_overflow == 20
    assert config.worker_args == {"database": "/data/a.db", "pragmas": {"cache_size": 10}, "timeout": 1.0}
    assert urls.config_of("sqlite:////data/a.db", None, {}).size == 10


@pytest.mark.parametrize(
    ("url", "adapter", "told"),
    [
        ("oracle://h/x", None, "known are postgresql, postgres, sqlite, mysql, mariadb"),
        ("app.db", None, "must be a URL"),
        (7, None, "must be a URL"),
        ("sqlite:///x", "oracle", "must be one of postgres, sqlite, dbapi, sqlalchemy"),
        ("sqlite:///x", int, "Worker"),
        ("sqlite:///x", "postgres", "serves postgresql, postgres, not 'sqlite'"),
        ("postgresql://h/x", "sqlite", "serves sqlite, not 'postgresql'"),
        ("sqlite://host/x", None, "has no host"),
        ("mysql://h:port/x", None, "port"),
        ("postgresql+nosuchdriver://me:word@h/x", None, "SQLAlchemy"),
        ("oracle+oracledb://me:word@h/x", None, "oracledb"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(url: Any, adapter: Any, told: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        actorpool.database(url, adapter=adapter)
    assert told in str(caught.value)
    assert "word" not in str(caught.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda name: None)
    for url, told in (
        ("postgresql://h/x", "psycopg"),
        ("mysql://h/x", "pymysql, MySQLdb, mariadb, mysql.connector"),
        ("postgresql+psycopg://h/x", "sqlalchemy"),
    ):
        with pytest.raises(InvalidConfig, match=told):
            actorpool.database(url)


def test_a_worker_class_gets_what_the_shipped_one_gets_that_it_derives_from() -> None:
    class OfDbapi(DbapiWorker):
        pass

    class OfAlchemy(SqlAlchemyWorker):
        pass

    assert planned("sqlite:////x.db", Mine) == (Mine, {"database": "/x.db"})
    assert planned("sqlite:////x.db", OfDbapi) == (OfDbapi, {"module_or_factory": "sqlite3", "database": "/x.db"})
    assert planned("sqlite:////x.db", OfAlchemy)[1] == {"url": "sqlite:////x.db"}
    assert planned("thing://x", Other, colour="red") == (Other, {"url": "thing://x", "colour": "red"})


# -- names ------------------------------------------------------------------------------------------------------


def test_the_name_is_made_of_the_url_without_its_password(node: actorpool.System) -> None:
    name = urls.name_of("postgresql://me@h/x")
    assert len(name) == 11
    assert name.startswith("db_")
    assert int(name[3:], 16) >= 0
    for same in ("postgresql://me:one@h/x", "postgresql://me:t:w@o@h/x"):
        assert urls.name_of(same) == name
    assert urls.name_of("postgresql://h/x?user=me&password=one") == urls.name_of("postgresql://h/x?user=me&password=2")
    assert (
        len({urls.name_of(url) for url in ("postgresql://me@h/y", "postgresql://you@h/x", "sqlite:///x")} | {name}) == 4
    )
    db = node.start_database("sqlite://")
    assert node.pools() == [db.name] == [urls.name_of("sqlite://")]
    node.stop_pool(db.name)


# -- figures ------------------------------------------------------------------------------------------------------


def test_figures_are_summed_over_the_workers(node: actorpool.System, tmp_path: Path) -> None:
    db = node.start_database(f"sqlite:///{tmp_path}/a.db", "figures", size=2, max_overflow=0)
    try:
        with db.checkout() as one, db.checkout() as other:
            for lease in (one, other, other):
                lease.execute("select 1")
            with pytest.raises(Exception, match="no such table"):
                other.execute("select * from absent")
        stats = db.database_stats()
        assert stats["queries_executed"] >= 3
        assert stats["errors"] == 1
        assert stats["connections_created"] == 2
        assert (stats["size"], stats["available"], stats["missing"]) == (2, 2, 0)
        assert 0 < stats["uptime"] < 120
        assert {"cache_hits", "cache_misses", "cache_size"} <= stats.keys()
        assert asyncio.run(db.aio.database_stats()).keys() == stats.keys()
        busy = db.submit(lambda connection: time.sleep(1.5))
        while not busy.running():
            time.sleep(0.01)
        assert db.database_stats(timeout=0.2)["missing"] == 1
        busy.result(30)
    finally:
        node.stop_pool("figures")


def test_a_cache_key_is_the_same_in_every_process() -> None:
    key = cache_key("select 1")
    assert len(key) == 32
    assert int(key, 16) >= 0
    assert cache_key("select 2") != key
    code = "from actorpool.workers import cache_key; print(cache_key('select 1'))"
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=env)
    assert done.stdout.strip() == key


# -- in a script -----------------------------------------------------------------------------------------------------


def test_a_script_has_a_database_in_one_line(tmp_path: Path) -> None:
    with actorpool.database(f"sqlite:///{tmp_path}/app.db", size=2) as db:
        assert isinstance(db, actorpool.Pool)
        db.execute("create table t (x int)")
        pid = db.run(lambda connection: os.getpid())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    kept = actorpool.database(f"sqlite:///{tmp_path}/app.db", "shop", enabled=False)
    try:
        assert kept.execute("select count(*) from t").scalar() == 0
        assert kept.system.pools() == ["shop"]
    finally:
        kept.close()
