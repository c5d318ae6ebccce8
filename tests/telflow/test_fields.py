"""References to values of records: as keys and as numbers, wherever they are, as read one by one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from pydantic import ValidationError

from telflow import codec
from telflow.batch import TelemetryBatch
from telflow.fields import FieldRef, Records, as_attribute, event_times, needed_columns, parse_numbers
from telflow.schema import Signal
from tests.batches import key_value
from tests.spans import EPOCH, SECOND, Span, spans_batch
from tests.strategies import thorough

_values = st.sampled_from(["dev", "12.5", "+3", " 7 ", "1e3", "0x10", "", 7, -2, 2.5, float("nan"), True])
_rows = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["a", "b"]), _values, max_size=2),
        st.dictionaries(st.sampled_from(["a", "b"]), _values, max_size=2),
        st.dictionaries(st.sampled_from(["a", "b"]), _values, max_size=1),
        st.one_of(st.none(), _values),
    ),
    max_size=8,
)
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")


def _batch(rows: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], Any]]) -> TelemetryBatch:
    request = ExportLogsServiceRequest()
    for own, resource, scope, body in rows:
        of_resource = request.resource_logs.add()
        of_resource.resource.attributes.extend(key_value(*item) for item in resource.items())
        of_scope = of_resource.scope_logs.add()
        of_scope.scope.name = "test"
        of_scope.scope.attributes.extend(key_value(*item) for item in scope.items())
        record = of_scope.log_records.add(time_unix_nano=1)
        record.attributes.extend(key_value(*item) for item in own.items())
        if body is not None:
            record.body.CopyFrom(key_value("", body).value)
    return codec.decode(request.SerializeToString(), Signal.LOGS)


def _records(batch: TelemetryBatch) -> Records:
    return Records(batch.signal, batch.records, batch.resources, batch.scopes)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return "NaN" if _is_nan(value) else str(value)


def _parsed(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


def _number(value: Any, *, parse: bool) -> float | None:
    if parse:
        return _parsed(_text(value))
    return None if isinstance(value, str | bool | None) or _is_nan(value) else float(value)


@thorough(60)
@given(
    rows=_rows,
    level=st.sampled_from(["any", "record", "resource", "scope"]),
    kind=st.sampled_from(["string", "int", "double", "bool", "any"]),
    parse=st.booleans(),
)
def test_attributes_as_keys_and_numbers(rows: list[Any], level: str, kind: str, parse: bool) -> None:
    """On the record, or else its resource, or else its scope; of the kind asked for."""
    field = FieldRef.model_validate({"name": "a", "level": level, "type": kind, "parse": parse})
    records = _records(_batch(rows))
    places = {"any": (0, 1, 2), "record": (0,), "resource": (1,), "scope": (2,)}[level]
    found = [[row[place]["a"] for place in places if "a" in row[place]] for row in rows]
    keys = records.key(field).to_pylist()
    numbers = [None if np.isnan(n) else float(n) for n in records.numbers(field)]
    for key, number, values in zip(keys, numbers, found, strict=True):
        # A value of another kind is none, so the next place is asked.
        assert number == next((n for v in values if (n := _number(v, parse=parse)) is not None or parse), None)
        _check_key(key, values, kind)


def _check_key(key: Any, values: list[Any], kind: str) -> None:
    fits: Callable[[Any], bool] = {
        "string": lambda _: True,
        "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
        "double": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
        "bool": lambda v: isinstance(v, bool),
        "any": lambda _: True,
    }[kind]
    chosen = next((v for v in values if fits(v)), None)
    match kind:
        case "string":
            assert key == _text(chosen)
        case "any" if chosen is not None:
            kinds = {str: 1, bool: 2, int: 3, float: 4}
            assert (key[0], key[1:].decode().lower()) == (kinds[type(chosen)], (_text(chosen) or "").lower())
        case "double" if chosen is not None:
            assert key == pytest.approx(chosen, nan_ok=True)
        case _:
            assert key == chosen


@thorough(40)
@given(rows=_rows, parse=st.booleans())
def test_bodies(rows: list[Any], parse: bool) -> None:
    """As text if they are text, a number or a boolean; as a number if they are one, or text that is."""
    records = _records(_batch(rows))
    body = FieldRef(name="body", parse=parse)
    assert records.key(body).to_pylist() == ["nan" if _is_nan(row[3]) else _text(row[3]) for row in rows]
    numbers = [None if np.isnan(n) else float(n) for n in records.numbers(body)]
    assert numbers == [_number(row[3], parse=parse) for row in rows]


@thorough(40)
@given(st.lists(st.one_of(st.none(), st.text("0123456789.eE+- x", max_size=8)), max_size=6))
def test_text_that_is_a_number(texts: list[str | None]) -> None:
    """As Python reads it, unless it is more than digits, sign, point and exponent."""
    assert parse_numbers(pa.array(texts, pa.string())).to_pylist() == [_parsed(text) for text in texts]


def test_a_part_of_a_text() -> None:
    """What a group of a regular expression matches: as key, as number, with a default."""
    records = _records(_batch([({"a": text}, {}, {}, None) for text in ("took 5 ms", "took x ms", "rest")]))
    field = FieldRef(name="a", pattern=r"took (?P<value>\S+) ms")
    assert field.dtype == pa.string()
    assert records.key(field).to_pylist() == ["5", "x", None]
    assert np.isnan(records.numbers(field)).tolist() == [False, True, True]
    assert records.numbers(field)[0] == 5
    assert records.key(field.model_copy(update={"default": "-"})).to_pylist() == ["5", "x", "-"]


def test_a_part_of_a_resource_attribute_is_taken_once_per_resource() -> None:
    """The result keeps the form in which many rows share one value."""
    records = _records(_batch([({}, {"a": "host-7"}, {}, None)] * 3))
    field = FieldRef(name="a", level="resource", pattern="host-(?P<value>[0-9]+)")
    assert isinstance(records.key(field), pa.DictionaryArray)
    assert records.key(field).to_pylist() == ["7"] * 3
    assert records.numbers(field).tolist() == [7.0] * 3


def test_columns_and_times() -> None:
    """Fixed fields win over attributes of their name, unless attributes are asked for."""
    batch = spans_batch([Span(EPOCH + 2 * SECOND, duration=SECOND, name="GET /", attributes={"name": "mine"})])
    records = _records(batch)
    assert records.key(FieldRef(name="name")).to_pylist() == ["GET /"]
    assert records.key(FieldRef(name="name", source="attribute")).to_pylist() == ["mine"]
    assert records.key(FieldRef(name="tenant")).to_pylist() == ["acme"]
    assert records.numbers(FieldRef(name="duration_s")).tolist() == [1.0]
    assert records.times().tolist() == event_times(Signal.TRACES, batch.records).tolist() == [EPOCH + 2 * SECOND]
    fields = [FieldRef(name="duration_s"), FieldRef(name="region"), FieldRef(name="name", level="scope")]
    assert needed_columns(fields, Signal.TRACES) == [
        "resource",
        "scope",
        "start_time_unix_nano",
        "end_time_unix_nano",
        "attributes",
    ]


def test_a_log_record_without_a_time_happened_when_it_was_observed() -> None:
    """As the logs data model has it."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(time_unix_nano=5, observed_time_unix_nano=9)
    records.add(observed_time_unix_nano=7)
    batch = codec.decode(request.SerializeToString(), Signal.LOGS)
    assert event_times(Signal.LOGS, batch.records).tolist() == [5, 7]


def test_keys_as_attributes() -> None:
    """Integers of 64 bits, doubles, identifiers as hexadecimal text."""
    assert as_attribute(pa.array([1], pa.uint8())).type == pa.int64()
    assert as_attribute(pa.array([1.5], pa.float32())).type == pa.float64()
    assert as_attribute(pa.array([b"\x01\xff", None])).to_pylist() == ["01ff", None]
    assert as_attribute(pa.array(["x"])).to_pylist() == ["x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "("}, "pattern: expected a regular expression"),
        ({"pattern": "(?P<other>x)"}, "pattern: expected a group"),
        ({"type": "int", "default": "x"}, "default: expected a value of type int"),
        ({"type": "bool", "default": "x"}, "default: expected a value of type bool"),
        ({"name": ""}, "at least 1 character"),
    ],
)
def test_impossible_references_are_refused(options: dict[str, Any], message: str) -> None:
    """With what was expected."""
    with pytest.raises(ValidationError, match=message):
        FieldRef.model_validate({"name": "a", **options})


def test_defaults_of_every_type() -> None:
    """As text, as what they are, or typed."""
    for kind, default, expected in (
        ("string", 7, "7"),
        ("int", 7, 7),
        ("double", 1.5, 1.5),
        ("bool", True, True),
        ("any", 7, b"\x037"),
    ):
        field = FieldRef.model_validate({"name": "a", "type": kind, "default": default})
        assert field.default_value().as_py() == expected
        assert _records(_batch([({}, {}, {}, None)])).key(field).to_pylist() == [expected]
