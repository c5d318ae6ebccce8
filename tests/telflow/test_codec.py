"""The codec against the official protobuf library as oracle: the same bytes are refused, the others mean the same."""

from __future__ import annotations

import struct
import sys
import threading
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.payloads import payload
from telflow import Signal, _native, schema
from telflow.codec import Encoding, Limits, decode, decode_many, encode, encode_split
from telflow.errors import EncodeError
from tests.oracle import REQUESTS, batch_from_message, normal_form
from tests.same import assert_same_batch
from tests.strategies import requests, thorough


@pytest.mark.parametrize("signal", Signal)
def test_decode_reads_what_the_official_library_reads(signal: Signal) -> None:
    """Any message the official library can write becomes the batch that its own reading gives."""

    @thorough(60)
    @given(requests(signal))
    def check(request: Any) -> None:
        assert_same_batch(decode(request.SerializeToString(), signal), batch_from_message(request, signal))

    check()


@pytest.mark.parametrize("signal", Signal)
def test_decode_many_is_concatenation_with_shared_places(signal: Signal) -> None:
    """Several payloads give the batch of the one payload they form when put together; tenants keep resources apart."""

    @thorough(20)
    @given(st.lists(requests(signal), max_size=3))
    def check(found: list[Any]) -> None:
        payloads = [request.SerializeToString() for request in found]
        assert_same_batch(decode_many(payloads, signal), decode(b"".join(payloads), signal))
        tenants = [None, "a", "b"][: len(payloads)]
        split = decode_many(payloads, signal, tenants=tenants)
        rows = [decode(payload, signal).resources.num_rows for payload in payloads]
        assert split.resources["tenant"].to_pylist() == [
            t for t, n in zip(tenants, rows, strict=True) for _ in range(n)
        ]

    check()


@pytest.mark.parametrize("signal", Signal)
def test_encode_keeps_the_meaning(signal: Signal) -> None:
    """What the official library reads from the encoded batch means what it read from the original."""

    @thorough(60)
    @given(requests(signal))
    def check(request: Any) -> None:
        encoded = encode(decode(request.SerializeToString(), signal))
        assert normal_form(REQUESTS[signal].FromString(encoded), signal) == normal_form(request, signal)

    check()


@pytest.mark.parametrize("signal", Signal)
def test_encode_takes_any_selection_of_rows(signal: Signal) -> None:
    """Slices (arrays with offsets), rows in any order and repeated rows are written as they are."""

    @thorough(40)
    @given(requests(signal), st.randoms(use_true_random=False))
    def check(request: Any, random: Any) -> None:
        batch = decode(request.SerializeToString(), signal)
        rows = [random.randrange(batch.num_rows) for _ in range(2 * batch.num_rows)]
        taken = batch.take(pa.array(rows, pa.int64()))
        for chosen, picked in ((taken, rows), (batch.slice(1), range(1, batch.num_rows))):
            # One record at a time is the reference: no grouping, no order, no offsets.
            singles = [encode(batch.take(pa.array([row], pa.int64()))) for row in picked]
            want = normal_form(REQUESTS[signal].FromString(b"".join(singles)), signal)
            assert normal_form(REQUESTS[signal].FromString(encode(chosen)), signal) == want

    check()


@pytest.mark.parametrize("signal", Signal)
def test_encode_split_loses_nothing_and_fills_requests(signal: Signal) -> None:
    """Every part is within the limit, together they mean the whole, and none has room for the record after it."""

    @thorough(40)
    @given(requests(signal), st.integers(0, 300))
    def check(request: Any, more: int) -> None:
        batch = decode(request.SerializeToString(), signal)
        largest = max((len(encode(batch.slice(row, 1))) for row in range(batch.num_rows)), default=0)
        parts = encode_split(batch, largest + more)
        whole = encode(batch)
        assert all(len(part) <= largest + more for part in parts)
        assert normal_form(REQUESTS[signal].FromString(b"".join(parts)), signal) == normal_form(request, signal)
        in_order = decode(whole, signal)
        at = 0
        for part in parts[:-1]:
            fits = decode(part, signal).num_rows
            assert encode(in_order.slice(at, fits)) == part
            assert len(encode(in_order.slice(at, fits + 1))) > largest + more
            at += fits
        assert encode(in_order.slice(at)) == parts[-1]

    check()


@pytest.mark.parametrize("signal", Signal)
def test_json_and_protobuf_are_two_spellings_of_one_batch(signal: Signal) -> None:
    """A batch written as JSON, whole or split, reads back as the batch written as protobuf does."""

    @thorough(40)
    @given(requests(signal))
    def check(request: Any) -> None:
        payload = encode(decode(request.SerializeToString(), signal))
        batch = decode(payload, signal)
        text = encode(batch, "json")
        assert_same_batch(decode(text, signal, "json"), batch)
        limit = max([len(encode(batch.slice(row, 1), "json")) for row in range(batch.num_rows)], default=2) + 100
        parts = encode_split(batch, limit, "json")
        assert all(len(part) <= limit for part in parts)
        assert_same_batch(decode_many(parts, signal, "json"), batch)

    check()


def test_protobuf_keeps_the_bits_of_every_nan() -> None:
    """A sign, a payload, a signalling one: as attributes, inside of lists, and as values of points."""
    for bits in (0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001):
        nan = struct.pack("<Q", bits)
        logs: Any = REQUESTS[Signal.LOGS]()
        attributes = logs.resource_logs.add().scope_logs.add().log_records.add().attributes
        attributes.add(key="one").value.double_value = 1.5
        attributes.add(key="list").value.array_value.values.add().double_value = 1.5
        metrics: Any = REQUESTS[Signal.METRICS]()
        metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
        metric.gauge.data_points.add(as_double=1.5)
        for signal, request in ((Signal.LOGS, logs), (Signal.METRICS, metrics)):
            sent = request.SerializeToString().replace(struct.pack("<d", 1.5), nan)
            assert encode(decode(sent, signal)).count(nan) == sent.count(nan) > 0, hex(bits)


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
@pytest.mark.parametrize("signal", Signal)
def test_encode_split_names_the_record_that_fits_nowhere(signal: Signal, encoding: Encoding) -> None:
    """A record larger than the limit is an error that says which and how large, not a loss."""
    batch = decode(payload(signal, 20), signal)
    with pytest.raises(EncodeError, match=r"0 .*needs \d+ bytes alone, the limit is 100"):
        encode_split(batch, 100, encoding)


@pytest.mark.parametrize("signal", Signal)
def test_the_schemas_of_rust_and_python_are_one(signal: Signal) -> None:
    """native/src/schema.rs says what telflow/schema.py says, strings as bytes: arrays of one are read as the other."""
    expected = [schema.RECORD_SCHEMAS[signal], schema.RESOURCES, schema.SCOPES]
    for spelt, want in zip(_native.schemas(signal), expected, strict=True):
        assert spelt.equals(pa.schema([field.with_type(_strings_as_bytes(field.type)) for field in want]))


def _strings_as_bytes(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(dtype):
        return pa.struct([field.with_type(_strings_as_bytes(field.type)) for field in dtype])
    if pa.types.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(_strings_as_bytes(dtype.value_type)))
    return pa.binary() if pa.types.is_string(dtype) else dtype


@pytest.mark.parametrize("depth", [9, 101])
def test_limits_say_what_is_allowed(depth: int) -> None:
    """A depth no request fits in, or beyond the official library's, is refused."""
    with pytest.raises(ValueError, match="depth: expected 10 to 100"):
        Limits(depth=depth)


def test_many_threads_encode_different_batches_at_once() -> None:
    """Threads that encode all signals while others use the interpreter do not wait for each other for ever."""
    batches = [decode(payload(signal, rows, rows), signal) for signal in Signal for rows in (1, 30, 200)]
    expected = [encode(batch) for batch in batches]
    wrong: list[int] = []

    def work(first: int) -> None:
        for step in range(20):
            number = (first + step) % len(batches)
            if encode(batches[number]) != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(8)]
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(switch_s)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
