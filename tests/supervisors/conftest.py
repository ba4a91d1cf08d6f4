"""Actor systems for the tests of actors: Thespian's own bases, without a node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.supervisors.stock import SIMPLE, TCP, UDP, actor_system


@pytest.fixture(params=[SIMPLE, TCP, UDP])
def any_base(request: pytest.FixtureRequest, free_port: int) -> Iterator[Any]:
    with actor_system(request.param, free_port) as system:
        yield system


@pytest.fixture(params=[TCP, UDP])
def processes(request: pytest.FixtureRequest, free_port: int) -> Iterator[Any]:
    """A system whose actors are processes."""
    with actor_system(request.param, free_port) as system:
        yield system


@pytest.fixture
def tcp(free_port: int) -> Iterator[Any]:
    with actor_system(TCP, free_port) as system:
        yield system
