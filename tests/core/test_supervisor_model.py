"""The supervision machine against thousands of interleavings: whatever happens, in any order, its promises hold."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorpool.core.machine import Backoff
from actorpool.core.supervisor import events
from actorpool.core.supervisor.children import End, State
from actorpool.messages import (
    CountChildren,
    DeleteChild,
    GetChildSpec,
    RestartChild,
    StartChild,
    TerminateChild,
    WhereIs,
    WhichChildren,
)
from tests.core.supervisor_world import DIE, HANG, IGNORE, World, child, tree

IDS = list("abcde")
RESTARTS = st.sampled_from(["permanent", "transient", "temporary"])
REASONS = st.sampled_from(["normal", "shutdown", ("shutdown", 1), "boom", None])
SHUTDOWNS = st.sampled_from([1.0, 3.0, "brutal_kill", "infinity"])
OUTCOMES = st.sampled_from([None, None, None, HANG, HANG, IGNORE, DIE, "no disk"])
TOGETHER = ("one_for_all", "rest_for_one")


class Supervisors(RuleBasedStateMachine):
    """One supervisor in a world where inits hang, fail and die, and children end, hang, and disobey at any time."""

    @initialize(
        strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one"]),
        restarts=st.lists(st.tuples(RESTARTS, SHUTDOWNS), min_size=1, max_size=3),
        intensity=st.sampled_from([0, 3, 1000]),
        backoff=st.sampled_from([None, None, Backoff(1, 4)]),
        per_child=st.booleans(),
        first=st.lists(OUTCOMES, max_size=3),
    )
    def begin(self, strategy, restarts, intensity, backoff, per_child, first):
        self.dynamic = strategy == "simple_one_for_one"
        children = [child(id, word, shutdown=time) for id, (word, time) in zip(IDS, restarts, strict=False)]
        spec = tree(
            *(children[:1] if self.dynamic else children), strategy=strategy, max_restarts=intensity, backoff=backoff
        )
        self.world = World(spec, boot=False, per_child=per_child and strategy == "one_for_one")
        self.reads = 0
        for id, outcome in zip(IDS, first, strict=False):
            self.world.inits[id].append(outcome)
        self.world.tell(events.Boot())

    def some(self, number, among):
        among = sorted(among)
        return among[number % len(among)] if among else None

    def children(self):
        return list(self.world.machine.children.values())

    def in_state(self, *states):
        return [item.token for item in self.children() if item.state in states]

    # -- what can happen --------------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 9), reason=REASONS)
    def a_child_ends(self, number, reason):
        token = self.some(number, set(self.in_state(State.RUNNING)) - self.world.leaving)
        if token is not None:
            self.end(token, reason)

    def end(self, token, reason):
        if reason is not None:
            self.world.leaving.add(token)
            self.world.tell(events.Leaving(token, End(reason)))
        else:
            self.vanish(token)

    def vanish(self, token):
        del self.world.alive[token]
        self.world.tell(events.Exited(token))

    @rule(number=st.integers(0, 9))
    def a_process_dies(self, number):
        token = self.some(number, self.world.alive)
        if token is not None:
            self.vanish(token)

    @rule(token=st.integers(0, 60))
    def a_death_is_told_again(self, token):
        if token not in self.world.alive:
            self.world.tell(events.Exited(token))

    @rule(number=st.integers(0, 9), outcome=st.sampled_from(["up", "no disk", IGNORE]))
    def an_init_ends(self, number, outcome):
        token = self.some(number, self.in_state(State.STARTING))
        if token is None:
            return
        if outcome == "up":
            self.world.tell(events.Began(token, f"@{token}", token))
        else:
            self.world.leaving.add(token)
            self.world.tell(events.Ignored(token) if outcome == IGNORE else events.Refused(token, End(outcome)))

    @rule(id=st.sampled_from(IDS), outcomes=st.lists(OUTCOMES, max_size=3))
    def coming_inits(self, id, outcomes):
        self.world.inits[id].extend(outcomes)

    @rule(id=st.sampled_from(IDS), obeys=st.booleans())
    def a_child_becomes_stubborn_or_obedient(self, id, obeys):
        (self.world.stubborn.discard if obeys else self.world.stubborn.add)(id)

    @rule(seconds=st.sampled_from([0.5, 1, 2, 7]))
    def time_passes(self, seconds):
        self.world.advance(seconds)

    @rule(id=st.sampled_from(IDS), restart=RESTARTS, shutdown=SHUTDOWNS)
    def somebody_starts_a_child(self, id, restart, shutdown):
        self.world.ask(StartChild({"n": 1} if self.dynamic else child(id, restart, shutdown=shutdown)))

    @rule(
        kind=st.sampled_from([TerminateChild, RestartChild, DeleteChild, WhereIs, GetChildSpec]),
        id=st.sampled_from(IDS),
        number=st.integers(0, 60),
    )
    def somebody_asks_about_a_child(self, kind, id, number):
        self.world.ask(kind(f"@{number}" if self.dynamic else id))

    @rule(kind=st.sampled_from([WhichChildren, CountChildren]))
    def somebody_looks(self, kind):
        ref = self.world.ask(kind())
        if self.world.ready:
            assert ref in self.world.answers, "who only looks never waits"

    @precondition(lambda self: self.world.exit is None)
    @rule()
    def everything_comes_to_rest(self):
        """Once nobody hangs or disobeys any more, every request is answered and every child is where it belongs."""
        self.settle()
        world = self.world
        assert all(world.answered[ref] == 1 for ref in range(1, world._refs + 1))
        if world.exit is None:
            assert not self.in_state(State.STARTING, State.STOPPING, State.LEAVING, State.DEAD, State.RESTARTING)

    def settle(self):
        world = self.world
        world.stubborn.clear()
        world.inits.clear()
        for _ in range(200):
            for token in list(world.alive):
                if token in world.alive and self.unsettled(token):
                    self.finish(token)
            world.advance(10)
            if not any(map(self.unsettled, world.alive)) and not world.timers:
                return

    def unsettled(self, token):
        item = next((item for item in self.children() if item.token == token), None)
        return item is None or item.state is not State.RUNNING or token in self.world.leaving

    def finish(self, token):
        if token in self.in_state(State.STARTING):
            self.world.tell(events.Began(token, f"@{token}", token))
        else:
            self.vanish(token)

    # -- what is always true ----------------------------------------------------------------------------------------

    @invariant()
    def no_child_has_two_processes(self):
        if not hasattr(self, "world"):
            return
        tokens = [item.token for item in self.children() if item.alive]
        assert len(tokens) == len(set(tokens))
        assert set(self.world.alive) == set(tokens), "the machine knows every process, and of no other"

    @invariant()
    def nobody_is_answered_twice(self):
        if hasattr(self, "world"):
            assert all(count == 1 for count in self.world.answered.values())

    @invariant()
    def children_that_share_their_fate_change_one_at_a_time(self):
        if hasattr(self, "world") and self.world.machine.spec.strategy in TOGETHER:
            assert len(self.in_state(State.STARTING, State.STOPPING, State.LEAVING)) <= 1

    @invariant()
    def counts_agree_with_the_processes(self):
        if hasattr(self, "world") and self.world.ready and self.world.exit is None and not self.world.machine.ending:
            counts = self.world.reply(CountChildren())
            assert counts.active == len(self.in_state(State.RUNNING, State.STOPPING))
            assert counts.supervisors + counts.workers == len(self.children())

    @invariant()
    def nothing_is_left_behind_by_a_supervisor_that_ended(self):
        if hasattr(self, "world") and self.world.exit is not None:
            assert not self.world.alive

    def teardown(self):
        if hasattr(self, "world") and self.world.exit is None:
            self.everything_comes_to_rest()


Supervisors.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestSupervisors = Supervisors.TestCase
