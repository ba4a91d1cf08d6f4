"""A real MariaDB for the tests: one of this run's own, or the MariaDB or MySQL that ACTORPOOL_TEST_MYSQL_HOST names.

The server ends with this process, however that ends: a shell between them waits for the end of a pipe.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.places import SHORT
from tests.workers.pgserver import without_run_token

pymysql: Any = None  # imported where there is a server: the driver is a test dependency, and may be missing

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/libexec"])
_NONE = (
    "no MariaDB here: {} is missing (Debian: mariadb-server-core, mariadb-client-core); "
    "install it, or name a server by ACTORPOOL_TEST_MYSQL_HOST, _PORT, _USER, _PASSWORD and _DATABASE"
)
# Runs "$@" until the other end of the pipe that is its input is closed. Detached, so that it is no test's child.
_LEASH = 'exec 3<&0; ("$@" & server=$!; read -r _ <&3; kill $server; wait $server) &'


class MariaDb:
    """A server; one of our own can also be stopped and started. `parameters()` are for `pymysql.connect`."""

    def __init__(self, parameters: dict[str, Any], folder: Path | None = None) -> None:
        self._parameters = parameters
        self._folder = folder
        self._leash: int | None = None

    def parameters(self, **changed: Any) -> dict[str, Any]:
        """The connection parameters, with some of them changed."""
        return {**self._parameters, **changed}

    def query(self, text: str, params: Any = None, **changed: Any) -> list[tuple[Any, ...]]:
        """Ask the server over a connection of its own."""
        with contextlib.closing(pymysql.connect(**self.parameters(autocommit=True, **changed))) as conn:
            cursor = conn.cursor()
            cursor.execute(text, params)
            return list(cursor.fetchall())

    def empty(self) -> None:
        """Drop every table of an earlier test."""
        for (table,) in self.query("SHOW TABLES"):
            self.query(f"DROP TABLE `{table}`")

    def kill_session(self, number: int) -> None:
        """End a session as an administrator does; returns when it is gone."""
        self.query(f"KILL CONNECTION {number:d}")
        while self.query("SELECT 1 FROM information_schema.processlist WHERE id = %s", [number]):
            time.sleep(0.005)

    def running(self) -> list[str]:
        """The statements that other sessions run right now."""
        text = "SELECT info FROM information_schema.processlist WHERE command = 'Query' AND id <> connection_id()"
        return [row[0] for row in self.query(text)]

    # -- a server of our own only ---------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens on loopback."""
        return self._parameters["host"], self._parameters["port"]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if self._folder is None:
            pytest.skip("needs a MariaDB of its own; ACTORPOOL_TEST_MYSQL_HOST names somebody's")
        command = [
            _binary("mariadbd", "mysqld"), "--no-defaults", f"--user={_user()}", f"--datadir={self._folder / 'data'}",
            f"--socket={self._folder / 'server.sock'}", f"--pid-file={self._folder / 'server.pid'}",
            f"--log-error={self._folder / 'server.log'}", f"--tmpdir={self._folder}",
            "--bind-address=127.0.0.1", f"--port={self.address[1]}", "--skip-name-resolve", "--skip-log-bin",
            "--innodb-buffer-pool-size=16M", "--innodb-use-native-aio=0",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync",
            "--innodb-doublewrite=0", "--sync-frm=0",
        ]  # fmt: skip
        reading, self._leash = os.pipe()
        shell = ["sh", "-c", _LEASH, "mariadb", *command]
        try:
            with without_run_token():
                silent = subprocess.DEVNULL  # it has a log
                subprocess.run(shell, stdin=reading, stdout=silent, stderr=silent, start_new_session=True, check=True)
        finally:
            os.close(reading)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.query("SELECT 1", database=None)
                return
            except pymysql.err.OperationalError as error:
                if time.monotonic() > deadline:
                    log = self._folder / "server.log"
                    told = log.read_text(errors="replace")[-2000:] if log.exists() else "nothing"
                    raise RuntimeError(f"the MariaDB does not answer: {error}; its log says: {told}") from error
                time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order."""
        leash, self._leash = self._leash, None
        if leash is None:
            return
        assert self._folder is not None
        pid = int((self._folder / "server.pid").read_text())
        os.close(leash)
        deadline = time.monotonic() + 30
        while _is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _user() -> str:
    """Whom it runs as: a server refuses to run as root."""
    if os.getuid():
        return pwd.getpwuid(os.getuid()).pw_name
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("mysql").pw_name
    return "nobody"


def _binary(*names: str) -> str:
    found = next(filter(None, (shutil.which(name, path=_PATH) for name in names)), None)
    if found is None:
        pytest.skip(_NONE.format(" or ".join(names)))
    return found


def _named() -> MariaDb | None:
    host = os.environ.get("ACTORPOOL_TEST_MYSQL_HOST")
    if not host:
        return None
    parts = {name: os.environ.get(f"ACTORPOOL_TEST_MYSQL_{name.upper()}", "") for name in ("user", "password")}
    names = {
        "port": int(os.environ.get("ACTORPOOL_TEST_MYSQL_PORT") or 3306),
        "database": os.environ.get("ACTORPOOL_TEST_MYSQL_DATABASE") or "test",
    }
    return MariaDb({"host": host, **parts, **names})


def _make_data(folder: Path) -> None:
    user = _user()
    if not os.getuid():
        shutil.chown(folder, user)
    install = _binary("mariadb-install-db", "mysql_install_db")
    command = [install, "--no-defaults", f"--user={user}", f"--datadir={folder / 'data'}", "--skip-test-db"]
    done = subprocess.run(
        [*command, "--auth-root-authentication-method=normal"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no MariaDB here: {install} failed: {(done.stdout + done.stderr)[-500:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve() -> Iterator[MariaDb]:
    """A server for one test run, with an empty database and a user who may do everything in it."""
    global pymysql
    pymysql = pytest.importorskip("pymysql", reason="no driver for MariaDB: install PyMySQL")
    named = _named()
    if named is not None:
        yield named
        return
    _binary("mariadbd", "mysqld")
    folder = Path(tempfile.mkdtemp(prefix="actorpool-my-", dir=SHORT))
    server = MariaDb({"host": "127.0.0.1", "port": _free_port(), "user": "root", "database": "actorpool"}, folder)
    try:
        _make_data(folder)
        server.start()
        server.query("CREATE DATABASE actorpool", database=None)
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
