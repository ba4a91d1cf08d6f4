"""Places of workers: each is in exactly one, and moves only as the table says."""

from __future__ import annotations

import pytest

from actorpool.core.workers import MOVES, IllegalMove, State, Worker, Workers

IDLE, LEASED, OPENING, STARTING, STOPPING = State.IDLE, State.LEASED, State.OPENING, State.STARTING, State.STOPPING


def hired(count):
    workers = Workers()
    return workers, [workers.hire(0.0, overflow=False, restarts=0) for _ in range(count)]


def brought(workers, worker, *states):
    for state in states:
        workers.move(worker, state)


def test_a_worker_is_in_exactly_one_place():
    workers, (worker, _) = hired(2)
    brought(workers, worker, OPENING, IDLE, LEASED)
    assert [state for state, place in workers.by_state.items() if worker.id in place] == [LEASED]
    assert worker.state is LEASED
    assert (len(workers), workers.count(STARTING, LEASED), workers.count(IDLE)) == (2, 2, 0)


@pytest.mark.parametrize("here", list(State), ids=lambda state: state.value)
def test_a_move_that_the_table_does_not_have_raises_and_changes_nothing(here):
    workers, (worker,) = hired(1)
    del workers.by_state[STARTING][1]
    worker.state = here
    workers.by_state[here][1] = worker
    for there in set(State) - MOVES[here]:
        with pytest.raises(IllegalMove, match=f"worker 1: {here.value} -> {there.value}"):
            workers.move(worker, there)
        assert worker.state is here
        assert list(workers.by_state[here]) == [1]


def test_every_place_has_a_way_to_the_end_and_none_has_a_way_back():
    assert all(STOPPING in MOVES[state] for state in State if state is not STOPPING)
    assert not MOVES[STOPPING]
    assert not any(STARTING in after for after in MOVES.values())


def test_a_worker_is_moved_to_the_end_of_its_place():
    workers, three = hired(3)
    for worker in reversed(three):
        brought(workers, worker, OPENING, IDLE)
    assert list(workers.idle) == [3, 2, 1]


def test_workers_that_stop_are_there_but_do_not_stay():
    workers, (worker, _) = hired(2)
    workers.move(worker, STOPPING)
    assert (len(workers), workers.staying, workers.incoming) == (2, 1, 1)
    workers.remove(worker)
    assert (len(workers), worker.id in workers) == (1, False)


def test_workers_may_be_removed_while_all_are_looked_at():
    workers, _ = hired(3)
    for worker in workers:
        workers.remove(worker)
    assert len(workers) == 0


def test_a_worker_tells_what_it_is():
    worker = Worker(7, overflow=True, restarts=0, now=0.0)
    assert repr(worker) == "<worker 7 starting>"
    worker.state, worker.lease = LEASED, 12
    assert repr(worker) == "<worker 7 busy lease 12>"
