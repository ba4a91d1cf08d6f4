"""Why a database refuses a connection for good, read from the words of its error. Pure.

Drivers give a failed connection no code that could be relied on (libpq: none at all), so the text is read. A server
that speaks another language is not understood, and simply tried again.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class LoginError(NamedTuple):
    """What a person can do about it.

    Attributes:
        advice: in the imperative.
        login: it is about user and password, which may have changed meanwhile.
    """

    advice: str
    login: bool


_USER = LoginError("check user and password", True)
_NO_DATABASE = LoginError("create the database, or correct its name", False)
_GRANT = LoginError("grant the user access to the database", False)

# PostgreSQL, MariaDB and MySQL, SQL Server, Oracle, SQLite; the first that fits.
_REFUSALS = tuple(
    (re.compile(pattern, re.IGNORECASE), refusal)
    for pattern, refusal in (
        (r"access denied for user .* to database|permission denied for database", _GRANT),
        (r"authentication failed|no password supplied|access denied for user|login failed|ORA-01017", _USER),
        (r'role ".*" does not exist', LoginError("create the role, or correct the user", True)),
        (r"is not permitted to log in", LoginError("give the role LOGIN, or use another one", True)),
        (r'database ".*" does not exist|unknown database|cannot open database', _NO_DATABASE),
        (r"no pg_hba.conf entry", LoginError("allow this host, user and database in the server's pg_hba.conf", False)),
        (r"server does not support SSL", LoginError("lower sslmode, or give the server a certificate", False)),
        (r"file is not a database", LoginError("give another path, or a database's file", False)),
    )
)


def login_error(told: str) -> LoginError | None:
    """What to do about an error of connecting; None: it may pass, so trying again makes sense."""
    return next((refusal for pattern, refusal in _REFUSALS if pattern.search(told)), None)


def without_quoted(told: str) -> str:
    """An error's text without what it quotes, single characters apart: what cannot be read may hold a password."""
    return re.sub(r'("[^"]?")|".*', lambda quoted: quoted[1] or '"***"', told.strip(), flags=re.DOTALL)
