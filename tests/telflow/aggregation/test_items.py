"""What is counted: one record for each span, event, metric, data point and log record."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from google.protobuf.message import Message
from hypothesis import given
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telflow import codec
from telflow.aggregation.items import Item, items_of
from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from tests.countable import countable_requests, countables, told
from tests.strategies import thorough


@pytest.mark.parametrize("item", list(Item))
@thorough(20)
@given(requests=countable_requests())
def test_equal_to_the_messages(item: Item, requests: Sequence[tuple[Signal, Message]]) -> None:
    """In their order, with their own attributes, and those of resource and scope; other signals have none."""
    for signal, request in requests:
        found = items_of(codec.decode(request.SerializeToString(), signal, tenant="acme"), item)
        expected = list(countables([(signal, request)], item.value))
        if not expected:
            assert found is None
            continue
        assert found is not None
        assert found.signal is item.signal
        assert found.num_rows == len(expected)
        assert set(found.tenants().to_pylist()) == {"acme"}
        for level in ("record", "resource", "scope"):
            if level == "record" and item is Item.METRICS:
                continue  # has those of its first point
            own = "own" if level == "record" else level
            keys = {key for e in expected for key in getattr(e, own)}
            for key in keys:
                texts = found.attribute(key, level=level).cast("string").to_pylist()
                assert [text is None for text in texts] == [key not in getattr(e, own) for e in expected]


def test_an_event_counts_when_its_span_ended() -> None:
    """Its own time is the observed time; trace and span stay with it."""
    found = items_of(codec.decode(_with_event().SerializeToString(), Signal.TRACES), Item.SPAN_EVENTS)
    assert found is not None
    (row,) = found.records.to_pylist()
    assert (row["time_unix_nano"], row["observed_time_unix_nano"], row["event_name"]) == (9, 5, "exception")
    assert (row["trace_id"], row["span_id"]) == (bytes(range(16)), bytes(range(8)))
    assert told({a["key"]: a["str"] for a in row["attributes"]}) == told({"exception.type": "E"})


def _with_event() -> Message:
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=bytes(range(16)), span_id=bytes(range(8)), start_time_unix_nano=1, end_time_unix_nano=9)
    )
    event = span.events.add(name="exception", time_unix_nano=5)
    attribute = event.attributes.add(key="exception.type")
    attribute.value.string_value = "E"
    return request


@pytest.mark.parametrize("item", list(Item))
def test_nothing_gives_nothing(item: Item) -> None:
    """An empty batch of any signal."""
    assert all(items_of(TelemetryBatch.empty(signal), item) is None for signal in Signal)
