"""What cannot work as it is written is refused with advice, or told as what it is."""

from __future__ import annotations

import array
import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

import actorpool
from actorpool import CheckoutTimeout
from actorpool.workers import EchoWorker
from tests.pools.conftest import StartPool


async def later(_: Any) -> int:
    return 1


def kind(_: Any, value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def opened(_: Any, path: str) -> Any:
    return open(path)


def run_again(_: Any, pool: actorpool.Pool) -> Any:
    return pool.run(kind, 1, checkout_timeout=0.2)


def test_an_async_function_is_refused_before_anything_is_sent(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    for call in (lambda: pool.run(later), lambda: asyncio.run(pool.aio.run(later))):
        with pytest.raises(TypeError, match="later is an `async def`.*asyncio.run"):
            call()
    assert pool.status().checkouts == 0


def test_an_open_file_is_refused_as_an_argument_and_as_a_result(start: StartPool, tmp_path: Path) -> None:
    pool = start(EchoWorker, size=1)
    path = tmp_path / "book"
    path.write_text("text")
    for mode in ("r", "rb"):
        with open(path, mode) as file, pytest.raises(TypeError, match="pass its path"):
            pool.run(kind, file)
    with pytest.raises(TypeError, match="pass its path"):
        pool.run(opened, str(path))


@pytest.mark.parametrize(
    "view", [memoryview(b"abc"), memoryview(bytearray(b"abc")), memoryview(array.array("d", [1.0, 2.0]))]
)
def test_a_memoryview_arrives_and_comes_back_as_one(start: StartPool, view: memoryview) -> None:
    name, back = start(EchoWorker, size=1).run(kind, view)
    assert name == "memoryview"
    assert (back, back.format, back.readonly) == (view, view.format, view.readonly)


def test_a_module_that_came_upon_the_path_later_is_told_so(
    start: StartPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = start(EchoWorker, size=1)
    (tmp_path / "came_later.py").write_text("def function(_):\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("came_later")
    try:
        with pytest.raises(ModuleNotFoundError, match=r"came_later.*sys.path.*start\(\)"):
            pool.run(module.function)
    finally:
        del sys.modules["came_later"]


def test_a_pool_that_is_used_in_its_own_worker_says_so_when_it_is_exhausted(start: StartPool) -> None:
    pool = start(EchoWorker, size=1)
    with pytest.raises(CheckoutTimeout, match="by a worker of this very pool"):
        pool.run(run_again, pool)
