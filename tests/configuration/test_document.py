"""Where in a TOML file each key is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorpool.configuration.document import Document, InvalidFile, dotted, key_lines, read_document

TEXT = '''\
# a comment
top = 1

[system]
name = "shop"          # another
text = """
[no.table]
no = "key"
"""
[pools.write]
worker_args = { database = "x", more = [1, { deep = 2 }] }
a.b = 3
[[supervisors.agents.children]]
id = "one"
[supervisors.agents.children.actor]
strategy = "one_for_all"
[[supervisors.agents.children]]
id = "two"
list = [
  1,
  2,
]
after = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("system",), 4),
        (("system", "name"), 5),
        (("system", "text"), 6),
        (("pools", "write"), 10),
        (("pools", "write", "worker_args", "database"), 11),
        (("pools", "write", "worker_args", "more", 1, "deep"), 11),
        (("pools", "write", "a", "b"), 12),
        (("supervisors", "agents", "children", 0, "id"), 14),
        (("supervisors", "agents", "children", 0, "actor", "strategy"), 16),
        (("supervisors", "agents", "children", 1, "id"), 18),
        (("supervisors", "agents", "children", 1, "list"), 19),
        (("supervisors", "agents", "children", 1, "after"), 23),
    ],
)
def test_each_key_has_the_line_on_which_it_is_written(path, line):
    assert key_lines(TEXT)[path] == line


def test_what_is_written_within_a_string_is_no_key():
    assert not {path for path in key_lines(TEXT) if "no" in path}


def test_a_key_that_is_missing_is_looked_for_at_its_table():
    document = Document("shop.toml", TEXT)
    assert document.line(("pools", "write", "worker")) == 10
    assert document.line(("nothing", "at", "all")) is None


@given(st.lists(st.sampled_from(["plain", "comment", "string", "array", "inline"]), max_size=8))
def test_statements_of_several_lines_shift_those_after_them(kinds):
    lines: list[str] = []
    expected = {}
    for number, kind in enumerate(kinds):
        if kind != "comment":
            expected[(f"k{number}",)] = len(lines) + 1
        lines += {
            "plain": [f"k{number} = 1"],
            "comment": ["# k = 1", ""],
            "string": [f"k{number} = '''", "x = 1", "'''"],
            "array": [f"k{number} = [", "  1, # ]", "]"],
            "inline": [f"k{number} = {{ a = 1 }}"],
        }[kind]
    found = key_lines("\n".join(lines))
    assert {path: line for path, line in found.items() if len(path) == 1} == expected


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a = 1\nb = \n", 2, "is no TOML: invalid value"),
        ("a = 1\na = 2\n", 2, "is no TOML"),
        ("a = '''", 1, "is no TOML"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(text, line, said):
    with pytest.raises(InvalidFile) as caught:
        Document("shop.toml", text)
    (problem,) = caught.value.found
    assert problem.line == line
    assert problem.text.startswith(said)
    assert str(problem).startswith(f"shop.toml:{line}: is no TOML")


def test_a_file_that_cannot_be_read_is_told_with_the_reason(tmp_path):
    with pytest.raises(InvalidFile, match="cannot be read: No such file"):
        read_document(str(tmp_path / "no.toml"))
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'a = "\xe4"')
    with pytest.raises(InvalidFile, match="is not UTF-8"):
        read_document(str(latin))


def test_paths_are_told_as_they_are_written():
    assert dotted(("children", 0, "actor", "id")) == "children[0].actor.id"
