"""One caller of the demo: `python -m actorpool.cli.demo.caller`, a process that may be killed at any moment.

It gets its pool and its assignment as a pickle on standard input, calls until its time is over, and keeps books.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actorpool import errors, process
from actorpool.cli.demo import bank
from actorpool.cli.demo.books import DONE, DOUBTFUL, MISREAD, READ, REFUSED, TRIED, UNEXPECTED

NOT_RUN = (
    errors.CheckoutTimeout,
    errors.PoolFull,
    errors.TooManyWaiting,
    errors.QueueShed,
    errors.CircuitOpen,
    errors.WorkerUnavailable,
    errors.PoolDown,
)
MAYBE_RUN = (errors.WorkerDied, errors.CallTimeout, errors.LeaseExpired)


@dataclass(frozen=True)
class Assignment:
    """What a caller is to do. `until` is monotonic time in seconds, which all processes of a host share."""

    caller: int
    parent: int
    book: str
    accounts: int
    until: float
    seed: int


class Caller:
    """Calls a pool in a random mixture and writes down what it tried and what came back."""

    MIXTURE = (("slip", 40), ("transfer", 25), ("slow_transfer", 3), ("balance", 20), ("total", 2), ("busy", 10))

    def __init__(self, assignment: Assignment, pool: Any) -> None:
        self.assignment = assignment
        self.pool = pool
        self.chance = random.Random(assignment.seed)
        self.book = os.open(assignment.book, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.number = 0

    def run(self) -> None:
        """Call until the time is over."""
        operations = [getattr(self, name) for name, _ in self.MIXTURE]
        weights = [weight for _, weight in self.MIXTURE]
        while time.monotonic() < self.assignment.until:
            self.number += 1
            operation = self.chance.choices(operations, weights)[0]
            try:
                operation()
            except Exception as error:  # every error that is not part of the bargain breaks a promise
                self.note(UNEXPECTED, f"caller {self.assignment.caller}: {type(error).__name__}: {error}")

    def note(self, word: str, rest: object) -> None:
        """One line, written at once: it is in the file when this process is killed."""
        os.write(self.book, f"{word} {' '.join(str(rest).split())}\n".encode())

    # -- writes -------------------------------------------------------------------------------------------

    def slip(self) -> None:
        self.write(lambda: self.pool.run(bank.deposit_slip, self.assignment.caller, self.number))

    def transfer(self) -> None:
        order = self.order()
        self.write(lambda: self.pool.run(bank.transfer, *order))

    def slow_transfer(self) -> None:
        """A transfer statement by statement in one lease: whoever is killed meanwhile leaves an open transaction."""
        order = self.order()

        def act() -> None:
            with self.pool.checkout() as connection:
                connection.execute("begin immediate")
                for statement, values in bank.transfer_statements(*order):
                    connection.execute(statement, values)
                    time.sleep(0.002)
                connection.execute("commit")

        self.write(act)

    def order(self) -> tuple[int, int, int, int, int]:
        source, target = self.chance.sample(range(self.assignment.accounts), 2)
        return self.assignment.caller, self.number, source, target, self.chance.randint(1, 9)

    def write(self, act: Callable[[], object]) -> None:
        self.note(TRIED, self.number)
        if self.attempt(act):
            self.note(DONE, self.number)

    def attempt(self, act: Callable[[], object]) -> bool:
        try:
            act()
        except MAYBE_RUN as error:
            self.note(DOUBTFUL, f"{self.number} {type(error).__name__}")
            return False
        except NOT_RUN as error:
            self.note(REFUSED, f"{self.number} {type(error).__name__}: {error}")
            return False
        return True

    # -- reads --------------------------------------------------------------------------------------------

    def balance(self) -> None:
        account = self.chance.randrange(self.assignment.accounts)
        self.read(lambda: self.pool.run(bank.balance, account))

    def busy(self) -> None:
        self.read(lambda: self.pool.run(bank.busy_work, self.assignment.accounts, self.number))

    def total(self) -> None:
        def check() -> None:
            money, expected = self.pool.run(bank.total), bank.OPENING * self.assignment.accounts
            if money != expected:
                self.note(MISREAD, f"total {money} instead of {expected}")

        self.read(check)

    def read(self, act: Callable[[], object]) -> None:
        if self.attempt(act):
            self.note(READ, self.number)


def main() -> None:
    """The process of one caller."""
    assignment, pool = pickle.load(sys.stdin.buffer)
    process.link_to_parent(assignment.parent)
    Caller(assignment, pool).run()


if __name__ == "__main__":
    main()
