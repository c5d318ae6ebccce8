"""Records over a size are left out of a request, exactly these, and everything else stays as it was."""

from __future__ import annotations

from json import dumps
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow import Signal
from telflow.errors import DecodeError
from telflow.screening import count_records, screen
from tests.oracle import REQUESTS, canonical
from tests.otlp_json import parse, to_dict
from tests.strategies import requests, thorough

_KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


def _varint_len(number: int) -> int:
    return max(1, (number.bit_length() + 6) // 7)


def _reference(request: Any, signal: Signal, most: int) -> int:
    """Remove what is too large from an official message; returns how many records that were."""
    rejected = 0
    if signal is Signal.METRICS:
        for envelope in request.resource_metrics:
            for scope in envelope.scope_metrics:
                rejected += _trim_metrics(scope, most)
        return rejected
    envelopes = request.resource_spans if signal is Signal.TRACES else request.resource_logs
    for envelope in envelopes:
        for scope in envelope.scope_spans if signal is Signal.TRACES else envelope.scope_logs:
            rejected += _trim(scope.spans if signal is Signal.TRACES else scope.log_records, most)
    return rejected


def _trim(records: Any, most: int) -> int:
    keep = [record for record in records if record.ByteSize() <= most]
    rejected = len(records) - len(keep)
    del records[:]
    records.extend(keep)
    return rejected


def _trim_metrics(scope: Any, most: int) -> int:
    rejected, keep = 0, []
    for metric in scope.metrics:
        kind = metric.WhichOneof("data")
        points = getattr(metric, kind).data_points if kind else []
        sizes = [point.ByteSize() for point in points]
        if metric.ByteSize() - sum(1 + _varint_len(size) + size for size in sizes) > most:
            rejected += len(sizes)
            continue
        if kind:
            rejected += _trim(points, most)
        keep.append(metric)
    del scope.metrics[:]
    scope.metrics.extend(keep)
    return rejected


@pytest.mark.parametrize("signal", list(Signal))
@thorough(60)
@given(data=st.data(), most=st.sampled_from([0, 1, 10, 40, 100]), json=st.booleans())
def test_exactly_the_large_records_are_left_out(signal: Signal, data: st.DataObject, most: int, json: bool) -> None:
    """As the official library, told to remove them, would have it; in protobuf whatever the request was written in."""
    request = data.draw(requests(signal))
    payload = dumps(to_dict(request)).encode() if json else request.SerializeToString()
    found = screen(payload, signal, "json" if json else "protobuf", most)
    if json:
        request = parse(signal, payload)
    rejected = _reference(request, signal, most)
    if len(payload) <= most or not rejected:
        assert found is None
    else:
        assert found is not None
        assert found.rejected == rejected
        assert canonical(REQUESTS[signal].FromString(found.payload)) == canonical(request)


@pytest.mark.parametrize("signal", list(Signal))
@thorough(60)
@given(data=st.data())
def test_records_are_counted_without_decoding(signal: Signal, data: st.DataObject) -> None:
    """As many as the official library finds."""
    request = data.draw(requests(signal))
    payload = request.SerializeToString()
    assert count_records(payload, signal, "protobuf") == _reference(request, signal, -1)
    assert count_records(dumps(to_dict(request)).encode(), signal, "json") == _reference(request, signal, -1)


def test_a_malformed_request_has_no_records() -> None:
    """What cannot be walked through is not guessed."""
    assert count_records(b"\x0a\xff", Signal.LOGS, "protobuf") == 0
    assert count_records(b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{}', Signal.LOGS, "json") == 0


@pytest.mark.parametrize("signal", list(Signal))
def test_a_small_request_is_not_looked_into(signal: Signal) -> None:
    """Not even when it is garbage: decoding will say so."""
    assert screen(b"\xff" * 100, signal, "protobuf", 100) is None


def test_a_malformed_request_is_left_to_the_decoder_or_refused() -> None:
    """Nothing is left out of what cannot be read as a whole."""
    request: Any = REQUESTS[Signal.LOGS]()
    scope = request.resource_logs.add().scope_logs.add()
    scope.log_records.add().body.string_value = "Q" * 200
    payload = request.SerializeToString()
    assert screen(b"\x0a\xff" + bytes(500), Signal.LOGS, "protobuf", 100) is None
    with pytest.raises(DecodeError, match="invalid UTF-8"):
        screen(payload.replace(b"QQQ", b"\xff\xff\xff"), Signal.LOGS, "protobuf", 100)
    with pytest.raises(DecodeError):
        screen(b"{" * 200, Signal.LOGS, "json", 100)
