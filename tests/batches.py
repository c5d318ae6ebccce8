"""Batches for tests: drawn by Hypothesis, or written down in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from tests.oracle import batch_from_message
from tests.strategies import requests

__all__ = ["any_value", "batches", "key_value", "spans"]

TENANTS = [None, "acme", "globex", ""]


@st.composite
def batches(draw: st.DrawFn, signal: Signal | None = None) -> TelemetryBatch:
    """Any batch, of one tenant; of any signal unless one is given."""
    wanted = draw(st.sampled_from(list(Signal))) if signal is None else signal
    return batch_from_message(draw(requests(wanted)), wanted, draw(st.sampled_from(TENANTS)))


def any_value(value: object) -> AnyValue:
    """The AnyValue a plain Python value stands for; None is the empty one."""
    result = AnyValue()
    match value:
        case bool():
            result.bool_value = value
        case str():
            result.string_value = value
        case int():
            result.int_value = value
        case float():
            result.double_value = value
        case bytes():
            result.bytes_value = value
        case dict():
            result.kvlist_value.SetInParent()
            result.kvlist_value.values.extend(key_value(k, v) for k, v in value.items())
        case list():
            result.array_value.SetInParent()
            result.array_value.values.extend(any_value(v) for v in value)
        case None:
            pass
        case _:
            raise TypeError(value)
    return result


def key_value(key: str, value: object) -> KeyValue:
    """A KeyValue out of plain Python values."""
    return KeyValue(key=key, value=any_value(value))


def spans(
    attributes: Sequence[Mapping[str, Any] | Sequence[tuple[str, Any]]],
    *,
    resource: Mapping[str, Any] | None = None,
    scope: str | None = "test",
    tenant: str | None = None,
    first: int = 0,
) -> TelemetryBatch:
    """One span for each of `attributes`, named span-<n> from `first` on; a list of pairs may repeat a key."""
    request = ExportTraceServiceRequest()
    in_resource = request.resource_spans.add()
    if resource is not None:
        in_resource.resource.SetInParent()
        in_resource.resource.attributes.extend(key_value(k, v) for k, v in resource.items())
    in_scope = in_resource.scope_spans.add()
    if scope is not None:
        in_scope.scope.name = scope
    for number, found in enumerate(attributes, first):
        span = in_scope.spans.add(
            name=f"span-{number}",
            trace_id=number.to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            start_time_unix_nano=1_700_000_000_000_000_000 + number,
            end_time_unix_nano=1_700_000_000_000_000_000 + 2 * number,
        )
        pairs = found.items() if isinstance(found, Mapping) else found
        span.attributes.extend(key_value(k, v) for k, v in pairs)
    return batch_from_message(request, Signal.TRACES, tenant)
