"""The interpreter's own tests of executors, loaded from where it is installed, with ours in place of its own.

Of `test.test_concurrent_futures` those run that are meant for every executor. Those of one kind of executor look at its
threads, processes and queues.
"""

from __future__ import annotations

import importlib
import unittest
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import actorpool

pytestmark = pytest.mark.slow  # a minute in all, most of it asleep
PACKAGE = "test.test_concurrent_futures"
HOMES = {  # where each is since 3.12; before, all are in one module
    "ExecutorTest": "executor",
    "ExecutorShutdownTest": "test_shutdown",
    "WaitTests": "test_wait",
    "AsCompletedTests": "test_as_completed",
    "InitializerMixin": "test_init",
    "FailingInitializerMixin": "test_init",
}
BY_NAME = "its script imports an executor of the standard library by name; test_executor.py has one like it"
NOT_APPLICABLE = {
    "test_interpreter_shutdown": BY_NAME,
    "test_submit_after_interpreter_shutdown": BY_NAME,
    "test_hang_issue83386": BY_NAME,
    "test_hang_gh83386": BY_NAME,
    "test_map_buffersize_on_infinite_iterable": "an iterator is taken at once",
}

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = importlib.import_module(PACKAGE)
except ImportError:
    pytest.skip(f"this interpreter is installed without {PACKAGE}", allow_module_level=True)


def _home(name: str) -> ModuleType:
    return package if hasattr(package, name) else importlib.import_module(f"{PACKAGE}.{HOMES[name]}")


_system: Any = None


@pytest.fixture(scope="module", autouse=True)
def _one_node() -> Iterator[None]:
    global _system
    with actorpool.start() as _system:
        yield


class SharingExecutor(actorpool.Executor):
    """All in one node, which is quicker."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, system=_system, **fields)


def _tests(name: str) -> type[unittest.TestCase]:
    base = getattr(_home(name), name)
    util = _home(name) if hasattr(_home(name), "ExecutorMixin") else importlib.import_module(f"{PACKAGE}.util")
    inapplicable = {
        test: unittest.skip(reason)(getattr(base, test))
        for test, reason in NOT_APPLICABLE.items()
        if hasattr(base, test)
    }
    bases = (base,) if issubclass(base, util.ExecutorMixin) else (base, util.ExecutorMixin)
    return type(f"Our{name}", (*bases, unittest.TestCase), {"executor_type": SharingExecutor, **inapplicable})


OurExecutorTest = _tests("ExecutorTest")
OurExecutorShutdownTest = _tests("ExecutorShutdownTest")
OurWaitTests = _tests("WaitTests")
OurAsCompletedTests = _tests("AsCompletedTests")
OurInitializerTest = _tests("InitializerMixin")
OurFailingInitializerTest = _tests("FailingInitializerMixin")


@pytest.mark.parametrize("name", HOMES)
def test_each_kind_has_tests(name: str) -> None:
    assert unittest.TestLoader().getTestCaseNames(_tests(name))
