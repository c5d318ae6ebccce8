"""Attributes as JSON: one object for each list that says the same."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from telflow.attributes_json import attributes_json
from telflow.schema import ATTRIBUTES
from tests.oracle import attributes
from tests.strategies import thorough


def _json(*members: tuple[str, AnyValue | None]) -> Any:
    rows = attributes([KeyValue(key=key, value=value) for key, value in members])
    (text,) = attributes_json(pa.array([rows], ATTRIBUTES)).to_pylist()
    return json.loads(text)


@thorough(50)
@given(st.dictionaries(st.text(), st.one_of(st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1))))
def test_json_copy_of_scalars(members: dict[str, Any]) -> None:
    """Any text, also with quotes, backslashes and control characters, is one JSON object that says the same."""
    assert _json(*((key, _any(value)) for key, value in members.items())) == members


def _any(value: str | bool | int) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)


def test_json_copy_of_the_other_kinds() -> None:
    """Doubles, bytes, nested values, and values that are not there."""
    inner = [_any("x"), _any(1), AnyValue(double_value=math.nan), AnyValue(bytes_value=b"\0"), AnyValue()]
    nested = KeyValueList(values=[KeyValue(key="k", value=AnyValue(array_value=ArrayValue(values=inner)))])
    assert _json(
        ("double", AnyValue(double_value=0.5)),
        ("nan", AnyValue(double_value=math.nan)),
        ("minus", AnyValue(double_value=-math.inf)),
        ("bytes", AnyValue(bytes_value=b"\xff\xfe")),
        ("array", AnyValue(array_value=ArrayValue(values=[_any("a"), AnyValue(kvlist_value=nested)]))),
        ("kvlist", AnyValue(kvlist_value=nested)),
        ("empty", AnyValue()),
        ("none", None),
    ) == {
        "double": 0.5,
        "nan": "nan",
        "minus": "-inf",
        "bytes": "//4=",
        "array": ["a", {"k": ["x", 1, "nan", "AA==", None]}],
        "kvlist": {"k": ["x", 1, "nan", "AA==", None]},
        "empty": None,
        "none": None,
    }


@pytest.mark.parametrize("kind", [5, 6])
def test_json_copy_of_what_is_no_message(kind: int) -> None:
    """Bytes an operator spoilt cost the copy, not the flow."""
    broken = pa.array([[{"key": "k", "type": kind, "bytes": b"\xff"}]], ATTRIBUTES)
    assert attributes_json(broken).to_pylist() == ['{"k":null}']


def test_json_copy_keeps_rows_apart() -> None:
    """Null, empty and filled lists, in a slice too."""
    one = [{"key": "a", "type": 3, "int": 1}]
    lists = pa.array([one, None, [], one + one], ATTRIBUTES)
    assert attributes_json(lists).to_pylist() == ['{"a":1}', None, "{}", '{"a":1,"a":1}']
    assert attributes_json(lists.slice(1, 2)).to_pylist() == [None, "{}"]
