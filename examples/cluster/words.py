"""Counts words of text files on all hosts of a Ray cluster; a directory that all of them see is given as argument.

Before: `ray start --head --port=6379` on the first host, `ray start --address=FIRST:6379` on every other one.
Then, on any of them: `python words.py DIRECTORY`.
"""

from __future__ import annotations

import collections
import pathlib
import sys

from actorpool.cluster import Cluster
from actorpool.workers import Worker, method


class Counter(Worker):
    """Counts words; a worker for each processor, say, with what it needs loaded once."""

    @method
    def count(self, path: str) -> dict[str, int]:
        """How often each word occurs in a file."""
        text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
        return dict(collections.Counter(text.split()))


def count(counter: Counter, path: str) -> dict[str, int]:
    """Runs in a worker, on whatever host."""
    return counter.count(path)


def main(directory: str) -> None:
    """Count the words of every .txt file below a directory."""
    files = sorted(map(str, pathlib.Path(directory).resolve().rglob("*.txt")))
    total: collections.Counter[str] = collections.Counter()
    with Cluster("words") as cluster:
        counters = cluster.start_pool("counters", worker=Counter, size=2 * len(cluster.hosts()), max_overflow=0)
        for words in counters.map(count, files):
            total.update(words)
        done = {host: status.checkouts for host, status in counters.status().hosts.items() if status}
    print(f"{len(files)} files, {sum(total.values())} words; calls by host: {done}")
    for word, number in total.most_common(10):
        print(f"{number:8} {word}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
