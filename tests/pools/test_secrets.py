"""A password that a worker was given is in nothing that leaves a process."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actorpool import _scrubbing
from actorpool.workers import Worker

SECRET = "hunter2-and-more"
PROGRAM = """
import sys, time, actorpool
from tests.pools.test_secrets import SECRET, Leaky, leave, raises, tell
with actorpool.start(log_file=sys.argv[1], log_level="INFO", output=sys.argv[2]) as system:
    pool = system.start_pool("db", worker=Leaky, worker_args={"dsn": "postgresql://app:" + SECRET + "@db/x"}, size=1)
    pool.run(tell)
    try:
        pool.run(raises)
    except ValueError as error:
        assert str(error) == SECRET, "the caller's own error is unchanged"
    try:
        pool.run(leave)
    except actorpool.WorkerDied as error:
        print(repr(error))
    try:
        pool.run(tell, checkout_timeout=1)
    except actorpool.WorkerUnavailable as error:
        print(repr(error), repr(error.__cause__))
    until = time.monotonic() + 20
    while not any(node.last_end for node in system.tree().children[0].children) and time.monotonic() < until:
        time.sleep(0.05)
    print(repr(system.tree()), system.events(), system.status("db"), pool.workers(), '')
"""


class Leaky(Worker):
    """Connects once; after its process has died, the next one cannot."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @property
    def connection(self) -> str:
        return self.dsn

    def open(self) -> None:
        if os.path.exists(f"/tmp/leaky-{os.getppid()}"):
            raise ConnectionError(f"cannot connect to {self.dsn}")


def tell(dsn: str) -> None:
    print("printed", dsn)
    print("complained", dsn, file=sys.stderr)
    logging.getLogger("actorpool.mine").warning("logged %s", dsn)


def raises(dsn: str) -> None:
    raise ValueError(SECRET)


def leave(dsn: str) -> None:
    print("last words", SECRET, file=sys.stderr)
    Path(f"/tmp/leaky-{os.getppid()}").touch()
    os.abort()


@pytest.mark.parametrize("output", ["inherit", "log", "stderr"])
@pytest.mark.slow
def test_a_password_is_in_no_output_log_event_stack_or_tree(output: str, tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    command = [sys.executable, "-c", PROGRAM, str(log), output]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    for left in Path("/tmp").glob("leaky-*"):
        left.unlink()
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr + log.read_text()
    assert "last words ***" in told
    assert "cannot connect to ***" in told
    assert "logged ***" in told
    assert SECRET not in told


def test_passwords_are_found_by_their_form_and_known_secrets_everywhere() -> None:
    assert _scrubbing.scrub("at postgresql://app:pa55@db/x now") == "at postgresql://app:***@db/x now"
    assert _scrubbing.scrub("host=db password='a b' user=x") == "host=db password=*** user=x"


def test_addresses_and_names_of_databases_are_no_secrets(monkeypatch: Any) -> None:
    monkeypatch.setattr(_scrubbing, "_secrets", set())
    monkeypatch.setattr(_scrubbing, "_pattern", None)
    given = {
        "host": "db.example",
        "port": 5432,
        "dbname": "shop",
        "user": "app",
        "path": "/x/y",
        "password": "pa55w0rd",
    }
    assert _scrubbing.hide_arguments(given)
    assert _scrubbing.scrub(f"{given}") == f"{given}".replace("pa55w0rd", "***")
    assert not _scrubbing.hide_arguments({"base_url": "http://web/", "size": 3, "code": "abc"})


def test_an_error_is_scrubbed_with_all_that_it_comes_of(monkeypatch: Any) -> None:
    monkeypatch.setattr(_scrubbing, "_secrets", set())
    monkeypatch.setattr(_scrubbing, "_pattern", None)
    _scrubbing.hide([SECRET])
    cause = OSError(2, f"no {SECRET}", f"/{SECRET}")
    error = ValueError(f"with {SECRET}", {"k": [SECRET]})
    error.__cause__ = cause
    assert str(_scrubbing.scrub_error(error)) == "('with ***', {'k': ['***']})"
    assert str(cause) == "[Errno 2] no ***: '/***'"
