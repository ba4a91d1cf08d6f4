"""Places of workers: each is in exactly one, and moves only as the table says."""

from __future__ import annotations

import pytest

from actorpool.core.pool.workers import MOVES, IllegalMove, State, Worker, Workers

IDLE, LEASED, OPENING, STARTING, STOPPING = State.IDLE, State.LEASED, State.OPENING, State.STARTING, State.STOPPING


def fleet_of(count):
    fleet = Workers()
    workers = [Worker(id, overflow=False, restarts=0) for id in range(1, count + 1)]
    for worker in workers:
        fleet.add(worker)
    return fleet, workers


def brought(fleet, worker, *states):
    for state in states:
        fleet.move(worker, state)


def test_a_worker_is_in_exactly_one_place():
    fleet, (worker, _) = fleet_of(2)
    brought(fleet, worker, OPENING, IDLE, LEASED)
    assert [state for state, place in fleet.places.items() if worker.id in place] == [LEASED]
    assert worker.state is LEASED
    assert (len(fleet), fleet.count(STARTING, LEASED), fleet.count(IDLE)) == (2, 2, 0)


@pytest.mark.parametrize("here", list(State), ids=lambda state: state.value)
def test_a_move_that_the_table_does_not_have_raises_and_changes_nothing(here):
    fleet, (worker,) = fleet_of(1)
    del fleet.places[STARTING][1]
    worker.state = here
    fleet.places[here][1] = worker
    for there in set(State) - MOVES[here]:
        with pytest.raises(IllegalMove, match=f"worker 1: {here.value} -> {there.value}"):
            fleet.move(worker, there)
        assert worker.state is here
        assert list(fleet.places[here]) == [1]


def test_every_place_has_a_way_to_the_end_and_none_has_a_way_back():
    assert all(STOPPING in MOVES[state] for state in State if state is not STOPPING)
    assert not MOVES[STOPPING]
    assert not any(STARTING in after for after in MOVES.values())


def test_a_worker_is_moved_to_the_end_of_its_place():
    fleet, workers = fleet_of(3)
    for worker in reversed(workers):
        brought(fleet, worker, OPENING, IDLE)
    assert list(fleet.idle) == [3, 2, 1]


def test_workers_that_stop_are_there_but_do_not_stay():
    fleet, (worker, _) = fleet_of(2)
    fleet.move(worker, STOPPING)
    assert (len(fleet), fleet.staying, fleet.incoming) == (2, 1, 1)
    fleet.remove(worker)
    assert (len(fleet), worker.id in fleet) == (1, False)


def test_workers_may_be_removed_while_all_are_looked_at():
    fleet, _ = fleet_of(3)
    for worker in fleet:
        fleet.remove(worker)
    assert len(fleet) == 0


def test_a_worker_tells_what_it_is():
    worker = Worker(7, overflow=True, restarts=0)
    assert repr(worker) == "<worker 7 starting>"
    worker.state, worker.lease = LEASED, 12
    assert repr(worker) == "<worker 7 busy lease 12>"
