"""Attributes of a DB-API connection that drivers keep for themselves, where the server knows nothing of them."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("actorpool")

_NAMES = (
    # psycopg, psycopg2
    "row_factory", "cursor_factory", "server_cursor_factory", "prepare_threshold", "prepared_max", "isolation_level",
    "read_only", "readonly", "deferrable",
    # sqlite3
    "text_factory",
    # PyMySQL, mysql.connector, mysqlclient
    "cursorclass", "decoders", "encoders", "max_allowed_packet", "raise_on_warnings", "get_warnings", "converter",
    "messages",
    # pyodbc
    "timeout", "searchescape", "maxwrite",
    # oracledb
    "inputtypehandler", "outputtypehandler", "call_timeout", "stmtcachesize",
)  # fmt: skip
_MISSING = object()


class DriverSettings:
    """What those attributes are now; dicts and lists are copied, since user code may change them in place.

    `autocommit` is not among them: it follows the transactions.
    """

    def __init__(self, conn: Any) -> None:
        found = ((name, _value(conn, name)) for name in _NAMES)
        self._values = {name: _copy(value) for name, value in found if value is not _MISSING and not _is_method(value)}

    def put_back(self, conn: Any) -> None:
        """Set what was changed to what it was."""
        for name, value in self._values.items():
            if _value(conn, name) != value:
                try:
                    setattr(conn, name, _copy(value))
                except Exception as error:  # a driver that shows it and takes it in another form, or not at all
                    log.warning("%s of %s cannot be put back: %s", name, type(conn).__name__, error)


def _value(conn: Any, name: str) -> Any:
    try:
        return getattr(conn, name, _MISSING)
    except Exception:  # a property that has to ask, or is not there in this version
        return _MISSING


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, list)) else value


def _is_method(value: Any) -> bool:
    return callable(value) and hasattr(value, "__self__")
