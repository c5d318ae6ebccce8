"""Resources and scopes as cells of a column: any OTLP library reads them, SQL reads their copies."""

from __future__ import annotations

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

from connectors.archive.envelope import attributes_json, read_resources, read_scopes, resource_cells, scope_cells
from telflow.schema import ATTRIBUTES, RESOURCES, SCOPES, Signal
from tests.oracle import attributes, batch_from_message, canonical
from tests.strategies import requests, thorough


@thorough(40)
@given(request=requests(Signal.TRACES))
def test_cells_are_otlp_messages_without_content(request: Any) -> None:
    """A cell is the ResourceSpans / ScopeSpans it came from, less what is below it, and reads back as its row."""
    batch = batch_from_message(request, Signal.TRACES, "acme")
    cells = resource_cells(batch.resources)
    for kept, row in zip(cells.to_pylist(), batch.resources.to_pylist(), strict=True):
        message = ResourceSpans.FromString(kept)
        assert not message.scope_spans
        assert message.schema_url == row["schema_url"]
        assert message.HasField("resource") == (row["attributes"] is not None)
    found = {canonical(ResourceSpans.FromString(cell)) for cell in cells.to_pylist()}
    expected = {
        canonical(ResourceSpans(resource=r.resource if r.HasField("resource") else None, schema_url=r.schema_url))
        for r in request.resource_spans
    }
    assert found == expected
    again = read_resources(cells, batch.resources["tenant"])
    assert _exactly(again) == _exactly(batch.resources)
    cells = scope_cells(batch.scopes)
    assert all(not ScopeSpans.FromString(cell).spans for cell in cells.to_pylist())
    assert _exactly(read_scopes(cells)) == _exactly(batch.scopes)


def _exactly(table: pa.RecordBatch) -> str:
    """NaN equals itself here, and -0.0 does not equal 0.0."""
    return repr(table.to_pylist())


def test_no_envelopes() -> None:
    """Nothing to nothing."""
    no_resources = pa.RecordBatch.from_pylist([], schema=RESOURCES)
    no_scopes = pa.RecordBatch.from_pylist([], schema=SCOPES)
    assert len(resource_cells(no_resources)) == len(scope_cells(no_scopes)) == 0
    empty = pa.array([], pa.binary())
    assert read_resources(empty, pa.array([], pa.string())).equals(no_resources)
    assert read_scopes(empty).equals(no_scopes)


def test_long_cells() -> None:
    """Lengths of more than one varint byte, at each border."""
    sizes = [0, 1, 100, 127, 128, 16_383, 16_384, 70_000]
    rows: list[dict[str, Any]] = [
        {"tenant": None, "attributes": [], "dropped_attributes_count": 0, "entity_refs": [], "schema_url": "u" * size}
        for size in sizes
    ]
    resources = pa.RecordBatch.from_pylist(rows, schema=RESOURCES)
    cells = resource_cells(resources)
    assert [len(ResourceSpans.FromString(cell).schema_url) for cell in cells.to_pylist()] == sizes
    assert read_resources(cells, resources["tenant"]).equals(resources)


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
