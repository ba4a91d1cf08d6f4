"""Reads SQL text just far enough to say whether it can change the session it runs in. Pure.

A lease ends in a pristine session. Cleaning one costs a round trip, so workers want to know when there is nothing to
clean. Two questions for two kinds of worker: `is_harmless` is strict (what it does not know is not harmless), for
sessions that are cleaned cheaply; `alters_session` is coarse (it knows the usual suspects), for those that have to be
replaced. Neither sees what a trigger, a view or an operator does inside the server.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TypeVar

T = TypeVar("T")

LONGEST = 20_000
"""Characters. Longer texts (bulk inserts with literals) are not read: cleaning is cheaper than reading them."""

REMEMBERED = 4_096
"""Answers that are remembered for each question."""

POSTGRES_RESTORE = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; CLOSE ALL; RESET ALL; UNLISTEN *; "
    "SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)
"""What DISCARD ALL does, except that prepared statements stay (and that it may stand next to other statements).

Up to PostgreSQL 16 the first of them also takes away a role with which the session had begun; the second gives it back.
"""

_TOKENS = re.compile(
    r"""
      (?P<literal>'(?:[^']|'')*' | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
    | (?P<comment>--[^\n\r]* | /\*.*?\*/)
    | (?P<name>"(?:[^"]|"")*")
    | (?P<word>[a-zA-Z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
    | (?P<other>/\*|\S)
    """,
    re.VERBOSE | re.DOTALL,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PLAIN = _words(
    "select insert update delete values with table merge copy begin start commit end rollback abort savepoint release "
    "show"
)
"""First words of statements that by themselves change data and transactions, never the session."""

_SUSPECT = re.compile(r"temp|temporary|pg_temp.*|pg_settings")
"""Words that stand for things of the session; updating `pg_settings` is another way to say SET."""

_NAMES_FOLLOW = _words("into as with recursive copy")
"""A name after these is a table or an alias, also when a parenthesis follows: `insert into t (a)`, `as t(a)`."""

_HARMLESS_CALLS = _words(
    # Not functions at all, but they may stand before a parenthesis ...
    "in any all some values exists and or not as over on using by when then else case with filter within distinct "
    "conflict into from where having select union except intersect key returning like ilike between is limit offset "
    "array row cast extract coalesce nullif greatest least position substring overlay trim lateral rollup cube sets "
    "numeric decimal varchar char character varying bit float time timestamp timestamptz interval materialized "
    # ... aggregates and window functions ...
    "count sum min max avg every bool_and bool_or string_agg array_agg json_agg jsonb_agg json_object_agg "
    "jsonb_object_agg stddev stddev_pop stddev_samp variance var_pop var_samp corr percentile_cont percentile_disc "
    "mode row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value "
    # ... and functions of PostgreSQL that read or compute.
    "now clock_timestamp statement_timestamp transaction_timestamp date_trunc date_part date_bin age to_char to_date "
    "to_number to_timestamp make_date make_interval make_timestamp justify_interval abs ceil ceiling floor round trunc "
    "mod power sqrt exp ln log sign div random width_bucket length char_length octet_length lower upper initcap left "
    "right lpad rpad ltrim rtrim btrim replace translate repeat reverse concat concat_ws format split_part strpos "
    "starts_with regexp_replace regexp_match regexp_matches regexp_split_to_table regexp_split_to_array md5 sha256 "
    "encode decode ascii chr quote_ident quote_literal to_hex array_length array_append array_prepend array_cat "
    "array_remove array_position array_to_string string_to_array cardinality unnest generate_series "
    "generate_subscripts json_build_object jsonb_build_object json_build_array jsonb_build_array to_json to_jsonb "
    "jsonb_set json_each jsonb_each json_array_elements jsonb_array_elements jsonb_array_length jsonb_path_query "
    "row_to_json to_tsvector to_tsquery plainto_tsquery websearch_to_tsquery ts_rank ts_headline setweight "
    "gen_random_uuid uuid_generate_v4 nextval version pg_typeof pg_size_pretty pg_relation_size pg_database_size "
    "pg_total_relation_size pg_backend_pid current_database current_schema current_setting pg_sleep "
    "pg_advisory_xact_lock pg_try_advisory_xact_lock txid_current pg_notify"
)

_SETTERS = _words("set reset use attach detach pragma lock flush handler listen load prepare declare discard")
_HOLDERS = re.compile(r"set_config|pg_(?:try_)?advisory_lock\w*|get_lock|sp_getapplock")


def _remembering(read: Callable[[str], T]) -> Callable[[str], T]:
    """Remember the answers, not the texts: reading costs 1 µs for each character, and keeping texts costs megabytes.

    Two texts with the same hash, which is secret and has 64 bits, would be taken for one another.
    """
    answers: dict[int, T] = {}

    @wraps(read)
    def ask(query: str) -> T:
        key = hash(query)
        try:
            return answers[key]
        except KeyError:
            if len(answers) >= REMEMBERED:
                answers.clear()
            answer = answers[key] = read(query)
            return answer

    return ask


def is_harmless(query: str) -> bool:
    """Whether every statement of `query` is known to leave the session as it was (PostgreSQL's dialect).

    Plain reads, writes and transaction control that call only known functions are; whatever else is not.
    """
    return len(query) <= LONGEST and _is_harmless(query)


@_remembering
def _is_harmless(query: str) -> bool:
    if "\\'" in query:  # an escaped quote in some dialects, the end of a literal in others
        return False
    tokens = list(_significant(query))
    return all(_harmless_at(tokens, index) for index in range(len(tokens)))


def _harmless_at(tokens: list[str], index: int) -> bool:
    token = tokens[index]
    if _SUSPECT.fullmatch(token.strip('"')) or token in ("'", '"', "/*"):  # the last three: not read to its end
        return False
    if token[0] == '"' and tokens[index - 1 : index] == ["&"]:
        return False  # U&"...", a name that hides behind escapes
    if (index == 0 or tokens[index - 1] == ";") and token != ";":
        return token in _PLAIN or token == "("
    return token != "(" or index == 0 or _harmless_call(tokens, index - 1)


def _harmless_call(tokens: list[str], last: int) -> bool:
    """Whether the name that ends at `last`, before a parenthesis, is no call or that of a known function."""
    name = tokens[last]
    if not (name[0].isalpha() or name[0] in '_"'):
        return True
    start = last
    while start >= 2 and tokens[start - 1] == ".":
        start -= 2
    if start >= 1 and tokens[start - 1] in _NAMES_FOLLOW:
        return True
    return name in _HARMLESS_CALLS and (start == last or tokens[start] == "pg_catalog")


def _significant(query: str) -> Iterator[str]:
    """Words and names in lower case and signs; literals as `0`, comments left out (a nested one as `/*`)."""
    for match in _TOKENS.finditer(query):
        kind, text = match.lastgroup, match.group()
        if kind == "comment":
            if "/*" in text[2:]:
                yield "/*"
        elif match.group("literal") is not None:
            yield "0"
        else:
            yield text.lower()


MIXED = "mixed"
"""A verb of transactions among other statements."""

_VERBS = {
    "begin": "begin", "start": "begin", "commit": "commit", "end": "commit", "rollback": "rollback",
    "abort": "rollback",
}  # fmt: skip


def transaction_verb(query: str) -> str | None:
    """What `query` says about the transaction as such: `"begin"`, `"commit"`, `"rollback"` or nothing (None).

    `MIXED` when it says more than that. Savepoints do not count, nor does what is inside a CREATE (the body of a
    trigger or a procedure), nor what comes beyond the first `LONGEST` characters.
    """
    return _transaction_verb(query[:LONGEST])


@_remembering
def _transaction_verb(query: str) -> str | None:
    tokens = list(_significant(query))
    if not tokens or tokens[0] == "create":
        return None
    firsts = [at for at, token in enumerate(tokens) if token != ";" and (at == 0 or tokens[at - 1] == ";")]
    verbs = [_VERBS[tokens[at]] for at in firsts if tokens[at] in _VERBS and _ends_or_begins(tokens[at : at + 3])]
    if not verbs:
        return None
    return verbs[0] if len(firsts) == 1 else MIXED


def _ends_or_begins(words: list[str]) -> bool:
    """Not `ROLLBACK [WORK] TO`, which is about a savepoint, nor `START` something else."""
    return "to" not in words and (words[0] != "start" or words[1:2] == ["transaction"])


def alters_session(query: str) -> bool:
    """Whether `query` is one of the usual ways, in any dialect, to leave something behind in the session.

    Settings, temporary tables, session locks, attached databases. A text too long to read does not count.
    """
    return len(query) <= LONGEST and _alters_session(query)


@_remembering
def _alters_session(query: str) -> bool:
    tokens = list(_significant(query))
    for index, token in enumerate(tokens):
        first = index == 0 or tokens[index - 1] == ";"
        if first and token in _SETTERS:
            return True
        if first and token == "alter" and tokens[index + 1 : index + 2] == ["session"]:
            return True
        if token in ("temp", "temporary") and tokens[index - 1] in ("create", "replace", "into", "local", "global"):
            return True
        if _HOLDERS.fullmatch(token.strip('"')) and tokens[index + 1 : index + 2] == ["("]:
            return True
        if token == "@" and (tokens[index - 1 : index] == ["into"] or tokens[index + 2 : index + 4] == [":", "="]):
            return True  # a variable of MySQL, which lives as long as the session
    return False


def cache_key(query: str | bytes) -> str:
    """32 hexadecimal digits that stand for the text of a query, the same in every process and release."""
    text = query.encode() if isinstance(query, str) else query
    return hashlib.blake2b(text, digest_size=16).hexdigest()
