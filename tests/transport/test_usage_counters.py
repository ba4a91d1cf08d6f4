"""The memory in which workers count their uses: what one process writes, the other reads."""

from __future__ import annotations

import os

from actorpool.transport import usage_counters


def test_a_use_is_begun_and_then_ended():
    pages = usage_counters.UsagePages()
    slot = usage_counters.UsageCounters(pages, 3)
    slot.begin(10.0)
    assert slot.read() == (1, 0, 10.0, 0.0)
    slot.end(10.5)
    assert slot.read() == (1, 1, 10.0, 10.5)
    assert slot.holds(5) == [0.5]


def test_a_use_is_counted_before_it_is_answered_and_measured_once_after():
    slot = usage_counters.UsageCounters(usage_counters.UsagePages(), 0)
    slot.begin(10.0)
    slot.end(10.5)
    assert (slot.uses.count, sum(slot.spent())) == (1, 0.0)
    for _ in range(2):
        slot.measure()
        assert slot.spent()[0] == 0.5
        assert sum(slot.spent()[1:]) == 1


def test_the_name_of_what_runs_follows_what_is_called():
    slot = usage_counters.UsageCounters(usage_counters.UsagePages(), 0)
    for target, name in (
        (len, "len"),
        ("echo", "echo"),
        ("echo", "echo"),
        (test_slots_are_apart, "test_slots_are_apart"),
    ):
        slot.runs(target)
        assert slot.running() == name
        slot.rests()
        assert slot.running() is None


def test_slots_are_apart():
    pages = usage_counters.UsagePages()
    first, second = usage_counters.UsageCounters(pages, 0), usage_counters.UsageCounters(pages, 1)
    first.begin(1.0)
    assert second.read() == (0, 0, 0.0, 0.0)


def test_the_last_hold_times_are_remembered():
    slot = usage_counters.UsageCounters(usage_counters.UsagePages(), 0)
    for number in range(100):
        slot.begin(0.0)
        slot.end(float(number))
    assert slot.holds(3) == [97.0, 98.0, 99.0]
    assert slot.holds(1000) == [float(number) for number in range(100 - usage_counters.HOLDS, 100)]


def test_another_process_reads_what_a_worker_wrote_also_after_its_death():
    pages = usage_counters.found()
    number = pages.take(7)
    pid = os.fork()
    if pid == 0:
        slot = usage_counters.inherited(number)
        slot.begin(1.0)
        slot.end(2.0)
        os._exit(0)
    os.waitpid(pid, 0)
    pages.counts(7)
    assert pages.slot(7).read() == (1, 1, 1.0, 2.0)


def test_only_a_child_of_the_pool_finds_its_slot():
    usage_counters.found()
    assert usage_counters.inherited(0) is None
    assert usage_counters.inherited(None) is None


def test_a_worker_that_does_not_count_has_no_slot():
    pages = usage_counters.UsagePages()
    pages.take(7)
    assert pages.slot(7) is None
    assert pages.slot(8) is None


def test_a_slot_is_used_again_and_begins_at_nothing():
    pages = usage_counters.UsagePages()
    numbers = [pages.take(worker) for worker in range(usage_counters.SLOTS)]
    assert len(set(numbers)) == usage_counters.SLOTS
    assert pages.take(5000) is None
    pages.counts(3)
    slot = pages.slot(3)
    assert slot is not None
    slot.begin(1.0)
    pages.give(3)
    assert pages.take(5000) == numbers[3]
    pages.counts(5000)
    assert pages.slot(5000).read() == (0, 0, 0.0, 0.0)


def counting(pages: usage_counters.UsagePages, worker: int) -> usage_counters.UsageCounters:
    """The counters as the worker has them: other objects than those of the pool."""
    return usage_counters.UsageCounters(pages, pages.take(worker))


def other(worker: usage_counters.UsageCounters, seconds: float) -> None:
    """A call of no sticky lease."""
    worker.end_other(seconds)
    worker.measure()


def test_a_look_counts_uses_and_other_calls_of_all_workers_also_of_those_that_are_gone():
    pages = usage_counters.UsagePages()
    first, second = counting(pages, 1), counting(pages, 2)
    first.begin(0.0)
    first.end(0.25)
    first.measure()
    other(first, 0.5)
    other(second, 0.125)
    pages.give(1)
    assert pages.look() == (3, [0.25, 0.5, 0.125], 0.5, 0.25)
    assert pages.look() == (3, [], 0.0, 0.0)
    pages.give(2)
    assert pages.look() == (3, [], 0.0, 0.0)


def test_the_slowest_of_an_interval_is_told_however_many_came_after_it():
    pages = usage_counters.UsagePages()
    worker = counting(pages, 1)
    other(worker, 9.0)
    for _ in range(5 * usage_counters.HOLDS):
        other(worker, 1.0)
    assert pages.look().slowest_call == 9.0
    other(worker, 2.0)
    assert pages.look().slowest_call == 2.0
    pages.look()
    other(worker, 0.5)  # into the place of the interval before the last
    assert pages.look().slowest_call == 0.5


def test_a_slowest_that_is_written_down_while_the_pool_looks_is_told_the_next_time():
    pages = usage_counters.UsagePages()
    worker = counting(pages, 1)
    other(worker, 1.0)
    before = pages.interval[0]
    assert pages.look().slowest_call == 1.0
    now, pages.interval[0] = pages.interval[0], before  # the worker has read the number just before the pool's look
    other(worker, 3.0)
    pages.interval[0] = now
    assert pages.look().slowest_call == 3.0
    assert pages.look().slowest_call == 0.0


def test_what_a_worker_spent_is_told_in_buckets():
    worker = counting(usage_counters.UsagePages(), 1)
    worker.begin(0.0)
    worker.end(0.002)
    worker.measure()
    worker.begin(1.0)
    worker.end(21.0)
    worker.measure()
    seconds, *buckets = worker.spent()
    assert seconds == 20.002
    assert [number for number, count in enumerate(buckets) if count] == [4, len(buckets) - 1]
