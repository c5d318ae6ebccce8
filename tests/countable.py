"""Small OTLP requests to count and add up, drawn by Hypothesis; what is in them; what a step makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.operators import KeyedStream
from bytewax.testing import TestingSink, TestingSource, run_main
from google.protobuf.message import Message
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telflow import codec
from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from tests.batches import key_value
from tests.spans import EPOCH, points

NOW = EPOCH + 3_600_000_000_000
Attributes: TypeAlias = frozenset[tuple[str, str, Any]]
"""Names, kinds and values: 1 and "1" are two."""


@dataclass(frozen=True)
class Countable:
    """Something that can be counted, as the official library reads it."""

    resource: Mapping[str, Any]
    scope: Mapping[str, Any]
    own: Mapping[str, Any]
    name: str = ""
    severity: int = 0
    body: Any = None
    time: int = EPOCH

    def value(self, key: str) -> Any:
        """The attribute of the record, or else of its resource or scope."""
        return self.own.get(key, self.resource.get(key, self.scope.get(key)))


def told(attributes: Mapping[str, Any]) -> Attributes:
    """Attributes to compare, in no order."""
    return frozenset((key, type(value).__name__, value) for key, value in attributes.items())


_values = st.sampled_from(["dev", "prod", "7", "12.5", "-3", "3 ms", 7, -2, 2.5, True])
_attributes = st.dictionaries(st.sampled_from(["env", "code", "size"]), _values, max_size=3)
_records = st.tuples(_attributes, st.sampled_from(["GET /", "load"]), st.lists(_attributes, max_size=3))
_requests = st.tuples(
    st.sampled_from(list(Signal)),
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["service.name", "env", "host"]), _values, max_size=3),
            st.dictionaries(st.sampled_from(["env", "library"]), _values, max_size=1),
            st.lists(_records, max_size=5),
        ),
        max_size=3,
    ),
)


@st.composite
def countable_requests(draw: st.DrawFn) -> list[tuple[Signal, Message]]:
    """Some requests of any signals."""
    return [(signal, _message(signal, content)) for signal, content in draw(st.lists(_requests, max_size=4))]


def _message(signal: Signal, content: Sequence[Any]) -> Message:
    request: Any = {
        Signal.TRACES: ExportTraceServiceRequest,
        Signal.LOGS: ExportLogsServiceRequest,
        Signal.METRICS: ExportMetricsServiceRequest,
    }[signal]()
    for resource_attributes, scope_attributes, records in content:
        of_resource = getattr(request, f"resource_{'spans' if signal is Signal.TRACES else signal.value}").add()
        of_resource.resource.attributes.extend(key_value(*item) for item in resource_attributes.items())
        scope = getattr(of_resource, f"scope_{'spans' if signal is Signal.TRACES else signal.value}").add()
        scope.scope.name = "test"
        scope.scope.attributes.extend(key_value(*item) for item in scope_attributes.items())
        for number, (attributes, name, inner) in enumerate(records):
            own = [key_value(*item) for item in attributes.items()]
            match signal:
                case Signal.TRACES:
                    span = scope.spans.add(name=name, start_time_unix_nano=EPOCH, end_time_unix_nano=EPOCH + number)
                    span.attributes.extend(own)
                    for of_event in inner:
                        event = span.events.add(name=f"{name} event", time_unix_nano=1)
                        event.attributes.extend(key_value(*item) for item in of_event.items())
                case Signal.LOGS:
                    record = scope.log_records.add(time_unix_nano=EPOCH + number, severity_number=len(inner) * 4)
                    record.attributes.extend(own)
                    record.body.CopyFrom(key_value("", attributes.get("size", "no number")).value)
                case _:
                    metric = scope.metrics.add(name=f"{name} {number}")
                    for of_point in (attributes, *inner):
                        point = metric.gauge.data_points.add(time_unix_nano=EPOCH, as_int=1)
                        point.attributes.extend(key_value(*item) for item in of_point.items())
    return request  # type: ignore[no-any-return]


def countables(requests: Sequence[tuple[Signal, Message]], section: str) -> Iterator[Countable]:
    """Everything of a section, such as `span_events`, read from the messages one by one."""
    wanted = {"spans": Signal.TRACES, "span_events": Signal.TRACES, "logs": Signal.LOGS}.get(section, Signal.METRICS)
    for signal, request in requests:
        if signal is not wanted:
            continue
        word = "spans" if signal is Signal.TRACES else signal.value
        for of_resource in getattr(request, f"resource_{word}"):
            resource = _plain(of_resource.resource.attributes)
            for of_scope in getattr(of_resource, f"scope_{word}"):
                yield from _of_scope(section, of_scope, resource, _plain(of_scope.scope.attributes))


def _of_scope(section: str, scope: Any, resource: dict[str, Any], of_scope: dict[str, Any]) -> Iterator[Countable]:
    match section:
        case "spans":
            found = [(span.attributes, span.name) for span in scope.spans]
        case "span_events":
            found = [(event.attributes, event.name) for span in scope.spans for event in span.events]
        case "metrics":
            found = [([], metric.name) for metric in scope.metrics]
        case "data_points":
            found = [(p.attributes, m.name) for m in scope.metrics for p in m.gauge.data_points]
        case _:
            for log in scope.log_records:
                body = getattr(log.body, log.body.WhichOneof("value"))
                own = _plain(log.attributes)
                yield Countable(resource, of_scope, own, "", log.severity_number, body, log.time_unix_nano)
            return
    for attributes, name in found:
        yield Countable(resource, of_scope, _plain(attributes), name)


def _plain(attributes: Sequence[Any]) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


Step: TypeAlias = Callable[[str, Stream[TelemetryBatch]], KeyedStream[TelemetryBatch]]


def metrics_from(requests: Sequence[tuple[Signal, Message]], step: Step) -> list[dict[str, Any]]:
    """The data points that a step makes of requests, in a dataflow of one worker."""
    batches = [codec.decode(m.SerializeToString(), signal, tenant="acme") for signal, m in requests]
    made: list[Any] = []
    flow = Dataflow("test")
    op.output("out", step("made", op.input("in", flow, TestingSource(batches))), TestingSink(made))
    run_main(flow)
    return points(batch for _, batch in made)
