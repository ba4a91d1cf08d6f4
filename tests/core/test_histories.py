"""More histories of each model than the other tests have time for, and others in each run.

`ACTORPOOL_HISTORIES=10000 pytest -m slow tests/core/test_histories.py` takes 45 minutes.
"""

from __future__ import annotations

import os
import unittest

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.cluster.test_core import ClusterMachine
from tests.core.test_pool_model import KeyedMachine, PoolMachine, StandingMachine
from tests.core.test_queue import QueueAgainstList
from tests.core.test_sandboxes import AnyOrder
from tests.core.test_shared_model import SharedPool
from tests.core.test_supervisor_model import Supervisors

HISTORIES = int(os.environ.get("ACTORPOOL_HISTORIES", "500"))
TOGETHER = 250
"""Histories of one run of Hypothesis, which looks for others the longer, the more it has seen."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + HISTORIES // 5)]


@pytest.mark.parametrize(
    "machine",
    [PoolMachine, KeyedMachine, StandingMachine, AnyOrder, SharedPool, Supervisors, QueueAgainstList, ClusterMachine],
)
def test_nothing_is_found_in_many_histories(machine: type) -> None:
    for begun in range(0, HISTORIES, TOGETHER):

        class Case(machine.TestCase):  # type: ignore[name-defined, misc]
            settings = settings(
                max_examples=min(TOGETHER, HISTORIES - begun),
                stateful_step_count=50,
                derandomize=False,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )

        result = unittest.TestResult()
        Case("runTest").run(result)
        assert result.wasSuccessful(), "".join(text for _, text in [*result.failures, *result.errors])
