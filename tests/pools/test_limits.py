"""What workers share from the start, and what each of them may use."""

from __future__ import annotations

import logging
import os
import resource
from typing import Any

import pytest

import actorpool
from actorpool import Limits, PoolConfig
from actorpool.errors import InvalidConfig, WorkerDied
from actorpool.limits import bytes_of
from actorpool.testing import eventually
from actorpool.workers import EchoWorker
from tests.pools.conftest import StartPool


def shared(_: Any) -> tuple[int, int, int]:
    from tests.pools import preloaded_module

    return os.getpid(), preloaded_module.loaded_by, len(preloaded_module.data)


def test_a_preloaded_module_is_loaded_once_for_all_workers(start: StartPool) -> None:
    pool = start(EchoWorker, preload=["tests.pools.preloaded_module"])
    leases = [pool.checkout() for _ in range(2)]
    told = [lease.run(shared) for lease in leases]
    for lease in leases:
        lease.checkin()
    assert told[0][0] != told[1][0]
    assert told[0][1] == told[1][1] not in (told[0][0], told[1][0], os.getpid())


def test_a_module_that_fails_to_load_fails_the_start_with_its_traceback(node: actorpool.System) -> None:
    with pytest.raises(RuntimeError, match="no model here") as caught:
        node.start_pool("unloaded", worker=EchoWorker, preload=("tests.pools.preloaded_failure",))
    assert "preloaded_failure.py" in str(caught.value.__cause__)
    with pytest.raises(actorpool.PoolNotFound):
        node.pool("unloaded").status()


def test_a_thread_that_a_preloaded_module_has_started_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    from actorpool.pools.preloading import preload

    with caplog.at_level(logging.WARNING, "actorpool"):
        preload("db", ["json"])
        assert caplog.records == []
        preload("db", ["tests.pools.preloaded_thread"])
    assert "left-running" in caplog.text


def grab(_: Any, size: int) -> int:
    return len(bytearray(size))


def test_memory_beyond_the_limit_is_an_error_of_the_call_and_the_worker_goes_on(start: StartPool) -> None:
    pool = start(EchoWorker, size=1, limits=Limits(memory="1G"))
    pid = pool.workers()[0].pid
    with pytest.raises(MemoryError, match=r"1073741824 bytes \(1024 MiB\).*Limits\(memory="):
        pool.run(grab, 2**30)
    assert pool.run(grab, 2**20) == 2**20
    assert pool.workers()[0].pid == pid


def spin(_: Any) -> None:
    while True:
        pass


def test_processor_time_used_up_is_the_death_of_the_worker_alone(start: StartPool) -> None:
    pool = start(EchoWorker, size=1, limits=Limits(cpu=1))
    with pytest.raises(WorkerDied):
        pool.run(spin)
    eventually(lambda: pool.echo(1) == 1)


def test_descriptors_are_limited(start: StartPool) -> None:
    pool = start(EchoWorker, size=1, limits=Limits(files=100))
    assert pool.run(lambda _: resource.getrlimit(resource.RLIMIT_NOFILE)) == (100, 100)


def test_every_bad_limit_is_named_at_once() -> None:
    with pytest.raises(InvalidConfig) as caught:
        Limits(memory="much", cpu=0, files=3, disk=1)
    assert set(caught.value.problems) == {"memory", "cpu", "files", "disk"}
    for field, value in (("limits", 5), ("preload", "json"), ("preload", ["a-b"])):
        with pytest.raises(InvalidConfig, match=field):
            PoolConfig(worker=EchoWorker, **{field: value})


@pytest.mark.parametrize(
    ("text", "size"), [(5000000, 5000000), ("512M", 2**29), ("1.5 GiB", 3 * 2**29), ("2kb", 2048), ("7", 7)]
)
def test_sizes_are_bytes_or_texts(text: int | str, size: int) -> None:
    assert bytes_of(text) == size
