"""Arguments of the shipped workers whose names are misspelt, before anything is opened."""

from __future__ import annotations

import inspect
from typing import Any

import httpx
import psycopg
import pymysql
import pytest

from actorpool.errors import InvalidConfig, PermanentError
from actorpool.workers import DbapiWorker, HttpWorker, PostgresWorker, SqlAlchemyWorker, SqliteWorker


@pytest.mark.parametrize(
    ("worker", "args", "named"),
    [
        (SqliteWorker, {"databse": "a.db"}, {"databse": "'database'", "database": "given: 'databse'"}),
        (SqliteWorker, {"path": "a.db"}, {"database": "given: 'path'"}),
        (SqliteWorker, {"database": "a.db", "pragma": {}}, {"pragma": "'pragmas'"}),
        (PostgresWorker, {"prepare_treshold": 1}, {"prepare_treshold": "'prepare_threshold'"}),
        (DbapiWorker, {"module": "pymysql", "onreset": 1}, {"module_or_factory": "'module'", "onreset": "'on_reset'"}),
        (SqlAlchemyWorker, {"urls": "sqlite://"}, {"urls": "'url'", "url": "'urls'"}),
        (HttpWorker, {"baseurl": "http://a.example"}, {"baseurl": "'base_url'", "base_url": "'baseurl'"}),
    ],
)
def test_a_misspelt_argument_is_named_together_with_the_one_that_is_meant(
    worker: Any, args: dict[str, Any], named: dict[str, str]
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        worker(**args)
    assert caught.value.problems.keys() == named.keys()
    for name, text in named.items():
        assert text in caught.value.problems[name]


def test_what_only_a_driver_knows_is_passed_on_whatever_it_is_called() -> None:
    libpq = {option.keyword.decode(): "x" for option in psycopg.pq.Conninfo.get_defaults()}
    PostgresWorker(**{name: value for name, value in libpq.items() if name != "connect_timeout"})
    theirs = set(inspect.signature(httpx.Client).parameters) - set(inspect.signature(HttpWorker).parameters)
    HttpWorker("http://a.example", **dict.fromkeys(theirs - {"follow_redirects"}))
    DbapiWorker(pymysql, **dict.fromkeys(inspect.signature(pymysql.connect).parameters))


def test_an_unknown_option_of_libpq_is_named_together_with_the_one_that_is_meant() -> None:
    with pytest.raises(PermanentError, match="\"hots\" .did you mean 'host'"):
        PostgresWorker("hots=localhost").open()
