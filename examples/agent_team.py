"""A team of agents that carries on when one of its tools dies.

memory      a pool of SQLite connections: what is to be done, and what came out
library     a worker actor that knows facts
calculator  a worker actor with a bug: its process dies in the middle of every third calculation
planner     an actor of our own, which takes goals and works them off with the help of the others

They are children of one supervisor in this order, under `rest_for_one`: when one ends, those that depend on it (they
come after it) are started anew with it, and those before it are not touched. So the planner has no line of code for a
tool that died in the middle of its work: it is started again, too, finds the unfinished goal in memory, and goes on.

Run it: python examples/agent_team.py
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thespian.actors import Actor

import actorpool
from actorpool import Call, Err, Ok, PoolConfig, WithConnection
from actorpool.supervisors import ChildSpec, Supervised, SupervisorSpec, WhereIs, WhichChildren, pool_child_spec
from actorpool.workers import SqliteWorker, Worker, method

# -- tools: plain classes, each hosted by an actor in a process of its own ------------------------------------------


class Library(Worker):
    """Knows how far places are apart."""

    KILOMETRES = {"Oslo": 1250, "Rome": 1290, "Lisbon": 1880, "Kyiv": 2030, "Dublin": 1100, "Athens": 2160, "Bern": 640}

    @method
    def distance(self, city: str) -> int:
        """From here to there."""
        return self.KILOMETRES[city]


class Calculator(Worker):
    """Calculates, and dies of its third calculation, as a bug in a C library would make it."""

    calculations = 0

    @method
    def hours(self, kilometres: int, speed: int) -> float:
        """How long that takes."""
        self.calculations += 1
        if self.calculations == 3:
            os._exit(1)
        return round(kilometres / speed, 1)


# -- memory: functions that run in a worker of the pool ------------------------------------------------------------


def add_goals(conn: sqlite3.Connection, cities: list[str]) -> None:
    conn.execute("CREATE TABLE IF NOT EXISTS goals (id INTEGER PRIMARY KEY, city TEXT, hours REAL)")
    conn.executemany("INSERT INTO goals (city) VALUES (?)", [[city] for city in cities])


def next_goal(conn: sqlite3.Connection) -> Any:
    return conn.execute("SELECT id, city FROM goals WHERE hours IS NULL ORDER BY id").fetchone()


def finish_goal(conn: sqlite3.Connection, id: int, hours: float) -> None:
    conn.execute("UPDATE goals SET hours = ? WHERE id = ?", [hours, id])


def all_goals(conn: sqlite3.Connection) -> list[tuple[str, float | None]]:
    return conn.execute("SELECT city, hours FROM goals ORDER BY id").fetchall()


# -- the planner ---------------------------------------------------------------------------------------------------


class Planner(Supervised, Actor):  # type: ignore[misc]
    """Works off one goal after another: memory, library, calculator, memory. A list of cities gives it new ones."""

    def init(self, speed: int) -> None:
        """Begin with what an earlier planner has left unfinished."""
        self.speed = speed
        self.busy = False
        self.waiting: dict[Any, Callable[[Any], None]] = {}
        self.in_memory(add_goals, [], then=lambda _: self.go_on())

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
        """New goals, or the answer to a question of ours; an error in it ends the planner, which is started again."""
        if isinstance(message, list):

            def stored(_: None) -> None:
                self.send(sender, "accepted")
                self.go_on()

            self.in_memory(add_goals, message, then=stored)
        elif isinstance(message, (Ok, Err)):
            self.waiting.pop(message.ref)(message.unwrap())

    def go_on(self) -> None:
        if not self.busy:
            self.busy = True
            self.in_memory(next_goal, then=self.work_on)

    def work_on(self, goal: tuple[int, str] | None) -> None:
        self.busy = goal is not None
        if goal is not None:
            id, city = goal
            self.with_tool("library", "distance", city, then=lambda kilometres: self.calculate(id, kilometres))

    def calculate(self, id: int, kilometres: int) -> None:
        self.with_tool("calculator", "hours", kilometres, self.speed, then=lambda hours: self.finish(id, hours))

    def finish(self, id: int, hours: float) -> None:
        self.busy = False
        self.in_memory(finish_goal, id, hours, then=lambda _: self.go_on())

    # -- asking the others ------------------------------------------------------------------------------------------

    def in_memory(self, function: Callable[..., Any], *args: Any, then: Callable[[Any], None]) -> None:
        self.ask("memory", WithConnection("memory", function, args), then)

    def with_tool(self, tool: str, verb: str, *args: Any, then: Callable[[Any], None]) -> None:
        self.ask(tool, Call(None, verb, args), then)

    def ask(self, child: str, request: Any, then: Callable[[Any], None]) -> None:
        """Ask the supervisor where a sibling is at the moment, and that sibling what we want to know."""

        def found(address: Any) -> None:
            self.waiting[request.ref] = then
            self.send(address, request)

        where = WhereIs(child)
        self.waiting[where.ref] = found
        self.send(self.parent, where)


def team(database: str) -> SupervisorSpec:
    """Who depends on whom is the order of the children."""
    memory = PoolConfig(worker=SqliteWorker, worker_args={"database": database}, size=1)
    return SupervisorSpec(
        strategy="rest_for_one",
        max_restarts=10,
        max_seconds=60,
        children=[
            pool_child_spec("memory", memory),
            ChildSpec("library", Library),
            ChildSpec("calculator", Calculator),
            ChildSpec("planner", Planner, args={"speed": 100}),
        ],
    )


def main() -> None:
    """Give the team seven goals; it reaches them over three deaths of its calculator."""
    with tempfile.TemporaryDirectory() as folder, actorpool.start(log_level="ERROR") as system:
        supervisor = system.supervise(team(str(Path(folder) / "memory.db")))

        def ask(address: Any, request: Any) -> Any:
            return system.actor_system.ask(address, request, 10).unwrap()

        memory, planner = (ask(supervisor, WhereIs(child)) for child in ("memory", "planner"))
        system.actor_system.ask(planner, list(Library.KILOMETRES), 10)
        while any(hours is None for _, hours in ask(memory, WithConnection("memory", all_goals))):
            time.sleep(0.02)
        for city, hours in ask(memory, WithConnection("memory", all_goals)):
            print(f"{city}: {hours} h")
        for child in reversed(ask(supervisor, WhichChildren())):
            print(f"{child.id}: {child.state}, restarted {child.restarts} time(s)")


if __name__ == "__main__":
    main()
