"""The whole file: what is made of it, and every problem at once."""

from __future__ import annotations

import os

import pytest

from actorpool.config import Breaker
from actorpool.configuration import InvalidFile, load
from actorpool.configuration.effective import effective
from actorpool.limits import Limits

GOOD = """
[system]
name = "shop"
log_format = "json"
drain = 20
[telemetry.statsd]
host = "127.0.0.1"
port = 9125
[pools.write]
worker = "actorpool.workers:SqliteWorker"
worker_args = { database = "${DATABASE}" }
size = "${SIZE}"
queue_target = 2.0
breaker = { failures = 2 }
limits = { memory = "512M" }
preload = ["json"]
[pools.read]
url = "postgresql://app:${PASSWORD}@db/app"
size = "${SIZE}"
statement_timeout = 3
[shared_pools.feeds]
kill_after = 1
[supervisors.agents]
strategy = "rest_for_one"
backoff = { minimum = 0.1, maximum = 1 }
[[supervisors.agents.children]]
id = "planner"
actor = "actorpool.workers:EchoWorker"
restart = "transient"
[[supervisors.agents.children]]
id = "team"
[supervisors.agents.children.actor]
strategy = "one_for_all"
[[supervisors.agents.children.actor.children]]
id = "member"
actor = "actorpool.workers:EchoWorker"
"""
HERE = {"DATABASE": "app.db", "SIZE": "7", "PASSWORD": "hunter22"}

BAD = """\
[system]
drian = 3
drain = -1
[telemetry.statsd]
prot = 1
[pools.write]
worker = "actorpool.workers:SqliteWorker"
worker_args = { database = "x", databse = "${PASSWORD}" }
[pools.read]
worker = "actorpool.workers:EchoWorker"
size = "${ABSENT}"
queue_targt = 2.0
strategy = "${PASSWORD}"
breaker = { failures = 0, windw = 3 }
[pools.none]
size = "many"
[pools."no name"]
worker = "nowhere:Worker"
[pools.both]
url = 3
worker = "actorpool.workers:EchoWorker"
[shared_pools.read]
[supervisors.agents]
strategy = "rest_for_on"
backoff = { minimum = 3 }
children = [ { id = "one", actor = "nowhere:Actor", restrat = "never" }, 3 ]
[sytem]
"""


def write(path, text):
    file = path / "shop.toml"
    file.write_text(text)
    return str(file)


def problems(path, text, **environment):
    with pytest.raises(InvalidFile) as caught:
        load(write(path, text), environment)
    return caught.value


def test_a_good_file_becomes_settings(tmp_path):
    config = load(write(tmp_path, GOOD), HERE)
    assert (config.system.name, config.system.log_format, config.system.drain) == ("shop", "json", 20)
    assert config.sinks[0].port == 9125
    pool = config.pools["write"]
    assert (pool.size, pool.queue_target, pool.breaker) == (7, 2.0, Breaker(failures=2))
    assert pool.worker_args == {"database": "app.db"}
    assert (pool.limits, tuple(pool.preload)) == (Limits(memory="512M"), ("json",))
    read = config.pools["read"]
    assert (read.size, read.max_overflow) == (7, 20)
    assert read.worker_args["statement_timeout"] == 3
    assert "hunter22" in str(read.worker_args)
    assert config.shared_pools["feeds"].kill_after == 1
    agents = config.supervisors["agents"]
    assert (agents.strategy, agents.backoff.maximum) == ("rest_for_one", 1)
    assert [(child.id, child.restart, child.kind) for child in agents.children] == [
        ("planner", "transient", "worker"),
        ("team", "permanent", "supervisor"),
    ]
    assert agents.children[1].actor.children[0].id == "member"
    assert config.expansion.secrets == {"app.db", "hunter22", "7"}


@pytest.mark.parametrize(
    "said",
    [
        ":2: [system] drian is unknown: did you mean drain?",
        ":3: [system] drain must be at least 0, not -1",
        ":1: [system] name is required",
        ":5: [telemetry.statsd] prot is unknown: did you mean port?",
        ":8: [pools.write] worker_args.databse",
        ":11: [pools.read] size needs the environment variable ABSENT",
        ":12: [pools.read] queue_targt is unknown: did you mean queue_target?",
        ":13: [pools.read] strategy must be one of 'lifo', 'fifo', not '***'",
        ":14: [pools.read] breaker.failures must be at least 1, not 0",
        ":14: [pools.read] breaker.windw is unknown: did you mean window?",
        ':15: [pools.none] needs a worker ("module:Class") or a url',
        ":16: [pools.none] size must be a whole number of at least 0, not 'many'",
        ":17: [pools.no name] has a bad name",
        ":18: [pools.no name] worker ModuleNotFoundError",
        ":21: [pools.both] worker is chosen by the url",
        ":22: [shared_pools.read] has the name of one of [pools]",
        ":24: [supervisors.agents] strategy must be one of",
        ":25: [supervisors.agents] backoff.maximum is required",
        ":26: [supervisors.agents] children[0].actor 'nowhere:Actor': ModuleNotFoundError",
        ":26: [supervisors.agents] children[0].restrat is unknown: did you mean restart?",
        ":26: [supervisors.agents] children[1] must be a table",
        ":27: [sytem] is unknown: did you mean system?",
    ],
)
def test_every_problem_is_told_at_once_with_its_line_its_table_and_its_key(tmp_path, said):
    text = str(problems(tmp_path, BAD, PASSWORD="hunter22"))
    assert said in text
    assert "hunter22" not in text


def test_nothing_else_is_a_problem_of_the_bad_file(tmp_path):
    found = problems(tmp_path, BAD, PASSWORD="hunter22").found
    assert len(found) == 22, "\n".join(map(str, found))


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ("url = 3", "url must be a URL"),
        ("adapter = 'sqlite'", "url must be a URL"),
        ("url = 'nothing://x'", "url"),
        ("url = 'sqlite:///x.db'\nadapter = 'nothing'", "adapter"),
        ("url = 'sqlite:///x.db'\nsize = -1", "size must be at least 0"),
        ("url = 'sqlite:///x.db'\ndatabse = 3", "databse is no argument"),
        ("url = 'sqlite:///x.db'\nbreaker = { failures = 0 }", "breaker.failures must be at least 1"),
    ],
)
def test_a_bad_url_or_what_does_not_fit_it_is_a_problem(tmp_path, pool, said):
    text = str(problems(tmp_path, f"[system]\nname = 'shop'\n[pools.a]\n{pool}"))
    assert f"[pools.a] {said}" in text


@pytest.mark.parametrize(
    "key", ["worker = 'actorpool.workers:SqlitWorker'", "worker = 'actorpool.workers:SQLiteworker'"]
)
def test_a_class_that_is_misspelt_is_told_with_the_nearest(tmp_path, key):
    text = str(problems(tmp_path, f"[system]\nname = 'shop'\n[pools.a]\n{key}"))
    assert "did you mean actorpool.workers:SqliteWorker?" in text


def test_an_override_counts_before_the_file_and_its_source_is_kept(tmp_path):
    config = load(write(tmp_path, GOOD), HERE, {"name": ("other", "command line")})
    assert config.system.name == "other"
    assert config.overrides == {"name": "command line"}


def test_the_name_may_come_from_an_override_alone(tmp_path):
    assert load(write(tmp_path, "[pools]"), {}, {"name": ("shop", "command line")}).system.name == "shop"


@pytest.mark.parametrize("text", ["pools = 3", "[pools]\nwrite = 3", "system = 'x'", "[supervisors.a]\nchildren = 3"])
def test_what_should_be_a_table_and_is_none_is_a_problem(tmp_path, text):
    assert any("must be" in problem.text for problem in problems(tmp_path, text).found)


NUMBERS = """
[system]
name = "shop"
log_file = "logs/shop.log"
[pools.a]
worker = "tests.configuration.workers:Numbers"
worker_args = { port="${PORT}", ratio = "${RATIO}", on = "${ON}", code="${CODE}", parts="${PORT}", more="${PORT}" }
[pools.b]
url = "sqlite:///data/app.db?mode=ro"
cached_statements = "${PORT}"
[pools.c]
url = "sqlite:////srv/app.db"
size = 1
"""


def test_an_argument_that_was_one_reference_is_what_the_worker_takes(tmp_path):
    environment = {"PORT": "5432", "RATIO": "0.5", "ON": "true", "CODE": "0042"}
    config = load(write(tmp_path, NUMBERS), environment)
    assert config.pools["a"].worker_args == {
        "port": 5432, "ratio": 0.5, "on": True, "code": "0042", "parts": "5432", "more": "5432",
    }  # fmt: skip


def test_an_argument_that_should_be_a_number_and_is_none_is_a_problem_that_does_not_show_it(tmp_path):
    text = str(problems(tmp_path, NUMBERS, PORT="54e", RATIO="secret-one", ON="1", CODE="x"))
    assert "[pools.a] worker_args.port must be int | None" in text
    assert "[pools.a] worker_args.ratio must be float" in text
    assert "[pools.a] worker_args.on must be bool" in text
    assert "[pools.b] cached_statements must be int" in text
    assert "secret-one" not in text


def test_relative_paths_begin_where_the_file_is(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "etc").mkdir()
    file = write(tmp_path / "etc", NUMBERS)
    environment = {"PORT": "5", "RATIO": "1", "ON": "false", "CODE": "x"}
    for path in (file, os.path.relpath(file)):
        config = load(path, environment)
        assert config.system.log_file == str(tmp_path / "etc" / "logs" / "shop.log")
        assert config.pools["b"].worker_args["database"] == f"file:{tmp_path}/etc/data/app.db?mode=ro"
        assert config.pools["c"].worker_args["database"] == "/srv/app.db"


def test_what_follows_from_a_url_has_the_line_of_the_url_as_its_source(tmp_path):
    file = write(tmp_path, GOOD)
    sources = {(one.table, one.key): one.source for one in effective(load(file, HERE))}
    assert sources["pools.read", "worker"] == f"{file}:18 ${{PASSWORD}}"
    assert sources["pools.read", "worker_args.conninfo"] == f"{file}:18 ${{PASSWORD}}"
    assert sources["pools.read", "worker_args.statement_timeout"] == f"{file}:20"
    assert sources["pools.read", "max_overflow"] == "default"
    assert sources["pools.write", "worker"] == f"{file}:10"
    assert sources["pools.write", "strategy"] == "default"
    assert sources["system", "base"] == "default"
