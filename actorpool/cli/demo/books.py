"""What the callers wrote down, and whether it agrees with what the bank holds. Pure: given facts, no process or clock.

A caller writes one line before each write (`tried`) and one after it, straight into its file, so that a SIGKILL at
any moment leaves true books: what was acknowledged must be there once, what was refused must not be there, and what
was in flight may or may not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from actorpool.cli.demo.bank import OPENING, Contents

TRIED, DONE, DOUBTFUL, REFUSED = "tried", "done", "doubtful", "refused"
READ, MISREAD, UNEXPECTED = "read", "misread", "unexpected"

Call = tuple[int, int]  # caller, number


@dataclass
class Books:
    """The lines of all callers, sorted."""

    tried: set[Call] = field(default_factory=set)
    done: set[Call] = field(default_factory=set)
    refused: set[Call] = field(default_factory=set)
    doubtful: int = 0
    reads: int = 0
    misread: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """Calls that were answered."""
        return len(self.done) + self.reads

    @property
    def in_flight(self) -> set[Call]:
        """Writes whose fate the caller never learned."""
        return self.tried - self.done - self.refused

    def add(self, caller: int, lines: Iterable[str]) -> None:
        """Take in one caller's file. A last line without its end was cut off by SIGKILL and was never written."""
        for line in lines:
            if not line.endswith("\n"):
                continue
            word, _, rest = line.rstrip("\n").partition(" ")
            if word in (TRIED, DONE, REFUSED):
                getattr(self, word).add((caller, int(rest.partition(" ")[0])))
            elif word == DOUBTFUL:
                self.doubtful += 1
            elif word == READ:
                self.reads += 1
            elif word == MISREAD:
                self.misread.append(rest)
            else:
                self.unexpected.append(rest)


@dataclass(frozen=True)
class Faults:
    """What was done to the pool, and what it showed afterwards.

    Attributes:
        recoveries: seconds until the pool was at its size again, for each worker killed.
        releases: seconds until the lease was back, for each caller killed.
        leases_out, waiting: as the pool said once the load was over.
        workers, size: workers alive then, and wanted.
        processes_left: pids alive after the system was shut down.
    """

    workers_killed: int
    callers_killed: int
    recoveries: list[float]
    releases: list[float]
    leases_out: int
    waiting: int
    workers: int
    size: int
    processes_left: list[int]


@dataclass(frozen=True)
class Promise:
    """One promise, whether it was kept, and the figures behind that."""

    text: str
    kept: bool
    figures: str


RECOVERY_LIMIT = 2.0  # seconds; far above what is expected, for machines that are busy with something else


def promises(books: Books, bank: Contents, faults: Faults) -> list[Promise]:
    """Everything that was promised, checked."""
    return [*_nothing_lost(books, bank), _money_is_right(bank), *_calls(books, faults), *_pool(faults)]


def _nothing_lost(books: Books, bank: Contents) -> list[Promise]:
    there = Counter((caller, number) for caller, number, *_ in bank.receipts)
    lost = books.done - there.keys()
    twice = [call for call, times in there.items() if times > 1]
    unasked = there.keys() - books.tried
    undead = books.refused & there.keys()
    in_flight = books.in_flight
    survived = len(in_flight & there.keys())
    return [
        Promise("every acknowledged write is there", not lost, f"{len(books.done) - len(lost)} of {len(books.done)}"),
        Promise("no write ran twice", not twice, f"{len(twice)} of {len(there)}"),
        Promise(
            "nothing is there that was refused or never asked for",
            not unasked and not undead,
            f"{len(unasked) + len(undead)}; of {len(in_flight)} writes in flight at a kill {survived} took effect",
        ),
    ]


def _money_is_right(bank: Contents) -> Promise:
    expected = [OPENING] * len(bank.balances)
    for _, _, source, target, amount in bank.receipts:
        if source is not None and target is not None:
            expected[source] -= amount
            expected[target] += amount
    wrong = sum(have != want for have, want in zip(bank.balances, expected, strict=True))
    money = sum(bank.balances)
    right = not wrong and money == OPENING * len(expected) and bank.integrity == "ok"
    return Promise(
        "every account holds what its receipts say",
        right,
        f"{len(expected) - wrong} of {len(expected)} accounts, total {money}, file {bank.integrity}",
    )


def _calls(books: Books, faults: Faults) -> list[Promise]:
    failed = books.doubtful + len(books.refused)
    return [
        Promise("every read saw a consistent bank", not books.misread, f"{len(books.misread)} wrong of {books.reads}"),
        Promise(
            "a killed worker costs at most the one call that ran on it",
            failed <= faults.workers_killed,
            f"{failed} call(s) failed, {faults.workers_killed} worker(s) killed",
        ),
        Promise(
            "no other error reached a caller",
            not books.unexpected,
            f"{len(books.unexpected)}" + "".join(f"; {text}" for text in books.unexpected[:3]),
        ),
    ]


def _pool(faults: Faults) -> list[Promise]:
    slowest = max([*faults.recoveries, *faults.releases], default=0.0)
    return [
        Promise(
            "every killed worker was replaced",
            faults.workers >= faults.size and len(faults.recoveries) == faults.workers_killed,
            f"{faults.workers} alive, {faults.size} wanted",
        ),
        Promise(
            "every lease came back",
            not faults.leases_out and not faults.waiting and len(faults.releases) == faults.callers_killed,
            f"{faults.leases_out} out, {faults.waiting} waiting",
        ),
        Promise(
            f"recovery took less than {RECOVERY_LIMIT:.0f} s each time",
            slowest < RECOVERY_LIMIT,
            f"slowest {slowest * 1e3:.1f} ms",
        ),
        Promise("no process is left", not faults.processes_left, f"{len(faults.processes_left)}"),
    ]
