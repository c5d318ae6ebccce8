"""`telflow.codec` with ``encoding="json"``: the same batches as from protobuf, errors in terms of the text."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow import Signal
from telflow.codec import Limits, decode, decode_many, encode, encode_split
from telflow.errors import DecodeError, EncodeError
from tests.oracle import REQUESTS, canonical
from tests.otlp_json import meaning, parse, to_dict
from tests.same import assert_same_batch
from tests.strategies import requests, thorough

SIGNALS = pytest.mark.parametrize("signal", list(Signal))


def text_of(request: Any) -> bytes:
    return json.dumps(to_dict(request)).encode()


@SIGNALS
@thorough(15)
@given(data=st.data())
def test_json_becomes_the_batch_that_protobuf_becomes(signal: Signal, data: st.DataObject) -> None:
    """A request's official JSON text and its bytes are one batch."""
    request = data.draw(requests(signal))
    assert_same_batch(decode(text_of(request), signal, "json"), decode(meaning(request), signal))


@SIGNALS
@thorough(10)
@given(data=st.data())
def test_many_texts_become_one_batch(signal: Signal, data: st.DataObject) -> None:
    """Texts share resources and scopes as payloads do, and tenants keep them apart."""
    found = data.draw(st.lists(requests(signal), max_size=3))
    tenants = [None, "a", "b"][: len(found)]
    texts, payloads = [text_of(r) for r in found], [meaning(r) for r in found]
    assert_same_batch(
        decode_many(texts, signal, "json", tenants=tenants), decode_many(payloads, signal, tenants=tenants)
    )


@SIGNALS
def test_members_in_any_order_make_the_same_batch(signal: Signal) -> None:
    """Names in alphabetical order, as many JSON writers sort them: the columns do not care."""

    @thorough(10)
    @given(requests(signal))
    def check(request: Any) -> None:
        text = json.dumps(to_dict(request), sort_keys=True).encode()
        assert_same_batch(decode(text, signal, "json"), decode(meaning(request), signal))

    check()


def test_unknown_names_are_counted_over_all_texts() -> None:
    """What was skipped stands on the batch."""
    texts = [b'{"a":1,"resourceSpans":[{"b":2}]}', b'{"c":{"d":3}}']
    assert decode_many(texts, Signal.TRACES, "json").unknown_fields == 3


def test_error_names_payload_and_place() -> None:
    """One bad text among several is named; alone it needs no number."""
    bad = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xy"}]}]}]}'
    place = "resourceSpans[0].scopeSpans[0].spans[0].traceId"
    with pytest.raises(DecodeError) as caught:
        decode_many([b"{}", bad], Signal.TRACES, "json")
    assert (caught.value.offset, caught.value.path) == (bad.index(b'"xy"'), f"payloads[1].{place}")
    with pytest.raises(DecodeError) as caught:
        decode(bad, Signal.TRACES, "json")
    assert caught.value.path == place


def test_limits_hold_for_the_text() -> None:
    """Size is the text's own, and so is depth; what a text within its limit becomes in protobuf may be larger."""
    with pytest.raises(DecodeError, match="payload of 3 bytes, the limit is 2"):
        decode(b"{ }", Signal.LOGS, "json", limits=Limits(payload_bytes=2))
    nested = b'{"arrayValue":{"values":[' * 4 + b"{}" + b"]}}" * 4
    deep = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":' + nested + b"}]}]}]}"
    assert decode(deep, Signal.LOGS, "json").num_rows == 1
    with pytest.raises(DecodeError, match="nested deeper"):
        decode(deep, Signal.LOGS, "json", limits=Limits(depth=10))
    bounds = b",".join([b"0"] * 1000)
    head = b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"explicitBounds":['
    text = head + bounds + b"]}]}}]}]}]}"
    batch = decode(text, Signal.METRICS, "json", limits=Limits(payload_bytes=len(text)))
    assert batch.records["explicit_bounds"].to_pylist() == [[0.0] * 1000]


def test_unknown_encoding_is_refused() -> None:
    """Neither of the two encodings: an error of the caller."""
    with pytest.raises(ValueError, match="expected protobuf or json, got 'xml'"):
        decode(b"", Signal.LOGS, "xml")  # type: ignore[arg-type]


@SIGNALS
@thorough(15)
@given(data=st.data())
def test_a_batch_survives_json(signal: Signal, data: st.DataObject) -> None:
    """Encoding as JSON and decoding gives the batch back, and says what encoding as protobuf says."""
    batch = decode(meaning(data.draw(requests(signal))), signal)
    text = encode(batch, "json")
    assert canonical(parse(signal, text)) == canonical(REQUESTS[signal].FromString(encode(batch)))
    assert_same_batch(decode(text, signal, "json"), decode(encode(batch), signal))


@SIGNALS
@thorough(10)
@given(data=st.data())
def test_split_texts_lose_nothing(signal: Signal, data: st.DataObject) -> None:
    """Texts within the limit, whose records together are those of the batch, in the order of `encode`."""
    batch = decode(b"".join(meaning(r) for r in data.draw(st.lists(requests(signal), max_size=3))), signal)
    alone = [len(encode(batch.slice(row, 1), "json")) for row in range(batch.num_rows)]
    limit = max(alone, default=2) + data.draw(st.integers(0, 2000))
    texts = encode_split(batch, limit, "json")
    assert all(len(text) <= limit for text in texts)
    whole = decode(encode(batch), signal)
    assert_same_batch(decode_many(texts, signal, "json"), whole)
    if max(alone, default=0) > 3:
        with pytest.raises(EncodeError, match=rf"needs {max(alone)} bytes alone, the limit is {max(alone) - 1}"):
            encode_split(batch.take(pa.array([alone.index(max(alone))])), max(alone) - 1, "json")


def test_split_texts_are_well_filled() -> None:
    """Records of about one length fill each text but the last; long ones among them fit too."""
    records = [{"body": {"stringValue": "x" * (5000 if i % 100 == 7 else 50)}} for i in range(1000)]
    text = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()
    batch = decode(text, Signal.LOGS, "json")
    texts = encode_split(batch, 20_000, "json")
    assert [len(text) for text in texts[:-1] if not 12_000 <= len(text) <= 20_000] == []
    assert_same_batch(decode_many(texts, Signal.LOGS, "json"), batch)
    assert encode_split(batch.slice(0, 0), 20_000, "json") == [b"{}"]
