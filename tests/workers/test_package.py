"""The package of workers: what it exports, what it imports, and the workers without a resource."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from actorpool import workers
from actorpool.errors import InvalidConfig
from actorpool.workers import EchoWorker, pool_size
from actorpool.workers.base import methods_of


def test_importing_the_workers_imports_no_driver() -> None:
    code = (
        "import sys, actorpool.workers as w\n"
        "w.PostgresWorker, w.HttpWorker, w.SqlAlchemyWorker, w.SqliteWorker, w.DbapiWorker, w.EchoWorker\n"
        "print([name for name in ('psycopg', 'httpx', 'sqlalchemy', 'h2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_exported_name_is_there_and_others_are_not() -> None:
    for name in workers.__all__:
        assert getattr(workers, name) is not None
    assert set(workers.__all__) <= set(dir(workers))
    with pytest.raises(AttributeError, match="NoSuchWorker"):
        _ = workers.NoSuchWorker


def test_the_sizing_formula() -> None:
    assert [pool_size(), pool_size(100, 20, 2), pool_size(100, 20, 3), pool_size(10, 20, 1)] == [80, 40, 26, 1]


@pytest.mark.parametrize("figures", [(100, 20, 0), (100, -1, 1), (True, 20, 1), (100, 20, 1.5)])
def test_sizing_refuses_nonsense_by_name(figures: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidConfig, match=r"max_connections|reserved_connections|nodes"):
        pool_size(*figures)


def test_the_echo_worker_gives_back_waits_and_fails() -> None:
    worker = EchoWorker(resource="here")
    worker.open()
    assert worker.resource == "here"
    assert worker.echo({"a": 1}) == {"a": 1}
    assert worker.add(1, 2) == 3
    assert worker.pid() == os.getpid()
    begun = time.monotonic()
    assert worker.sleep(0.01, "rested") == "rested"
    assert time.monotonic() - begun >= 0.01
    with pytest.raises(RuntimeError, match="as asked"):
        worker.fail()
    with pytest.raises(KeyError):
        worker.fail(KeyError("mine"))
    assert methods_of(EchoWorker) == ("echo", "add", "pid", "sleep", "fail", "crash")


def test_a_crash_of_the_echo_worker_ends_its_process() -> None:
    code = "from actorpool.workers import EchoWorker; EchoWorker().crash(7)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
