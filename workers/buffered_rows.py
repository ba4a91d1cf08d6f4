"""Results that are read bit by bit, by drivers with connections that can do nothing else meanwhile.

MySQL's protocol sends a result as it is read. PyMySQL drops what is left of it when the connection is used for
anything else, with no more than a warning; so the rest is read into memory first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

_UNBUFFERED = "SSCursor"
"""The class of such cursors, in PyMySQL and in mysqlclient."""


class ReadToItsEnd:
    """What was left of a result when its connection was needed; read like a cursor."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows
        self._next = 0

    def fetchmany(self, size: int) -> Sequence[Any]:
        """The next rows; fewer than `size` are the last ones."""
        self._next += size
        return self._rows[self._next - size : self._next]

    def close(self) -> None:
        """Nothing: the connection has no part in it any more."""


def holds_connection(cursor: Any) -> bool:
    """Whether nothing else can be done on the connection before this cursor, or result of SQLAlchemy, is read."""
    of_driver = getattr(cursor, "cursor", cursor)
    return any(cls.__name__ == _UNBUFFERED for cls in type(of_driver).__mro__)


def unbuffered_cursor(conn: Any) -> Any:
    """A cursor of the driver that does not fetch a whole result at once, where it has a class for that."""
    package = type(conn).__module__.partition(".")[0]
    kind = getattr(sys.modules.get(f"{package}.cursors"), _UNBUFFERED, None)
    return conn.cursor() if kind is None else conn.cursor(kind)
