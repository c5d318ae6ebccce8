"""Typed values: attributes as dimensions, without losing or confusing any kind of value."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.dimensions import first_values, from_typed, typed, typed_scalar
from telflow.schema import ANY_VALUE, ATTRIBUTES
from tests.oracle import attributes
from tests.strategies import key_values, thorough


@thorough(60)
@given(lists=st.lists(st.lists(key_values(), max_size=4), max_size=4), offset=st.integers(0, 2))
def test_typed_values_are_lossless_and_distinct(lists: list[list[Any]], offset: int) -> None:
    """The first value of a key comes back as it was, of whatever kind, also from a slice of a batch."""
    column = pa.array([attributes(found) for found in lists], ATTRIBUTES).slice(offset)
    rows = [attributes(found) for found in lists][offset:]
    for key in {kv.key for found in lists for kv in found} | {"none"}:
        expected = [next((_value(a) for a in row if a["key"] == key and a["type"]), None) for row in rows]
        values = first_values(column, key)
        assert values.type == ANY_VALUE
        assert repr(values.to_pylist()) == repr(expected)
        coded = typed(values)
        assert repr(from_typed(coded).to_pylist()) == repr(expected)
        assert [c is None for c in coded.to_pylist()] == [e is None for e in expected]


def _value(attribute: dict[str, Any]) -> dict[str, Any]:
    return {"type": int(attribute["type"]), **{n: attribute[n] for n in ("str", "int", "double", "bool", "bytes")}}


def test_resources_without_a_message_have_no_values() -> None:
    """A null attribute list, the unset Resource, is like an empty one."""
    column = pa.array([None, attributes([])], ATTRIBUTES)
    assert first_values(column, "a").to_pylist() == [None, None]


@pytest.mark.parametrize(("value", "expected"), [(True, b"\x02true"), (1, b"\x031"), (1.0, b"\x041"), ("1", b"\x011")])
def test_equal_looking_values_differ_by_kind(value: str | float, expected: bytes) -> None:
    """1, "1", 1.0 and true are four values."""
    assert typed_scalar(value) == expected
