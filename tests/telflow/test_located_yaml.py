"""YAML with places: what is read, and what each fault is told about."""

from __future__ import annotations

from typing import Any

import pytest

from telflow.located_yaml import Place, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 2.5, true, null]\nc: {d: 'e'}", {"a": 1, "b": ["x", 2.5, True, None], "c": {"d": "e"}}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: &x {b: 1}\ne: &y {f: 2}\nd: {<<: [*x, *y]}", {"a": {"b": 1}, "e": {"f": 2}, "d": {"b": 1, "f": 2}}),
        ("a: 2026-01-31", {"a": "2026-01-31"}),
        ("a: yes", {"a": "yes"}),
        ("a: =", {"a": "="}),
    ],
)
def test_plain_yaml_is_read(text: str, value: Any) -> None:
    """Scalars, collections, aliases and merges; a date stays text, and so does YAML 1.1's yes."""
    document = read_yaml(text, {})
    assert document.value == value
    assert document.faults == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: ${env:PORT}", 4317),
        ("a: ${PORT}", 4317),
        ('a: "${env:PORT}"', "4317"),
        ("a: host:${env:PORT}", "host:4317"),
        ("a: ${env:UNSET:-5}", 5),
        ("a: ${env:UNSET:-}", ""),
        ("a: ${env:EMPTY:-5}", None),
        ("a: ${env:LIST}", ["x", "y"]),
        ("a: ${env:BROKEN}", "[x"),
        ("a: cost $$5 ${env:PORT}", "cost $5 4317"),
        ("a: ^x$", "^x$"),
        ("a: $PORT", "$PORT"),
    ],
)
def test_environment_variables_as_in_the_collector(text: str, value: Any) -> None:
    """A whole unquoted value is YAML, anything else text; the default is for the unset, not for the empty."""
    environ = {"PORT": "4317", "EMPTY": "", "LIST": "[x, y]", "BROKEN": "[x"}
    document = read_yaml(text, environ)
    assert document.value == {"a": value}
    assert document.faults == []


@pytest.mark.parametrize(
    ("text", "place", "expected", "got"),
    [
        ("a: 1\nb: [1", Place(2, 6), "valid YAML", "expected ',' or ']'"),
        ("a:\n\t- b", Place(2, 1), "valid YAML", "found character"),
        ("a: b: c", Place(1, 5), "valid YAML", "mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", Place(2, 1), "valid YAML", "another document"),
        ("a: *no", Place(1, 4), "valid YAML", "undefined alias"),
        ("a: 1\nb: \x00", Place(2, 4), "text that YAML admits", "'\\x00'"),
        ("a: 1\nb: 2\na: 3", Place(3, 1), "each key once", "'a' again; it stands at line 1 too"),
        ("? [1]\n: 2", Place(1, 3), "text as a key", "a list or a mapping"),
        ("a: !secret x", Place(1, 4, 9), "plain YAML", "the tag !secret"),
        ("a: &x [*x]", Place(1, 4), "a value", "an alias of something it is part of"),
        ("a: &x {<<: *x}", Place(1, 8, 2), "a value", "an alias of something it is part of"),
        ("a: {<<: 5}", Place(1, 5, 2), "an alias of a mapping after <<", "something else"),
        ("a: ${env:UNSET}", Place(1, 4, 12), "the environment variable UNSET", "nothing: it is not set"),
        ("a: ${file:x}", Place(1, 4, 9), "${env:NAME} or ${env:NAME:-default}", "${file:x}"),
    ],
)
def test_a_fault_says_where_expected_and_got(text: str, place: Place, expected: str, got: str) -> None:
    """Whatever is wrong with the text, there is one fault and it points at it."""
    (fault,) = read_yaml(text, {}).faults
    assert (fault.place.line, fault.place.column) == (place.line, place.column)
    assert fault.expected == expected
    assert got in fault.got


def test_a_tab_and_an_unquoted_colon_get_a_hint() -> None:
    """The two faults everybody makes once."""
    assert "spaces" in read_yaml("a:\n\tb: 1", {}).faults[0].hint
    assert "quote" in read_yaml("a: b: c", {}).faults[0].hint
    assert "---" in read_yaml("a: 1\n---\nb: 2", {}).faults[0].hint


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    """A "billion laughs" document is stopped and reported once."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    (fault,) = read_yaml("\n".join(lines), {}).faults
    assert fault.expected == "at most 100000 values"


def test_places_are_those_of_the_text() -> None:
    """Lines and columns from 1; what the text does not hold is placed at what is around it."""
    document = read_yaml("a:\n  b: [x, yy]\n", {})
    assert document.keys["a", "b"] == Place(2, 3, 1)
    assert document.values["a", "b", 1] == Place(2, 10, 2)
    assert document.place(("a", "b", 1)) == Place(2, 10, 2)
    assert document.place(("a", "missing", "x")) == Place(1, 1, 1)
    assert document.place(("nowhere",)) == Place(1, 1, 1)
    assert read_yaml("", {}).place(()) == Place(1, 1)
