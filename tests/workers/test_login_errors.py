"""Errors of connecting, in the words of the servers: which are for good, and what to do about them."""

from __future__ import annotations

import pytest

from actorpool.workers.login_errors import login_error


@pytest.mark.parametrize(
    ("told", "advice", "login"),
    [
        ('FATAL:  password authentication failed for user "me"', "check user and password", True),
        ("fe_sendauth: no password supplied", "check user and password", True),
        ('FATAL:  role "me" does not exist', "create the role", True),
        ('FATAL:  role "me" is not permitted to log in', "LOGIN", True),
        ('FATAL:  database "x" does not exist', "create the database", False),
        ('FATAL:  permission denied for database "x"', "grant", False),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', "pg_hba.conf", False),
        ("server does not support SSL, but SSL was required", "sslmode", False),
        ("(1045, \"Access denied for user 'me'@'localhost' (using password: YES)\")", "user and password", True),
        ("(1044, \"Access denied for user 'me'@'%' to database 'x'\")", "grant", False),
        ("(1049, \"Unknown database 'x'\")", "create the database", False),
        ("Login failed for user 'me'. (18456)", "user and password", True),
        ('Cannot open database "x" requested by the login.', "create the database", False),
        ("ORA-01017: invalid username/password; logon denied", "user and password", True),
        ("file is not a database", "another path", False),
    ],
)
def test_what_will_not_pass_is_told_with_what_to_do(told: str, advice: str, login: bool) -> None:
    why = login_error(told)
    assert why is not None
    assert advice in why.advice
    assert why.login is login


@pytest.mark.parametrize(
    "told",
    [
        "connection refused",
        "FATAL:  the database system is starting up",
        "FATAL:  sorry, too many clients already",
        "(1040, 'Too many connections')",
        "(2013, 'Lost connection to MySQL server during query')",
        "could not translate host name",
        "FATAL:  Passwort-Authentifizierung für Benutzer »ich« fehlgeschlagen",
    ],
)
def test_what_may_pass_is_no_refusal(told: str) -> None:
    assert login_error(told) is None
