"""The slow, obvious reference: OTLP <-> TelemetryBatch through the official protobuf classes, one object at a time.

Never used by telflow itself. Tests compare the native codec and the operators with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2

from telflow.batch import TelemetryBatch
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, MetricType, Signal, ValueType

REQUESTS: dict[Signal, type[Message]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
_LEVELS = {
    Signal.TRACES: ("resource_spans", "scope_spans"),
    Signal.METRICS: ("resource_metrics", "scope_metrics"),
    Signal.LOGS: ("resource_logs", "scope_logs"),
}
_METRIC_KINDS = {
    "gauge": MetricType.GAUGE,
    "sum": MetricType.SUM,
    "histogram": MetricType.HISTOGRAM,
    "exponential_histogram": MetricType.EXPONENTIAL_HISTOGRAM,
    "summary": MetricType.SUMMARY,
}
Row = dict[str, Any]


def batch_from_message(request: Any, signal: Signal, tenant: str | None = None) -> TelemetryBatch:
    """Read an Export*ServiceRequest object by object; equal resources and scopes become one row."""
    resources: dict[bytes, int] = {}
    scopes: dict[bytes, int] = {}
    resource_rows: list[Row] = []
    scope_rows: list[Row] = []
    records: list[Row] = []
    outer, inner = _LEVELS[signal]
    for in_resource in getattr(request, outer):
        row = _resource(in_resource, tenant)
        resource = _row_number(resources, resource_rows, row, _identity(in_resource, "resource"))
        for in_scope in getattr(in_resource, inner):
            scope = _row_number(scopes, scope_rows, _scope(in_scope), _identity(in_scope, "scope"))
            for record in _records(in_scope, signal):
                records.append({"resource": resource, "scope": scope, **record})
    return TelemetryBatch(
        signal,
        pa.RecordBatch.from_pylist(records, schema=RECORD_SCHEMAS[signal]),
        pa.RecordBatch.from_pylist(resource_rows, schema=RESOURCES),
        pa.RecordBatch.from_pylist(scope_rows, schema=SCOPES),
    )


def normal_form(request: Any, signal: Signal) -> dict[tuple[bytes, bytes, bytes], list[bytes]]:
    """Meaning of a request: (resource, scope, metric identity) -> its records in order, all as canonical bytes.

    Two requests mean the same when their normal forms are equal: grouping and empty envelopes carry no meaning.
    """
    outer, inner = _LEVELS[signal]
    meaning: dict[tuple[bytes, bytes, bytes], list[bytes]] = {}
    for in_resource in getattr(request, outer):
        for in_scope in getattr(in_resource, inner):
            place = (_identity(in_resource, "resource"), _identity(in_scope, "scope"))
            if signal is Signal.METRICS:
                for metric in in_scope.metrics:
                    kind = metric.WhichOneof("data")
                    points = [canonical(p) for p in getattr(metric, kind).data_points] if kind else []
                    if points:
                        head = metrics_pb2.Metric()
                        head.CopyFrom(metric)
                        getattr(head, kind).ClearField("data_points")
                        meaning.setdefault((*place, canonical(head)), []).extend(points)
            else:
                found = in_scope.spans if signal is Signal.TRACES else in_scope.log_records
                if found:
                    meaning.setdefault((*place, b""), []).extend(canonical(r) for r in found)
    return meaning


def canonical(message: Message) -> bytes:
    """Bytes that are equal for equal messages, NaN and -0.0 included; unknown fields aside."""
    copy: Any = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    return bytes(copy.SerializeToString(deterministic=True))


def _identity(envelope: Any, member: str) -> bytes:
    present = envelope.HasField(member)
    return bytes([present]) + canonical(getattr(envelope, member)) + b"\0" + str(envelope.schema_url).encode()


def _row_number(seen: dict[bytes, int], rows: list[Row], row: Row, identity: bytes) -> int:
    if identity not in seen:
        seen[identity] = len(rows)
        rows.append(row)
    return seen[identity]


def _resource(envelope: Any, tenant: str | None) -> Row:
    resource = envelope.resource
    return {
        "tenant": tenant,
        "attributes": attributes(resource.attributes) if envelope.HasField("resource") else None,
        "dropped_attributes_count": resource.dropped_attributes_count,
        "entity_refs": [
            {
                "schema_url": e.schema_url,
                "type": e.type,
                "id_keys": list(e.id_keys),
                "description_keys": list(e.description_keys),
            }
            for e in resource.entity_refs
        ],
        "schema_url": envelope.schema_url,
    }


def _scope(envelope: Any) -> Row:
    scope = envelope.scope
    return {
        "name": scope.name if envelope.HasField("scope") else None,
        "version": scope.version,
        "attributes": attributes(scope.attributes),
        "dropped_attributes_count": scope.dropped_attributes_count,
        "schema_url": envelope.schema_url,
    }


def any_value(value: Any) -> Row:
    """One AnyValue as a row of `ANY_VALUE`."""
    row: Row = dict.fromkeys(("str", "int", "double", "bool", "bytes"))
    kind = value.WhichOneof("value")
    if kind is None:
        return {"type": ValueType.EMPTY, **row}
    content = getattr(value, kind)
    match kind:
        case "string_value":
            return {**row, "type": ValueType.STRING, "str": content}
        case "bool_value":
            return {**row, "type": ValueType.BOOL, "bool": content}
        case "int_value":
            return {**row, "type": ValueType.INT, "int": content}
        case "double_value":
            return {**row, "type": ValueType.DOUBLE, "double": content}
        case "bytes_value":
            return {**row, "type": ValueType.BYTES, "bytes": content}
        case "array_value":
            return {**row, "type": ValueType.ARRAY, "bytes": canonical(content)}
        case "kvlist_value":
            return {**row, "type": ValueType.KVLIST, "bytes": canonical(content)}
        case _:
            return {**row, "type": ValueType.STRINDEX, "int": content}


def attributes(found: Iterable[Any]) -> list[Row]:
    """KeyValues as rows of `ATTRIBUTE`."""
    rows: list[Row] = []
    for kv in found:
        if kv.key_strindex:
            raw: Row = dict.fromkeys(("str", "int", "double", "bool"))
            rows.append({**raw, "key": kv.key, "type": ValueType.RAW, "bytes": canonical(kv)})
        elif kv.HasField("value"):
            rows.append({"key": kv.key, **any_value(kv.value)})
        else:
            rows.append({"key": kv.key, **dict.fromkeys(("type", "str", "int", "double", "bool", "bytes"))})
    return rows


def _ids(record: Any, widths: dict[str, int]) -> Row:
    """Identifiers of the regular width; others as the protobuf fields they came in."""
    row: Row = {}
    irregular = type(record)()
    for name, width in widths.items():
        value = getattr(record, name)
        row[name] = value if len(value) == width else None
        if value and len(value) != width:
            setattr(irregular, name, value)
    return {**row, "irregular_ids": irregular.SerializeToString() or None}


def _records(envelope: Any, signal: Signal) -> Iterable[Row]:
    if signal is Signal.TRACES:
        return map(_span, envelope.spans)
    if signal is Signal.LOGS:
        return map(_log, envelope.log_records)
    return (row for metric in envelope.metrics for row in _points(metric))


def _copy(message: Any, *names: str) -> Row:
    return {name: getattr(message, name) for name in names}


def _span(span: Any) -> Row:
    status = span.HasField("status")
    return {
        **_ids(span, {"trace_id": 16, "span_id": 8, "parent_span_id": 8}),
        **_copy(span, "trace_state", "flags", "name", "kind", "start_time_unix_nano", "end_time_unix_nano"),
        **_copy(span, "dropped_attributes_count", "dropped_events_count", "dropped_links_count"),
        "attributes": attributes(span.attributes),
        "events": [
            {
                **_copy(e, "time_unix_nano", "name", "dropped_attributes_count"),
                "attributes": attributes(e.attributes),
            }
            for e in span.events
        ],
        "links": [
            {
                **_copy(k, "trace_id", "span_id", "trace_state", "dropped_attributes_count", "flags"),
                "attributes": attributes(k.attributes),
            }
            for k in span.links
        ],
        "status_code": span.status.code if status else None,
        "status_message": span.status.message if status else None,
    }


def _log(log: Any) -> Row:
    return {
        **_ids(log, {"trace_id": 16, "span_id": 8}),
        **_copy(log, "time_unix_nano", "observed_time_unix_nano", "severity_number", "severity_text"),
        **_copy(log, "dropped_attributes_count", "flags", "event_name"),
        "body": any_value(log.body) if log.HasField("body") else None,
        "attributes": attributes(log.attributes),
    }


def _optional(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _points(metric: Any) -> Iterable[Row]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    head = {
        **_copy(metric, "name", "description", "unit"),
        "metadata": attributes(metric.metadata),
        "type": _METRIC_KINDS[kind],
        "aggregation_temporality": getattr(data, "aggregation_temporality", 0),
        "is_monotonic": getattr(data, "is_monotonic", False),
    }
    for point in data.data_points:
        row = {
            **head,
            **_copy(point, "start_time_unix_nano", "time_unix_nano", "flags"),
            "attributes": attributes(point.attributes),
            "exemplars": [_exemplar(e) for e in getattr(point, "exemplars", ())],
        }
        match kind:
            case "gauge" | "sum":
                row |= {"value_int": _optional(point, "as_int"), "value_double": _optional(point, "as_double")}
            case "histogram":
                row |= {
                    "count": point.count,
                    **{name: _optional(point, name) for name in ("sum", "min", "max")},
                    "bucket_counts": list(point.bucket_counts),
                    "explicit_bounds": list(point.explicit_bounds),
                }
            case "exponential_histogram":
                row |= {
                    **_copy(point, "count", "scale", "zero_count", "zero_threshold"),
                    **{name: _optional(point, name) for name in ("sum", "min", "max")},
                    "positive": _buckets(point, "positive"),
                    "negative": _buckets(point, "negative"),
                }
            case _:
                row |= {
                    **_copy(point, "count", "sum"),
                    "quantile_values": [_copy(q, "quantile", "value") for q in point.quantile_values],
                }
        yield row


def _buckets(point: Any, name: str) -> Row | None:
    buckets = _optional(point, name)
    return None if buckets is None else {"offset": buckets.offset, "bucket_counts": list(buckets.bucket_counts)}


def _exemplar(exemplar: Any) -> Row:
    return {
        **_copy(exemplar, "time_unix_nano", "span_id", "trace_id"),
        "filtered_attributes": attributes(exemplar.filtered_attributes),
        "value_int": _optional(exemplar, "as_int"),
        "value_double": _optional(exemplar, "as_double"),
    }
