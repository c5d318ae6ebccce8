"""Attribute columns against loops over Python lists."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValueList

from telflow import attributes
from telflow.attributes import PutMode
from telflow.batch import TelemetryBatch
from telflow.errors import BatchError, DecodeError
from telflow.schema import ATTRIBUTES, ValueType
from tests.batches import batches, spans
from tests.strategies import thorough

KEYS = ["a", "http.route", "service.name", "", "ключ", "not there"]
TYPES = [pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary()]
Row = list[dict[str, Any]] | None


def column(*found: Any) -> pa.ListArray:
    """Attribute lists of spans, seen through a slice so that offsets are not zero."""
    return spans([{"x": "hidden"}, *found, {"y": "hidden"}]).records["attributes"].slice(1, len(found))


def plain(found: pa.ListArray) -> list[list[tuple[str, Any]] | None]:
    """Attribute lists as (key, value) pairs."""
    names = {1: "str", 2: "bool", 3: "int", 4: "double", 5: "bytes", 6: "bytes", 7: "bytes", 8: "int", 255: "bytes"}
    return [
        None if row is None else [(a["key"], a[names[a["type"]]] if a["type"] else None) for a in row]
        for row in found.to_pylist()
    ]


# Values out


def first(row: Row, name: str) -> dict[str, Any] | None:
    return next((a for a in row or [] if a["key"] == name), None)


def kind(found: dict[str, Any] | None) -> int:
    value = 0 if found is None else found["type"] or 0
    return value if 1 <= value <= 7 else 0


def as_text(found: dict[str, Any]) -> Any:
    """What text of a value stands for, JSON read back."""
    match kind(found):
        case ValueType.STRING:
            return found["str"]
        case ValueType.BOOL:
            return str(found["bool"]).lower()
        case ValueType.INT:
            return str(found["int"])
        case ValueType.DOUBLE:
            return number(found["double"])
        case ValueType.ARRAY:
            return nested(AnyValue(array_value=ArrayValue.FromString(found["bytes"])))
        case ValueType.KVLIST:
            return nested(AnyValue(kvlist_value=KeyValueList.FromString(found["bytes"])))
        case ValueType.BYTES:
            return base64.b64encode(found["bytes"]).decode()
    return None


def number(value: float) -> Any:
    if math.isnan(value):
        return "NaN"
    return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, value)


def nested(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return number(value.double_value)
        case "array_value":
            return [nested(v) for v in value.array_value.values]
        case "kvlist_value":
            return [(kv.key, nested(kv.value)) for kv in value.kvlist_value.values]
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case _:
            return None


def expected(row: Row, name: str, wanted: pa.DataType) -> Any:
    found = first(row, name)
    if found is None or not kind(found):
        return None
    if wanted == pa.string():
        return as_text(found)
    if wanted == pa.float64() and kind(found) == ValueType.INT:
        return float(found["int"])
    by_type = {pa.int64(): (3, "int"), pa.float64(): (4, "double"), pa.bool_(): (2, "bool"), pa.binary(): (7, "bytes")}
    wanted_kind, child = by_type[wanted]
    return found[child] if kind(found) == wanted_kind else None


def read_back(text: str | None, found: dict[str, Any] | None) -> Any:
    """A text in a column as what it stands for; JSON of doubles, arrays and maps is parsed."""
    if text is None or found is None or kind(found) not in (ValueType.DOUBLE, ValueType.ARRAY, ValueType.KVLIST):
        return text
    if text in ("NaN", "Infinity", "-Infinity"):
        return text
    return json.loads(text, object_pairs_hook=lambda pairs: pairs)


@thorough(25)
@given(batches(), st.sampled_from(KEYS), st.sampled_from([*TYPES, None]))
def test_extract_gives_what_a_loop_gives(batch: TelemetryBatch, name: str, wanted: pa.DataType | None) -> None:
    """For any batch, key and type, each row holds the first value of that key, converted as documented."""
    for found in (batch.records["attributes"], batch.resources["attributes"]):
        values = attributes.extract_attribute(found, name, wanted)
        values.validate(full=True)
        wanted_type = wanted or inferred([first(row, name) for row in found.to_pylist()])
        assert values.type == wanted_type
        for value, row in zip(values.to_pylist(), found.to_pylist(), strict=True):
            seen = read_back(value, first(row, name)) if wanted_type == pa.string() else value
            assert repr(seen) == repr(expected(row, name, wanted_type))


def inferred(found: list[dict[str, Any] | None]) -> pa.DataType:
    kinds = {kind(f) for f in found} - {0}
    if kinds == {ValueType.INT}:
        return pa.int64()
    if kinds and kinds <= {ValueType.INT, ValueType.DOUBLE}:
        return pa.float64()
    return {frozenset({2}): pa.bool_(), frozenset({7}): pa.binary()}.get(frozenset(kinds), pa.string())


@pytest.mark.parametrize(
    ("values", "result"),
    [
        (["x", "y"], pa.array(["x", "y"])),
        ([1, None, 2], pa.array([1, None, 2])),
        ([1, 2.5], pa.array([1.0, 2.5])),
        ([True, False], pa.array([True, False])),
        ([b"\0", b""], pa.array([b"\0", b""])),
        ([None], pa.array([None], pa.string())),
        (["x", 1, 2.5, True, b"\xff", None], pa.array(["x", "1", "2.5", "true", "/w==", None])),
        (
            [[1, "a", None, 1.0, b"\0", float("inf")], {"k": [True], "q": {}}, []],
            pa.array(['[1,"a",null,1.0,"AA==","Infinity"]', '{"k":[true],"q":{}}', "[]"]),
        ),
        (['in "quotes"', ['"\\\n\r\t\x01é']], pa.array(['in "quotes"', '["\\"\\\\\\n\\r\\t\\u0001é"]'])),
    ],
)
def test_the_type_follows_from_the_values(values: list[Any], result: pa.Array) -> None:
    """Without a type: the one the values have, float64 for mixed numbers, else text as the specification has it."""
    assert attributes.extract_attribute(column(*({"k": v} for v in values)), "k").equals(result)


def test_the_first_of_a_repeated_key_counts() -> None:
    """OTLP forbids repeated keys; where they come all the same, the first is it."""
    assert attributes.extract_attribute(column([("k", 1), ("k", 2)]), "k").to_pylist() == [1]


def test_a_type_no_attribute_has_is_refused() -> None:
    """The error names the types there are."""
    with pytest.raises(BatchError, match=r"attribute 'k': expected a type out of string, int64.*got date32"):
        attributes.extract_attribute(column({"k": 1}), "k", pa.date32())


def test_a_nested_value_that_is_no_protobuf_is_refused() -> None:
    """Bytes of an array that are not one give an error with the place, no crash."""
    item = {"key": "k", "type": ValueType.ARRAY, "str": None, "int": None, "double": None, "bool": None}
    broken = pa.array([[{**item, "bytes": b"\x0a\xff"}]], ATTRIBUTES)
    with pytest.raises(DecodeError, match=r"truncated|beyond"):
        attributes.extract_attribute(broken, "k")


# Values in


def put_reference(row: Row, values: dict[str, Any], mode: PutMode) -> Row:
    old = row or []
    new: list[dict[str, Any]] = []
    placed: set[str] = set()
    for attribute in old:
        name = attribute["key"]
        if name not in values:
            new.append(attribute)
        elif mode == "insert":
            new.append(attribute)
            placed.add(name)
        elif name not in placed:
            new.append(values[name])
            placed.add(name)
    if mode != "update":
        new += [value for name, value in values.items() if name not in placed]
    return None if row is None and not new else new


MODES: list[PutMode] = ["upsert", "insert", "update"]


@thorough(25)
@given(batches(), st.sets(st.sampled_from(KEYS), min_size=1), st.sampled_from(MODES), st.booleans())
def test_put_does_what_a_loop_does(batch: TelemetryBatch, names: set[str], mode: PutMode, per_row: bool) -> None:
    """Any values, for all rows or one for each, nulls among them, replace and add as documented."""
    empty = dict.fromkeys(("type", "str", "int", "double", "bool", "bytes"))
    for found in (batch.records["attributes"], batch.resources["attributes"]):
        rows = found.to_pylist()
        if per_row:
            values = {n: pa.array([None if i % 3 == 0 else i for i in range(len(rows))], pa.int32()) for n in names}
            items = [
                {} if i % 3 == 0 else {n: {"key": n, **empty, "type": 3, "int": i} for n in names}
                for i in range(len(rows))
            ]
        else:
            values = {name: f"new {name}" for name in names}
            items = [{n: {"key": n, **empty, "type": 1, "str": f"new {n}"} for n in names}] * len(rows)
        result = attributes.put_attributes(found, values, mode)
        result.validate(full=True)
        assert result.type == ATTRIBUTES
        wanted = [put_reference(row, item, mode) for row, item in zip(rows, items, strict=True)]
        assert repr(result.to_pylist()) == repr(wanted)


def test_values_of_every_plain_kind_can_be_put() -> None:
    """Each Python and Arrow type becomes the AnyValue it stands for."""
    values = {"s": "t", "b": True, "i": -(2**63), "d": 0.5, "y": b"\0"}
    assert plain(attributes.put_attributes(column({}), values)) == [list(values.items())]
    arrays = {
        "s": pa.array(["t"], pa.large_string()),
        "v": pa.array(["t"], pa.string_view()),
        "e": pa.array(["t"]).dictionary_encode(),
        "b": pa.array([True]),
        "i": pa.array([7], pa.uint16()),
        "d": pa.array([0.5], pa.float32()),
        "y": pa.chunked_array([pa.array([b"\0"], pa.large_binary())]),
        "n": pa.nulls(1),
    }
    wanted = [("s", "t"), ("v", "t"), ("e", "t"), ("b", True), ("i", 7), ("d", 0.5), ("y", b"\0")]
    assert plain(attributes.put_attributes(column({}), arrays)) == [wanted]


def test_scalars_and_arrays_may_be_mixed_in_one_call() -> None:
    """New attributes stand in the order in which they were given."""
    values = {"a": 1, "b": pa.array([2, 3]), "c": 4}
    assert plain(attributes.put_attributes(column({}, {"b": 0}), values)) == [
        [("a", 1), ("b", 2), ("c", 4)],
        [("b", 3), ("a", 1), ("c", 4)],
    ]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (pa.array([1, 2]), "attribute 'k': expected 1 values, one for each row, got 2"),
        (pa.array([[1]]), "attribute 'k': expected string, boolean, integer, float or binary values, got list"),
        (pa.array([2**64 - 1], pa.uint64()), "attribute 'k': .*18446744073709551615"),
        (2**63, "attribute 'k': expected str, bool, int of 64 bits"),
        ([1], "attribute 'k': expected str, .* got list"),
    ],
)
def test_what_no_attribute_can_hold_is_refused(value: Any, complaint: str) -> None:
    """The error names the key and what was expected."""
    with pytest.raises(BatchError, match=complaint):
        attributes.put_attributes(column({}), {"k": value})


# Keys


@thorough(30)
@given(batches(), st.sets(st.sampled_from(KEYS)))
def test_drop_does_what_a_loop_does(batch: TelemetryBatch, names: set[str]) -> None:
    """Every attribute of those keys goes, all others stay in order, null lists stay null."""
    for found in (batch.records["attributes"], batch.resources["attributes"]):
        result = attributes.drop_attributes(found, names)
        result.validate(full=True)
        wanted = [None if row is None else [a for a in row if a["key"] not in names] for row in found.to_pylist()]
        assert repr(result.to_pylist()) == repr(wanted)


def rename_reference(row: Row, names: dict[str, str]) -> Row:
    if row is None:
        return None
    targets = {names[a["key"]] for a in row if a["key"] in names}
    new: list[dict[str, Any]] = []
    taken: set[str] = set()
    for attribute in row:
        name = attribute["key"]
        if name in names:
            if names[name] not in taken:
                taken.add(names[name])
                new.append({**attribute, "key": names[name]})
        elif name not in targets:
            new.append(attribute)
    return new


@thorough(25)
@given(batches(), st.dictionaries(st.sampled_from(KEYS), st.sampled_from([*KEYS, "new"]), max_size=4))
def test_rename_does_what_a_loop_does(batch: TelemetryBatch, names: dict[str, str]) -> None:
    """Renaming all at once, onto existing keys and several to one, equals the documented rule."""
    for found in (batch.records["attributes"], batch.resources["attributes"]):
        result = attributes.rename_attributes(found, names)
        result.validate(full=True)
        assert repr(result.to_pylist()) == repr([rename_reference(row, names) for row in found.to_pylist()])


def test_keys_can_swap() -> None:
    """Two names exchanged in one call do not overwrite each other."""
    swapped = attributes.rename_attributes(column({"a": 1, "b": 2, "c": 3}), {"a": "b", "b": "a"})
    assert plain(swapped) == [[("b", 1), ("a", 2), ("c", 3)]]


def test_matching_keys_lists_each_once() -> None:
    """Keys are looked at once each, and only those of the rows that the column shows."""
    found = column({"http.a": 1, "b": 1}, {"http.a": 2, "http.c": 3})
    assert attributes.matching_keys(found, lambda name: name.startswith("http.")) == ["http.a", "http.c"]
    assert attributes.matching_keys(found, lambda name: name in {"x", "y"}) == []


def test_many_rows_at_once() -> None:
    """Columns longer than any word or buffer boundary come through whole."""
    count = 5000
    found = column(*({"i": i, **({"even": "yes"} if i % 2 == 0 else {})} for i in range(count)))
    changed = attributes.put_attributes(found, {"even": "no", "n": pa.array(np.arange(count))}, "insert")
    assert attributes.extract_attribute(changed, "n").to_pylist() == list(range(count))
    assert attributes.extract_attribute(changed, "even").to_pylist() == ["yes", "no"] * (count // 2)
