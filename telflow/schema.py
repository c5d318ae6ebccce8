"""Column names and Arrow schemas of a `TelemetryBatch`: the one module that spells them.

Fixed fields are columns under OTLP's own names (opentelemetry-proto v1). A batch has three tables:
``records`` (one row per span, log record or metric data point), ``resources`` and ``scopes`` (one row per
distinct resource / instrumentation scope, referred to by row number from ``records``).

Conventions, all needed to keep the round trip lossless:

* A proto3 field without presence is a non-null column holding its default when unset.
* A field with presence (``optional``, ``oneof`` member) is null when unset.
* An unset message is a null in the column named beside it: ``resources.attributes`` (Resource),
  ``scopes.name`` (InstrumentationScope), ``status_code`` (Status), ``body`` (log body), ``positive`` and
  ``negative`` (exponential histogram buckets).
* Identifiers are fixed-size binary. Empty is null. One of any other length, which the protobuf schema admits, is null
  too and stands in ``irregular_ids``: the protobuf fields (tag, length, bytes) as they belong in the record's message.
  Inside links and exemplars identifiers are plain binary, empty when unset.
"""

from __future__ import annotations

import enum

import pyarrow as pa

__all__ = [
    "ANY_VALUE",
    "ATTRIBUTE",
    "ATTRIBUTES",
    "RECORD_SCHEMAS",
    "RESOURCES",
    "SCOPES",
    "MetricType",
    "Signal",
    "ValueType",
]


class Signal(enum.StrEnum):
    """The kinds of telemetry; the values are OTLP's path names (`/v1/traces` ...)."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class ValueType(enum.IntEnum):
    """Kind of an AnyValue: its field number in `opentelemetry.proto.common.v1.AnyValue`.

    A null type means that there is no AnyValue at all; EMPTY is an AnyValue with nothing set.
    ARRAY and KVLIST keep their content in the `bytes` child as the canonical protobuf encoding of `ArrayValue` /
    `KeyValueList`. STRINDEX (profiles' dictionary reference) keeps its number in `int`.
    RAW is a whole `KeyValue` message in `bytes`, for the one that has a field no column holds (`key_strindex`).
    """

    EMPTY = 0
    STRING = 1
    BOOL = 2
    INT = 3
    DOUBLE = 4
    ARRAY = 5
    KVLIST = 6
    BYTES = 7
    STRINDEX = 8
    RAW = 255


class MetricType(enum.IntEnum):
    """Kind of a metric: the field number of its data in `opentelemetry.proto.metrics.v1.Metric`."""

    GAUGE = 5
    SUM = 7
    HISTOGRAM = 9
    EXPONENTIAL_HISTOGRAM = 10
    SUMMARY = 11


def _required(name: str, dtype: pa.DataType) -> pa.Field:
    return pa.field(name, dtype, nullable=False)


def _list(item: pa.DataType) -> pa.ListType:
    return pa.list_(pa.field("item", item, nullable=False))


_VALUE_FIELDS = [
    pa.field("type", pa.uint8()),
    pa.field("str", pa.string()),
    pa.field("int", pa.int64()),
    pa.field("double", pa.float64()),
    pa.field("bool", pa.bool_()),
    pa.field("bytes", pa.binary()),
]

ANY_VALUE = pa.struct(_VALUE_FIELDS)
"""One AnyValue: `type` is a `ValueType`; exactly the child it names is non-null."""

ATTRIBUTE = pa.struct([_required("key", pa.string()), *_VALUE_FIELDS])
"""One KeyValue."""

ATTRIBUTES = _list(ATTRIBUTE)
"""Attributes of anything: order, duplicates and empty values kept."""

_EVENT = pa.struct(
    [
        _required("time_unix_nano", pa.uint64()),
        _required("name", pa.string()),
        _required("attributes", ATTRIBUTES),
        _required("dropped_attributes_count", pa.uint32()),
    ]
)

_LINK = pa.struct(
    [
        _required("trace_id", pa.binary()),
        _required("span_id", pa.binary()),
        _required("trace_state", pa.string()),
        _required("attributes", ATTRIBUTES),
        _required("dropped_attributes_count", pa.uint32()),
        _required("flags", pa.uint32()),
    ]
)

_EXEMPLAR = pa.struct(
    [
        _required("filtered_attributes", ATTRIBUTES),
        _required("time_unix_nano", pa.uint64()),
        pa.field("value_int", pa.int64()),
        pa.field("value_double", pa.float64()),
        _required("span_id", pa.binary()),
        _required("trace_id", pa.binary()),
    ]
)

# The children are nullable like the struct they stand in: Arrow kernels that make a null struct make null children,
# which Parquet refuses in required fields.
_BUCKETS = pa.struct([pa.field("offset", pa.int32()), pa.field("bucket_counts", _list(pa.uint64()))])

_QUANTILE = pa.struct([_required("quantile", pa.float64()), _required("value", pa.float64())])

_ENTITY_REF = pa.struct(
    [
        _required("schema_url", pa.string()),
        _required("type", pa.string()),
        _required("id_keys", _list(pa.string())),
        _required("description_keys", _list(pa.string())),
    ]
)

RESOURCES = pa.schema(
    [
        pa.field("tenant", pa.string()),  # telflow's own: whose data this is, from the credential; null when unknown
        pa.field("attributes", ATTRIBUTES),  # null: no Resource message
        _required("dropped_attributes_count", pa.uint32()),
        _required("entity_refs", _list(_ENTITY_REF)),
        _required("schema_url", pa.string()),
    ]
)
"""`Resource` with the `schema_url` of its Resource{Spans,Metrics,Logs}, and the tenant."""

SCOPES = pa.schema(
    [
        pa.field("name", pa.string()),  # null: no InstrumentationScope message
        _required("version", pa.string()),
        _required("attributes", ATTRIBUTES),
        _required("dropped_attributes_count", pa.uint32()),
        _required("schema_url", pa.string()),
    ]
)
"""`InstrumentationScope` with the `schema_url` of its Scope{Spans,Metrics,Logs}."""

_PLACE = [_required("resource", pa.uint32()), _required("scope", pa.uint32())]

_SPANS = pa.schema(
    [
        *_PLACE,
        pa.field("trace_id", pa.binary(16)),
        pa.field("span_id", pa.binary(8)),
        pa.field("parent_span_id", pa.binary(8)),
        pa.field("irregular_ids", pa.binary()),
        _required("trace_state", pa.string()),
        _required("flags", pa.uint32()),
        _required("name", pa.string()),
        _required("kind", pa.int32()),
        _required("start_time_unix_nano", pa.uint64()),
        _required("end_time_unix_nano", pa.uint64()),
        _required("attributes", ATTRIBUTES),
        _required("dropped_attributes_count", pa.uint32()),
        _required("events", _list(_EVENT)),
        _required("dropped_events_count", pa.uint32()),
        _required("links", _list(_LINK)),
        _required("dropped_links_count", pa.uint32()),
        pa.field("status_code", pa.int32()),  # null: no Status message
        pa.field("status_message", pa.string()),
    ]
)

_LOG_RECORDS = pa.schema(
    [
        *_PLACE,
        _required("time_unix_nano", pa.uint64()),
        _required("observed_time_unix_nano", pa.uint64()),
        _required("severity_number", pa.int32()),
        _required("severity_text", pa.string()),
        pa.field("body", ANY_VALUE),  # null: no body
        _required("attributes", ATTRIBUTES),
        _required("dropped_attributes_count", pa.uint32()),
        _required("flags", pa.uint32()),
        pa.field("trace_id", pa.binary(16)),
        pa.field("span_id", pa.binary(8)),
        pa.field("irregular_ids", pa.binary()),
        _required("event_name", pa.string()),
    ]
)

_DATA_POINTS = pa.schema(
    [
        *_PLACE,
        # The metric's identity, the same on every point of one metric.
        _required("name", pa.string()),
        _required("description", pa.string()),
        _required("unit", pa.string()),
        _required("metadata", ATTRIBUTES),
        _required("type", pa.uint8()),  # a MetricType
        _required("aggregation_temporality", pa.int32()),  # 0 where the kind has none
        _required("is_monotonic", pa.bool_()),  # False where the kind has none
        # The point.
        _required("attributes", ATTRIBUTES),
        _required("start_time_unix_nano", pa.uint64()),
        _required("time_unix_nano", pa.uint64()),
        _required("flags", pa.uint32()),
        _required("exemplars", _list(_EXEMPLAR)),
        # Gauge and sum; both null: the point has no value.
        pa.field("value_int", pa.int64()),
        pa.field("value_double", pa.float64()),
        # Histogram, exponential histogram and summary; null elsewhere.
        pa.field("count", pa.uint64()),
        pa.field("sum", pa.float64()),
        pa.field("min", pa.float64()),
        pa.field("max", pa.float64()),
        # Histogram; null elsewhere.
        pa.field("bucket_counts", _list(pa.uint64())),
        pa.field("explicit_bounds", _list(pa.float64())),
        # Exponential histogram; null elsewhere, and positive / negative null when that Buckets message is unset.
        pa.field("scale", pa.int32()),
        pa.field("zero_count", pa.uint64()),
        pa.field("zero_threshold", pa.float64()),
        pa.field("positive", _BUCKETS),
        pa.field("negative", _BUCKETS),
        # Summary; null elsewhere.
        pa.field("quantile_values", _list(_QUANTILE)),
    ]
)

RECORD_SCHEMAS = {Signal.TRACES: _SPANS, Signal.LOGS: _LOG_RECORDS, Signal.METRICS: _DATA_POINTS}
"""Schema of `TelemetryBatch.records` for each signal."""
