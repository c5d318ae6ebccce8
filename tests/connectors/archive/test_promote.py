"""Promoted columns: one value per record, from every level, the first of duplicate keys."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from connectors.archive.layout import to_rows
from connectors.archive.promote import PromotedAttribute, extract
from telflow.schema import ATTRIBUTES, Signal, ValueType
from tests.oracle import REQUESTS, attributes, batch_from_message
from tests.strategies import key_values, thorough

_CHILD = {ValueType.STRING: "str", ValueType.INT: "int", ValueType.DOUBLE: "double", ValueType.BOOL: "bool"}


def _expected(rows: list[dict[str, Any]] | None, key: str, kind: str) -> Any:
    first = next((row for row in rows or [] if row["key"] == key), None)
    if first is None:
        return None
    if kind != "string":
        return first[kind]
    if first["type"] == ValueType.STRINDEX:
        return str(first["int"])
    child = _CHILD.get(first["type"])
    return None if child is None else pa.array([first[child]]).cast(pa.string())[0].as_py()


@thorough(60)
@given(lists=st.lists(st.one_of(st.none(), st.lists(key_values(), max_size=5)), max_size=5))
def test_extract_equals_the_loop(lists: list[list[Any] | None]) -> None:
    """Whatever stands in the lists, null and empty ones included, and sliced."""
    rows = [None if found is None else attributes(found) for found in lists]
    array = pa.array(rows, ATTRIBUTES)
    wanted = [(key, kind) for key in ("a", "http.route", "", "absent") for kind in ("string", "int", "double", "bool")]
    for start in (0, 1):
        for (key, kind), column in zip(wanted, extract(array[start:], wanted), strict=True):
            assert repr(column.to_pylist()) == repr([_expected(row, key, kind) for row in rows[start:]])


def test_levels() -> None:
    """Record, resource and scope attributes come to each record of theirs."""
    request: Any = REQUESTS[Signal.TRACES]()
    for name in ("one", "two"):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="host.name").value.string_value = name
        resource.resource.attributes.add(key="process.pid").value.int_value = len(name) * 100
        scope = resource.scope_spans.add()
        scope.scope.attributes.add(key="build").value.int_value = 7
        for status in (200, 500):
            scope.spans.add().attributes.add(key="http.response.status_code").value.int_value = status
    promote = [
        PromotedAttribute(attribute="host.name", level="resource"),
        PromotedAttribute(attribute="http.response.status_code", type="int"),
        PromotedAttribute(attribute="build", level="scope"),
        PromotedAttribute(attribute="absent", type="double"),
        PromotedAttribute(attribute="process.pid", level="resource", type="int"),
    ]
    found = to_rows([batch_from_message(request, Signal.TRACES)] * 2, promote)
    file = io.BytesIO()
    pq.write_table(found, file, store_schema=False)
    found = pq.read_table(file, use_threads=False)
    columns = [found[entry.name].to_pylist() for entry in promote]
    assert columns == [["one", "one", "two", "two"] * 2, [200, 500] * 4, ["7"] * 8, [None] * 8, [300] * 8]
    types = [pa.string(), pa.int64(), pa.string(), pa.float64(), pa.int64()]
    assert [found.schema.field(entry.name).type for entry in promote] == types


def test_plain_keys_do() -> None:
    """In a file, `promote: [http.route]` is enough; names are letters, digits and underscores."""
    read = TypeAdapter(tuple[PromotedAttribute, ...]).validate_python
    assert [entry.name for entry in read(["http.route", "URL-Path", "©", {"attribute": "x", "column": "y_1"}])] == [
        "http_route",
        "url_path",
        "attribute",
        "y_1",
    ]
    with pytest.raises(ValidationError, match="column"):
        PromotedAttribute(attribute="x", column="Not A Name")
