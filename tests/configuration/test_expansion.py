"""`${...}` in a configuration file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorpool.configuration.expansion import converted, expand

HERE = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${NAME}", "value"),
        ("a ${NAME} b ${NAME}", "a value b value"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("${ABSENT:-default}", "default"),
        ("${ABSENT:-}", ""),
        ("${ABSENT:-a:-b}", "a:-b"),
        ("$${NAME}", "${NAME}"),
        ("$$", "$"),
        ("$", "$"),
        ("$NAME", "$NAME"),
        ("100 % $5", "100 % $5"),
        ("${NESTED}", "${NAME}"),
        ("${ABSENT:-$$}", "$$"),
    ],
)
def test_a_reference_is_replaced_once_and_what_it_gives_is_not_looked_at_again(text, expanded):
    result = expand({"table": {"list": [text]}}, HERE, "/")
    assert not result.problems
    assert result.data == {"table": {"list": [expanded]}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${ABSENT}", "needs the environment variable ABSENT"),
        ("${file:absent}", "needs the file absent, which cannot be read: No such file"),
        ("${NAME", "has `${` without `}`"),
        ("${}", "expected ${NAME}"),
        ("${no name}", "expected ${NAME}"),
    ],
)
def test_what_cannot_be_expanded_is_a_problem_of_that_key(text, said):
    result = expand({"a": {"b": text, "c": "${NAME}"}}, HERE, "/")
    assert list(result.problems) == [("a", "b")]
    assert said in result.problems["a", "b"]
    assert result.data["a"]["c"] == "value"


def test_a_file_loses_the_newline_at_its_end_and_no_other(tmp_path):
    (tmp_path / "secret").write_text("one\ntwo\n\n")
    result = expand({"a": "${file:secret}", "b": f"x${{file:{tmp_path}/secret}}"}, {}, str(tmp_path))
    assert result.data == {"a": "one\ntwo\n", "b": "xone\ntwo\n"}


def test_what_was_put_in_is_a_secret_wherever_it_came_from(tmp_path):
    (tmp_path / "secret").write_text("from a file\n")
    data = {"a": "x${NAME}", "b": "${ABSENT:-default}", "c": "${file:secret}", "d": "${SHORT}", "e": "plain"}
    result = expand(data, HERE | {"SHORT": "abc"}, str(tmp_path))
    assert result.secrets == {"value", "default", "from a file", "abc"}
    assert result.whole == {("b",), ("c",), ("d",)}
    assert result.sources[("a",)] == ["${NAME}"]


@given(st.text(alphabet="${}a:-"))
def test_no_text_breaks_it(text):
    expand({"a": text}, {}, "/")


@given(st.text().filter(lambda text: "$" not in text))
def test_a_text_without_a_dollar_stays_as_it_is(text):
    assert expand({"a": text}, {}, "/").data == {"a": text}


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("12", "int", 12),
        ("12", "int | str", 12),
        ("auto", "int | str", "auto"),
        ("1.5", "float | None", 1.5),
        ("2", "float", 2),
        ("true", "bool", True),
        ("False", "bool", False),
        ("12", "str | None", "12"),
        ("many", "int", "many"),
    ],
)
def test_a_value_that_is_one_reference_becomes_what_its_field_takes(text, wanted, value):
    found = converted(text, wanted)
    assert found == value
    assert type(found) is type(value)
