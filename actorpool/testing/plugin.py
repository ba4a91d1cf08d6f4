"""The pytest plugin, loaded by every run of pytest where actorpool is installed: imports nothing until a test asks.

A project says once what its tests use:

```python
@pytest.fixture(scope="session")
def actorpool_pool(actorpool_system):
    return actorpool_system.start_pool("db", worker=PostgresWorker, worker_args={"conninfo": TEST_DATABASE})
```
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from actorpool import System
    from actorpool.testing import Sandbox


@pytest.fixture(scope="session")
def actorpool_system() -> Iterator[System]:
    """A private actor system for the whole run, ended with it."""
    import actorpool

    with actorpool.start() as system:
        yield system


@pytest.fixture
def actorpool_pool() -> Any:
    """The pool that `actorpool_sandbox` keeps clean: to be overridden by the project."""
    raise pytest.UsageError(
        "actorpool_sandbox needs to know your pool: define a fixture called actorpool_pool that returns its handle"
    )


@pytest.fixture
def actorpool_sandbox(actorpool_pool: Any) -> Iterator[Sandbox]:
    """A sandbox of `actorpool_pool` around the test: what the test does with the pool is rolled back after it."""
    from actorpool.testing import sandbox

    with sandbox(actorpool_pool) as box:
        yield box
