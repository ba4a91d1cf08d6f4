"""What SQL text can do to the session it runs in."""

from __future__ import annotations

import tracemalloc

import pytest

from actorpool.workers.statements import LONGEST, alters_session, is_harmless, transaction_verb

HARMLESS = [
    "",
    "select 1",
    "SELECT count(*), lower(name) FROM t WHERE id IN (1, 2) ORDER BY 1 LIMIT 5",
    "insert into t (a, b) values (%s, %s) on conflict (a) do update set b = 2 returning id",
    'insert into "my schema"."t" (a) values (1)',
    "select 1 -- f() \n, 2",
    "update t set name = 'set me; drop (this)' where id = 1",
    "delete from t using u where t.id = u.id",
    "with r(n) as (select 1 union all select n + 1 from r) select * from r",
    "with recursive walk(n) as (values (1)) select n from walk",
    "(select 1) union (select 2)",
    "/* trace='x', f() */ select 1 -- set x = 1",
    "begin; select 1; commit",
    "select pg_catalog.count(1)",
    "select * from t as g(x)",
    "select $$ f() ; set x $$",
    "copy t (a) from stdin",
    "savepoint a; release savepoint a",
    "insert into t values (gen_random_uuid(), now(), '{}'::jsonb)",
]

HARMFUL = [
    "set x = 1",
    "SET LOCAL x = 1",
    "reset all",
    "listen news",
    "load 'thing'",
    "prepare p as select 1",
    "declare c cursor with hold for select 1",
    "call anything()",
    "do $$ begin end $$",
    "create temp table x (a int)",
    "create table x (a int)",
    "select 1 into temp x",
    "select 1 into pg_temp.x",
    "select set_config('a', 'b', false)",
    "select \"set_config\"('a', 'b', false)",
    "select set_config /* (' */ ('a', 'b', false)",
    "select pg_advisory_lock(1)",
    "select unknown_function()",
    "select mine.count(1)",
    "select '/*', set_config('x', 'y', false), '*/'",
    "select E'it\\'s', f()",
    "/* /* */ set x = 1 */ */ select 1",
    "select 1; set x = 2",
    "select 1;set x = 2",
    "select $a$ $b$ $a$, f()",
    "update pg_settings set setting = 'x'",
    'update "pg_settings" set setting = 1',
    'select 1 into "pg_temp".x',
    'select 1 into U&"pg\\005ftemp".x',
    'update u& "pg\\005fsettings" set setting = 1',
    'select "Count"(1)',
    "select 1 --\r, f()",
    "select $1$, f(), $1$",
    "select f\u00a0(1), count\u00a0(1)",
    "select 'never closed",
    "select 1 /* never closed",
    "select " + "1, " * LONGEST + "1",
]


@pytest.mark.parametrize("query", HARMLESS)
def test_plain_statements_with_known_functions_are_harmless(query: str) -> None:
    assert is_harmless(query)


@pytest.mark.parametrize("query", HARMFUL, ids=lambda query: query[:40])
def test_what_is_not_known_to_be_harmless_is_not(query: str) -> None:
    assert not is_harmless(query)


@pytest.mark.parametrize(
    "query",
    [
        "set names utf8",
        "use other",
        "pragma foreign_keys = on",
        "attach 'x' as y",
        "create temporary table x (a int)",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
        "lock tables t write",
        "alter session set nls_date_format = 'x'",
        "select @x := 1",
        "select max(id) into @latest from t",
        "flush tables with read lock",
        "handler t open",
        "select get_lock('a', 1)",
        "select 1; set x = 1",
    ],
)
def test_the_usual_ways_to_alter_a_session_are_known(query: str) -> None:
    assert alters_session(query)


@pytest.mark.parametrize(
    "query",
    [
        "select 1",
        "update t set temp = 1",
        "create table temp_data (a int)",
        "insert into t values ('set x')",
        "alter table t add column session int",
        "select a @> b from t where a <@ c",
        "select * from t where id = @id",
        "select anything(1)",
        "",
    ],
)
def test_ordinary_statements_alter_no_session(query: str) -> None:
    assert not alters_session(query)


@pytest.mark.slow
def test_what_was_read_is_remembered_without_its_text() -> None:
    texts = ["insert into t values " + "(1, 2), " * 100 + str(number) for number in range(300)]
    for ask in (is_harmless, alters_session, transaction_verb):
        tracemalloc.start()
        try:
            for text in texts:
                ask(text + ", (3)")
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < sum(map(len, texts)) / 2


def test_a_thousand_other_statements_do_not_change_what_is_said_about_one() -> None:
    for number in range(10_000):
        assert is_harmless(f"select {number}")
    assert not is_harmless("set x = 1")
    assert is_harmless("select 1")
