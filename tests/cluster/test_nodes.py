"""The node of a host: attached to where one runs anyway, else the agent's own."""

from __future__ import annotations

import os

import pytest

import actorpool
from actorpool import SystemDown
from actorpool.cluster.nodes import open_node


@pytest.fixture
def name():
    return f"attach-{os.getpid()}"


@pytest.mark.slow
def test_a_node_that_runs_anyway_is_attached_to_and_goes_on(name):
    with actorpool.start(name):
        for attach in (None, True):
            node = open_node(name, attach)
            assert (node.system.name, node.ours, node.serves()) == (name, False, True)
            node.system.shutdown()
            assert node.serves()
        own = open_node(name, False)
        assert (own.system.name, own.ours) == (f"{name}.cluster", True)
        own.system.shutdown()
        assert not own.serves()


@pytest.mark.slow
def test_where_none_runs_one_is_started_unless_only_a_running_one_will_do(name):
    with pytest.raises(SystemDown, match=f"no node named '{name}' runs on this host: run `actorpool up`"):
        open_node(name, True)
    node = open_node(name, None)
    assert (node.ours, node.serves()) == (True, True)
    node.system.shutdown()
    assert not node.serves()
