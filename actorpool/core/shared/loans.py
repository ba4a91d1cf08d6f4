"""Loans: a caller that is alone with a connection sends its calls straight to the worker, until another one comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from actorpool.core.effects import Recall
from actorpool.core.shared.connections import Connections
from actorpool.core.shared.records import LIVE, Call, Connection, Gather, Loan

ALONE = 4
"""Calls in a row of one caller after which it is taken to be alone; calling back costs about as much as two save."""
TELLING = 0.05
"""Seconds a worker has to tell what was done in a loan; after that the asker is told what is known."""


class Loans:
    """Lends connections and gets them back.

    Args:
        connections: all of them.
        new_number: gives the next number; loans and calls have theirs in one sequence.
        do: takes effects.
    """

    def __init__(self, connections: Connections, new_number: Callable[[], int], do: Callable[[Any], None]) -> None:
        self.connections = connections
        self.observed = False  # every call is to be told: none may go past the pool
        self._new_number = new_number
        self._do = do

    def lend(self, connection: Connection, call: Call, now: float) -> Loan | None:
        """The loan that the caller of a call gets, which has just ended well; None if it was not alone, or may not."""
        alone = call.caller == connection.last_caller
        connection.in_row = connection.in_row + 1 if alone else 1
        connection.last_caller = call.caller
        if connection.in_row < ALONE or not call.direct or call.answered:
            return None
        free = connection.state is LIVE and connection.running is None and connection.free_at <= now
        if not free or connection.ttl is not None or self.observed:
            return None
        loan = connection.running = Loan(self._new_number(), call.caller)
        return loan

    def out(self) -> Iterator[tuple[Connection, Loan]]:
        """The connections that are lent."""
        for connection in list(self.connections.by_id.values()):
            if isinstance(connection.running, Loan):
                yield connection, connection.running

    def recall(self, connection: Connection) -> None:
        """If it is lent, have it back as soon as the call that may be running is over."""
        loan = connection.running
        if isinstance(loan, Loan) and not loan.recalled:
            assert connection.worker is not None
            loan.recalled = True
            self._do(Recall(connection.worker.id, loan.number))

    def ask(self, connection: Connection, loan: Loan, gather: Gather) -> None:
        """Have it back, and then contribute what is known of it to an answer."""
        self.recall(connection)
        loan.asking.append(gather)

    def tell(self, connection: Connection, loan: Loan, now: float) -> None:
        """The loan is back, or its askers have waited for long enough: tell them what is known."""
        asking, loan.asking = loan.asking, []
        for gather in asking:
            gather.put(connection.id, self.connections.info(connection, now), self._do)
