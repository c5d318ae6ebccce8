"""The codec's short cuts, for short attributes and for tables that come again and again: nobody sees them."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from bench.payloads import payload
from telflow import Signal, TelemetryBatch, _native
from telflow.codec import decode, encode
from telflow.errors import EncodeError
from telflow.schema import ValueType
from tests.oracle import REQUESTS, batch_from_message, normal_form
from tests.same import assert_same_batch

_SIZES = [0, 1, 2, 30, 31, 32, 33, 34, 60, 61, 62, 63, 64, 65, 66, 119, 120, 121, 125, 126, 127, 128, 129, 300]
_INTS = [0, 1, -1, -(2**63), 2**63 - 1, *(2**bits + step for bits in (7, 14, 21, 28, 35) for step in (-1, 0, 1))]


def _attributes() -> list[KeyValue]:
    values: list[AnyValue | None] = [AnyValue(string_value="é" * (size // 2) + "v" * (size % 2)) for size in _SIZES]
    values += [AnyValue(int_value=number) for number in _INTS]
    values += [AnyValue(bool_value=flag) for flag in (True, False)]
    values += [AnyValue(double_value=0.5), AnyValue(bytes_value=b"\xff" * 40), AnyValue(), None]
    return [KeyValue(key="k" * size, value=value) for size, value in itertools.product(_SIZES, values)]


def test_attributes_of_every_size() -> None:
    """Keys and values of every size at which another way of copying begins are read and written as they are."""
    request: Any = REQUESTS[Signal.TRACES]()
    spans = request.resource_spans.add().scope_spans.add().spans
    attributes = _attributes()
    for at in range(0, len(attributes), 7):
        spans.add(attributes=attributes[at : at + 7], name="n" * (at % 70), span_id=bytes([1] * 8))
    data = request.SerializeToString()
    batch = decode(data, Signal.TRACES)
    assert_same_batch(batch, batch_from_message(request, Signal.TRACES))
    assert encode(batch) == data


def test_what_lies_below_a_null_is_not_written() -> None:
    """A null in a column of values reads as the default of its type, also where bytes lie below it."""
    batch = decode(payload(Signal.TRACES, 64), Signal.TRACES)
    lists = batch.records["attributes"]
    child = lists.values
    columns = {field.name: child.field(field.name) for field in child.type}
    half = np.arange(len(child)) % 2 == 0
    for name in ("str", "int", "bool"):
        column = columns[name]
        valid = np.asarray(column.is_valid()) & half
        mask = pa.array(valid).buffers()[1]
        columns[name] = pa.Array.from_buffers(column.type, len(column), [mask, *column.buffers()[1:]])
    hidden = pa.StructArray.from_arrays(list(columns.values()), fields=list(child.type))
    lists = pa.ListArray.from_arrays(lists.offsets, hidden, type=lists.type)
    records = batch.records.set_column(batch.records.schema.get_field_index("attributes"), "attributes", lists)
    records = records.cast(batch.records.schema)
    message: Any = REQUESTS[Signal.TRACES].FromString(
        encode(TelemetryBatch(Signal.TRACES, records, batch.resources, batch.scopes))
    )
    spans = [span for r in message.resource_spans for s in r.scope_spans for span in s.spans]
    values = [attribute.value for span in spans for attribute in span.attributes]
    types = columns["type"].to_pylist()
    expected = {
        ValueType.STRING: AnyValue(string_value=""),
        ValueType.INT: AnyValue(int_value=0),
        ValueType.BOOL: AnyValue(bool_value=False),
    }
    assert len(values) == len(types)
    assert all(values[i] == expected[ValueType(types[i])] for i in range(1, len(values), 2))
    assert any(values[i].string_value for i in range(0, len(values), 2))


@pytest.mark.parametrize("signal", Signal)
def test_tables_of_another_layout_are_refused_and_leave_no_trace(signal: Signal) -> None:
    """Encoding remembers how earlier tables looked: others are still refused, and the right ones still written."""
    data = payload(signal, 64)
    batch = decode(data, signal)
    wrong = batch.records.drop_columns(["scope"])
    cast = batch.scopes.cast(
        pa.schema([f.with_type(pa.large_string()) if f.name == "version" else f for f in batch.scopes.schema])
    )
    for _ in range(2):
        with pytest.raises(EncodeError, match="column scope: missing"):
            _native.encode(signal, False, wrong, batch.resources, batch.scopes)
        with pytest.raises(EncodeError, match="column version: unexpected type"):
            _native.encode(signal, False, batch.records, batch.resources, cast)
        with pytest.raises((TypeError, ValueError, AttributeError)):
            _native.encode(signal, False, batch.records.to_pylist(), batch.resources, batch.scopes)
        with pytest.raises((TypeError, ValueError, AttributeError)):
            _native.encode(signal, False, pa.Table.from_batches([batch.records]), batch.resources, batch.scopes)
        assert normal_form(REQUESTS[signal].FromString(encode(batch)), signal) == normal_form(
            REQUESTS[signal].FromString(data), signal
        )


def test_threads_encode_at_the_same_time() -> None:
    """Each thread gets the bytes of its own batch."""
    batches = [decode(payload(signal, 64, seed), signal) for signal in Signal for seed in range(4)]
    alone = [encode(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(encode, batches * 25))
    assert together == alone * 25
