"""How a line of a node's log is written: as text, as a JSON object, or as the journal of systemd wants it.

No secret is in any of them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from typing import IO

from actorpool._scrubbing import scrub

_TEXT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_POOL = re.compile(r"\bpool:? ([A-Za-z][A-Za-z0-9_.-]*)")
_WORKER = re.compile(r"\bworker (\d+)\b")
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def formatter(kind: str, node: str) -> logging.Formatter:
    """What formats the lines of a node.

    Args:
        kind: one of `LOG_FORMATS`.
        node: the node's name, which every JSON object has.
    """
    return _JsonLines(node) if kind == "json" else _TextLines(_TEXT)


def for_stream(stream: IO[str], kind: str, node: str) -> logging.Formatter:
    """The same for a stream; if it is the journal's, that adds the time, and takes a priority in front of each line."""
    lines = formatter(kind, node)
    return _JournalLines(lines if kind == "json" else _TextLines("%(message)s")) if _is_journal(stream) else lines


def _is_journal(stream: IO[str]) -> bool:
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _TextLines(logging.Formatter):
    """As the standard library's, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))


class _JsonLines(logging.Formatter):
    """One object a line; `pool` and `worker` are those that our own messages name, else null."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        ours = record.name.partition(".")[0] == "actorpool"
        pool, worker = (found.search(message) if ours else None for found in (_POOL, _WORKER))
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "node": self._node,
            "pool": pool[1] if pool else None,
            "worker": int(worker[1]) if worker else None,
            "pid": record.process,
            "logger": record.name,
            "message": scrub(message),
        }
        if record.exc_info:
            line["traceback"] = scrub(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


class _JournalLines(logging.Formatter):
    """The level of each entry in front of each of its lines."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        priority = next(priority for level, priority in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in self._inner.format(record).split("\n"))
