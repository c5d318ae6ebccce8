//! What OTLP messages look like: every message reachable from the three export requests, as one static table.
//!
//! `tests/telflow/test_normalise.py` compares it field by field with the installed opentelemetry-proto.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// How a field's value is written, in protobuf and in JSON.
#[derive(Clone, Copy)]
pub enum Kind {
    Double,
    Fixed64,
    Sfixed64,
    Fixed32,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Bool,
    Enum,
    String,
    Bytes,
    /// Bytes that OTLP/JSON writes as hexadecimal: trace_id, span_id and parent_span_id.
    Id,
    Message(&'static Message),
}

/// How often a field may stand in a message and whether "set to its default" differs from "not set".
///
/// No OTLP message has two oneofs, so a member of one needs no group number. Every repeated number is packed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// Singular without presence: the default value is not written.
    Implicit,
    /// Singular with presence (`optional`, and every message).
    Explicit,
    /// Member of the message's oneof.
    Oneof,
    Repeated,
}

pub struct Field {
    pub number: u32,
    pub name: &'static str,
    pub json_name: &'static str,
    /// The name as it stands in JSON, with its quotation marks and colon.
    pub json_key: &'static str,
    pub kind: Kind,
    pub label: Label,
}

/// No field: the empty place of the two look-up tables.
const NONE: u8 = u8::MAX;
const HIGHEST_NUMBER: usize = 16;
const NAME_SLOTS: usize = 64;

pub struct Message {
    /// Row number in `MESSAGES`.
    pub id: usize,
    /// Full name without the leading `opentelemetry.proto.`
    pub name: &'static str,
    /// In ascending order of field number, which is the order of canonical bytes.
    pub fields: &'static [Field],
    by_number: [u8; HIGHEST_NUMBER + 1],
    by_json_name: [u8; NAME_SLOTS],
    multiplier: u32,
}

impl Message {
    const fn new(id: usize, name: &'static str, fields: &'static [Field]) -> Self {
        let mut by_number = [NONE; HIGHEST_NUMBER + 1];
        let mut i = 0;
        while i < fields.len() {
            by_number[fields[i].number as usize] = i as u8;
            i += 1;
        }
        let (multiplier, by_json_name) = perfect_hash(fields);
        Self {
            id,
            name,
            fields,
            by_number,
            by_json_name,
            multiplier,
        }
    }

    /// Row of `fields` that holds a field number.
    #[inline]
    pub fn by_number(&self, number: u32) -> Option<usize> {
        match self.by_number.get(number as usize) {
            Some(&i) if i != NONE => Some(i as usize),
            _ => None,
        }
    }

    /// Row of `fields` that holds a JSON name (lowerCamelCase only).
    #[inline]
    pub fn by_json_name(&self, name: &[u8]) -> Option<usize> {
        let i = self.by_json_name[slot(name, self.multiplier)?] as usize;
        let found = self.fields.get(i)?.json_name.as_bytes() == name;
        found.then_some(i)
    }
}

/// Length, first and last byte tell apart the fields of every OTLP message.
#[inline]
const fn slot(name: &[u8], multiplier: u32) -> Option<usize> {
    if name.is_empty() {
        return None;
    }
    let features = (name.len() as u32) << 16 | (name[0] as u32) << 8 | name[name.len() - 1] as u32;
    Some((features.wrapping_mul(multiplier) >> 26) as usize)
}

/// Search, while compiling, a multiplier under which no two names share a slot.
const fn perfect_hash(fields: &[Field]) -> (u32, [u8; NAME_SLOTS]) {
    let mut multiplier: u32 = 0x9E37_79B1;
    loop {
        let mut table = [NONE; NAME_SLOTS];
        let mut i = 0;
        while i < fields.len() {
            let Some(at) = slot(fields[i].json_name.as_bytes(), multiplier) else {
                panic!("a field without a name")
            };
            if table[at] != NONE {
                break;
            }
            table[at] = i as u8;
            i += 1;
        }
        if i == fields.len() {
            return (multiplier, table);
        }
        multiplier = multiplier.wrapping_mul(5).wrapping_add(2);
    }
}

macro_rules! message {
    ($constant:ident, $id:literal, $name:literal,
     $(($number:literal, $proto:literal, $json:literal, $kind:expr, $label:ident)),* $(,)?) => {
        pub static $constant: Message = Message::new($id, $name, &[
            $(Field {
                number: $number,
                name: $proto,
                json_name: $json,
                json_key: concat!("\"", $json, "\":"),
                kind: $kind,
                label: Label::$label,
            }),*
        ]);
    };
}

use Kind::{
    Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int32, Int64, Message as Msg, Sfixed64,
    Sint32, String as Str, Uint32, Uint64,
};

message! { EXPORT_TRACE_SERVICE_REQUEST, 0, "collector.trace.v1.ExportTraceServiceRequest",
    (1, "resource_spans", "resourceSpans", Msg(&RESOURCE_SPANS), Repeated),
}
message! { RESOURCE_SPANS, 1, "trace.v1.ResourceSpans",
    (1, "resource", "resource", Msg(&RESOURCE), Explicit),
    (2, "scope_spans", "scopeSpans", Msg(&SCOPE_SPANS), Repeated),
    (3, "schema_url", "schemaUrl", Str, Implicit),
}
message! { RESOURCE, 2, "resource.v1.Resource",
    (1, "attributes", "attributes", Msg(&KEY_VALUE), Repeated),
    (2, "dropped_attributes_count", "droppedAttributesCount", Uint32, Implicit),
    (3, "entity_refs", "entityRefs", Msg(&ENTITY_REF), Repeated),
}
message! { KEY_VALUE, 3, "common.v1.KeyValue",
    (1, "key", "key", Str, Implicit),
    (2, "value", "value", Msg(&ANY_VALUE), Explicit),
    (3, "key_strindex", "keyStrindex", Int32, Implicit),
}
message! { ANY_VALUE, 4, "common.v1.AnyValue",
    (1, "string_value", "stringValue", Str, Oneof),
    (2, "bool_value", "boolValue", Bool, Oneof),
    (3, "int_value", "intValue", Int64, Oneof),
    (4, "double_value", "doubleValue", Double, Oneof),
    (5, "array_value", "arrayValue", Msg(&ARRAY_VALUE), Oneof),
    (6, "kvlist_value", "kvlistValue", Msg(&KEY_VALUE_LIST), Oneof),
    (7, "bytes_value", "bytesValue", Bytes, Oneof),
    (8, "string_value_strindex", "stringValueStrindex", Int32, Oneof),
}
message! { ARRAY_VALUE, 5, "common.v1.ArrayValue",
    (1, "values", "values", Msg(&ANY_VALUE), Repeated),
}
message! { KEY_VALUE_LIST, 6, "common.v1.KeyValueList",
    (1, "values", "values", Msg(&KEY_VALUE), Repeated),
}
message! { ENTITY_REF, 7, "common.v1.EntityRef",
    (1, "schema_url", "schemaUrl", Str, Implicit),
    (2, "type", "type", Str, Implicit),
    (3, "id_keys", "idKeys", Str, Repeated),
    (4, "description_keys", "descriptionKeys", Str, Repeated),
}
message! { SCOPE_SPANS, 8, "trace.v1.ScopeSpans",
    (1, "scope", "scope", Msg(&INSTRUMENTATION_SCOPE), Explicit),
    (2, "spans", "spans", Msg(&SPAN), Repeated),
    (3, "schema_url", "schemaUrl", Str, Implicit),
}
message! { INSTRUMENTATION_SCOPE, 9, "common.v1.InstrumentationScope",
    (1, "name", "name", Str, Implicit),
    (2, "version", "version", Str, Implicit),
    (3, "attributes", "attributes", Msg(&KEY_VALUE), Repeated),
    (4, "dropped_attributes_count", "droppedAttributesCount", Uint32, Implicit),
}
message! { SPAN, 10, "trace.v1.Span",
    (1, "trace_id", "traceId", Id, Implicit),
    (2, "span_id", "spanId", Id, Implicit),
    (3, "trace_state", "traceState", Str, Implicit),
    (4, "parent_span_id", "parentSpanId", Id, Implicit),
    (5, "name", "name", Str, Implicit),
    (6, "kind", "kind", Enum, Implicit),
    (7, "start_time_unix_nano", "startTimeUnixNano", Fixed64, Implicit),
    (8, "end_time_unix_nano", "endTimeUnixNano", Fixed64, Implicit),
    (9, "attributes", "attributes", Msg(&KEY_VALUE), Repeated),
    (10, "dropped_attributes_count", "droppedAttributesCount", Uint32, Implicit),
    (11, "events", "events", Msg(&SPAN_EVENT), Repeated),
    (12, "dropped_events_count", "droppedEventsCount", Uint32, Implicit),
    (13, "links", "links", Msg(&SPAN_LINK), Repeated),
    (14, "dropped_links_count", "droppedLinksCount", Uint32, Implicit),
    (15, "status", "status", Msg(&STATUS), Explicit),
    (16, "flags", "flags", Fixed32, Implicit),
}
message! { SPAN_EVENT, 11, "trace.v1.Span.Event",
    (1, "time_unix_nano", "timeUnixNano", Fixed64, Implicit),
    (2, "name", "name", Str, Implicit),
    (3, "attributes", "attributes", Msg(&KEY_VALUE), Repeated),
    (4, "dropped_attributes_count", "droppedAttributesCount", Uint32, Implicit),
}
message! { SPAN_LINK, 12, "trace.v1.Span.Link",
    (1, "trace_id", "traceId", Id, Implicit),
    (2, "span_id", "spanId", Id, Implicit),
    (3, "trace_state", "traceState", Str, Implicit),
    (4, "attributes", "attributes", Msg(&KEY_VALUE), Repeated),
    (5, "dropped_attributes_count", "droppedAttributesCount", Uint32, Implicit),
    (6, "flags", "flags", Fixed32, Implicit),
}
message! { STATUS, 13, "trace.v1.Status",
    (2, "message", "message", Str, Implicit),
    (3, "code", "code", Enum, Implicit),
}
message! { EXPORT_METRICS_SERVICE_REQUEST, 14, "collector.metrics.v1.ExportMetricsServiceRequest",
    (1, "resource_metrics", "resourceMetrics", Msg(&RESOURCE_METRICS), Repeated),
}
message! { RESOURCE_METRICS, 15, "metrics.v1.ResourceMetrics",
    (1, "resource", "resource", Msg(&RESOURCE), Explicit),
    (2, "scope_metrics", "scopeMetrics", Msg(&SCOPE_METRICS), Repeated),
    (3, "schema_url", "schemaUrl", Str, Implicit),
}
message! { SCOPE_METRICS, 16, "metrics.v1.ScopeMetrics",
    (1, "scope", "scope", Msg(&INSTRUMENTATION_SCOPE), Explicit),
    (2, "metrics", "metrics", Msg(&METRIC), Repeated),
    (3, "schema_url", "schemaUrl", Str, Implicit),
}
message! { METRIC, 17, "metrics.v1.Metric",
    (1, "name", "name", Str, Implicit),
    (2, "description", "description", Str, Implicit),
    (3, "unit", "unit", Str, Implicit),
    (5, "gauge", "gauge", Msg(&GAUGE), Oneof),
    (7, "sum", "sum", Msg(&SUM), Oneof),
    (9, "histogram", "histogram", Msg(&HISTOGRAM), Oneof),
    (10, "exponential_histogram", "exponentialHistogram", Msg(&EXPONENTIAL_HISTOGRAM), Oneof),
    (11, "summary", "summary", Msg(&SUMMARY), Oneof),
    (12, "metadata", "metadata", Msg(&KEY_VALUE), Repeated),
}
message! { GAUGE, 18, "metrics.v1.Gauge",
    (1, "data_points", "dataPoints", Msg(&NUMBER_DATA_POINT), Repeated),
}
message! { NUMBER_DATA_POINT, 19, "metrics.v1.NumberDataPoint",
    (2, "start_time_unix_nano", "startTimeUnixNano", Fixed64, Implicit),
    (3, "time_unix_nano", "timeUnixNano", Fixed64, Implicit),
    (4, "as_double", "asDouble", Double, Oneof),
    (5, "exemplars", "exemplars", Msg(&EXEMPLAR), Repeated),
    (6, "as_int", "asInt", Sfixed64, Oneof),
    (7, "attributes", "attributes", Msg(&KEY_VALUE), Repeated),
    (8, "flags", "flags", Uint32, Implicit),
}
message! { EXEMPLAR, 20, "metrics.v1.Exemplar",
    (2, "time_unix_nano", "timeUnixNano", Fixed64, Implicit),
    (3, "as_double", "asDouble", Double, Oneof),
    (4, "span_id", "spanId", Id, Implicit),
    (5, "trace_id", "traceId", Id, Implicit),
    (6, "as_int", "asInt", Sfixed64, Oneof),
    (7, "filtered_attributes", "filteredAttributes", Msg(&KEY_VALUE), Repeated),
}
message! { SUM, 21, "metrics.v1.Sum",
    (1, "data_points", "dataPoints", Msg(&NUMBER_DATA_POINT), Repeated),
    (2, "aggregation_temporality", "aggregationTemporality", Enum, Implicit),
    (3, "is_monotonic", "isMonotonic", Bool, Implicit),
}
message! { HISTOGRAM, 22, "metrics.v1.Histogram",
    (1, "data_points", "dataPoints", Msg(&HISTOGRAM_DATA_POINT), Repeated),
    (2, "aggregation_temporality", "aggregationTemporality", Enum, Implicit),
}
message! { HISTOGRAM_DATA_POINT, 23, "metrics.v1.HistogramDataPoint",
    (2, "start_time_unix_nano", "startTimeUnixNano", Fixed64, Implicit),
    (3, "time_unix_nano", "timeUnixNano", Fixed64, Implicit),
    (4, "count", "count", Fixed64, Implicit),
    (5, "sum", "sum", Double, Explicit),
    (6, "bucket_counts", "bucketCounts", Fixed64, Repeated),
    (7, "explicit_bounds", "explicitBounds", Double, Repeated),
    (8, "exemplars", "exemplars", Msg(&EXEMPLAR), Repeated),
    (9, "attributes", "attributes", Msg(&KEY_VALUE), Repeated),
    (10, "flags", "flags", Uint32, Implicit),
    (11, "min", "min", Double, Explicit),
    (12, "max", "max", Double, Explicit),
}
message! { EXPONENTIAL_HISTOGRAM, 24, "metrics.v1.ExponentialHistogram",
    (1, "data_points", "dataPoints", Msg(&EXPONENTIAL_HISTOGRAM_DATA_POINT), Repeated),
    (2, "aggregation_temporality", "aggregationTemporality", Enum, Implicit),
}
message! { EXPONENTIAL_HISTOGRAM_DATA_POINT, 25, "metrics.v1.ExponentialHistogramDataPoint",
    (1, "attributes", "attributes", Msg(&KEY_VALUE), Repeated),
    (2, "start_time_unix_nano", "startTimeUnixNano", Fixed64, Implicit),
    (3, "time_unix_nano", "timeUnixNano", Fixed64, Implicit),
    (4, "count", "count", Fixed64, Implicit),
    (5, "sum", "sum", Double, Explicit),
    (6, "scale", "scale", Sint32, Implicit),
    (7, "zero_count", "zeroCount", Fixed64, Implicit),
    (8, "positive", "positive", Msg(&EXPONENTIAL_HISTOGRAM_DATA_POINT_BUCKETS), Explicit),
    (9, "negative", "negative", Msg(&EXPONENTIAL_HISTOGRAM_DATA_POINT_BUCKETS), Explicit),
    (10, "flags", "flags", Uint32, Implicit),
    (11, "exemplars", "exemplars", Msg(&EXEMPLAR), Repeated),
    (12, "min", "min", Double, Explicit),
    (13, "max", "max", Double, Explicit),
    (14, "zero_threshold", "zeroThreshold", Double, Implicit),
}
message! { EXPONENTIAL_HISTOGRAM_DATA_POINT_BUCKETS, 26, "metrics.v1.ExponentialHistogramDataPoint.Buckets",
    (1, "offset", "offset", Sint32, Implicit),
    (2, "bucket_counts", "bucketCounts", Uint64, Repeated),
}
message! { SUMMARY, 27, "metrics.v1.Summary",
    (1, "data_points", "dataPoints", Msg(&SUMMARY_DATA_POINT), Repeated),
}
message! { SUMMARY_DATA_POINT, 28, "metrics.v1.SummaryDataPoint",
    (2, "start_time_unix_nano", "startTimeUnixNano", Fixed64, Implicit),
    (3, "time_unix_nano", "timeUnixNano", Fixed64, Implicit),
    (4, "count", "count", Fixed64, Implicit),
    (5, "sum", "sum", Double, Implicit),
    (6, "quantile_values", "quantileValues", Msg(&SUMMARY_DATA_POINT_VALUE_AT_QUANTILE), Repeated),
    (7, "attributes", "attributes", Msg(&KEY_VALUE), Repeated),
    (8, "flags", "flags", Uint32, Implicit),
}
message! { SUMMARY_DATA_POINT_VALUE_AT_QUANTILE, 29, "metrics.v1.SummaryDataPoint.ValueAtQuantile",
    (1, "quantile", "quantile", Double, Implicit),
    (2, "value", "value", Double, Implicit),
}
message! { EXPORT_LOGS_SERVICE_REQUEST, 30, "collector.logs.v1.ExportLogsServiceRequest",
    (1, "resource_logs", "resourceLogs", Msg(&RESOURCE_LOGS), Repeated),
}
message! { RESOURCE_LOGS, 31, "logs.v1.ResourceLogs",
    (1, "resource", "resource", Msg(&RESOURCE), Explicit),
    (2, "scope_logs", "scopeLogs", Msg(&SCOPE_LOGS), Repeated),
    (3, "schema_url", "schemaUrl", Str, Implicit),
}
message! { SCOPE_LOGS, 32, "logs.v1.ScopeLogs",
    (1, "scope", "scope", Msg(&INSTRUMENTATION_SCOPE), Explicit),
    (2, "log_records", "logRecords", Msg(&LOG_RECORD), Repeated),
    (3, "schema_url", "schemaUrl", Str, Implicit),
}
message! { LOG_RECORD, 33, "logs.v1.LogRecord",
    (1, "time_unix_nano", "timeUnixNano", Fixed64, Implicit),
    (2, "severity_number", "severityNumber", Enum, Implicit),
    (3, "severity_text", "severityText", Str, Implicit),
    (5, "body", "body", Msg(&ANY_VALUE), Explicit),
    (6, "attributes", "attributes", Msg(&KEY_VALUE), Repeated),
    (7, "dropped_attributes_count", "droppedAttributesCount", Uint32, Implicit),
    (8, "flags", "flags", Fixed32, Implicit),
    (9, "trace_id", "traceId", Id, Implicit),
    (10, "span_id", "spanId", Id, Implicit),
    (11, "observed_time_unix_nano", "observedTimeUnixNano", Fixed64, Implicit),
    (12, "event_name", "eventName", Str, Implicit),
}

/// Every message, at the place its `id` names.
#[rustfmt::skip]
pub static MESSAGES: [&Message; 34] = [
    &EXPORT_TRACE_SERVICE_REQUEST, &RESOURCE_SPANS, &RESOURCE, &KEY_VALUE, &ANY_VALUE, &ARRAY_VALUE,
    &KEY_VALUE_LIST, &ENTITY_REF, &SCOPE_SPANS, &INSTRUMENTATION_SCOPE, &SPAN, &SPAN_EVENT,
    &SPAN_LINK, &STATUS, &EXPORT_METRICS_SERVICE_REQUEST, &RESOURCE_METRICS, &SCOPE_METRICS,
    &METRIC, &GAUGE, &NUMBER_DATA_POINT, &EXEMPLAR, &SUM, &HISTOGRAM, &HISTOGRAM_DATA_POINT,
    &EXPONENTIAL_HISTOGRAM, &EXPONENTIAL_HISTOGRAM_DATA_POINT,
    &EXPONENTIAL_HISTOGRAM_DATA_POINT_BUCKETS, &SUMMARY, &SUMMARY_DATA_POINT,
    &SUMMARY_DATA_POINT_VALUE_AT_QUANTILE, &EXPORT_LOGS_SERVICE_REQUEST, &RESOURCE_LOGS,
    &SCOPE_LOGS, &LOG_RECORD,
];

/// A kind of telemetry, and with it the request message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    pub fn parse(name: &str) -> PyResult<Self> {
        match name {
            "traces" => Ok(Self::Traces),
            "metrics" => Ok(Self::Metrics),
            "logs" => Ok(Self::Logs),
            _ => Err(PyValueError::new_err(format!(
                "signal: expected traces, metrics or logs, got {name:?}"
            ))),
        }
    }

    pub fn request(self) -> &'static Message {
        match self {
            Self::Traces => &EXPORT_TRACE_SERVICE_REQUEST,
            Self::Metrics => &EXPORT_METRICS_SERVICE_REQUEST,
            Self::Logs => &EXPORT_LOGS_SERVICE_REQUEST,
        }
    }
}

type Row = (
    &'static str,
    u32,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

/// The table as rows `(message, number, name, json_name, kind, label)`.
#[pyfunction]
fn otlp_fields() -> Vec<Row> {
    let row = |m: &Message, f: &Field| -> Row {
        (
            m.name,
            f.number,
            f.name,
            f.json_name,
            kind_name(f.kind),
            label_name(f.label),
        )
    };
    MESSAGES
        .iter()
        .flat_map(|m| m.fields.iter().map(move |f| row(m, f)))
        .collect()
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Double => "double",
        Fixed64 => "fixed64",
        Sfixed64 => "sfixed64",
        Fixed32 => "fixed32",
        Int32 => "int32",
        Int64 => "int64",
        Uint32 => "uint32",
        Uint64 => "uint64",
        Sint32 => "sint32",
        Bool => "bool",
        Enum => "enum",
        Str => "string",
        Bytes => "bytes",
        Id => "id",
        Msg(message) => message.name,
    }
}

fn label_name(label: Label) -> &'static str {
    match label {
        Label::Implicit => "implicit",
        Label::Explicit => "explicit",
        Label::Oneof => "oneof",
        Label::Repeated => "repeated",
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(otlp_fields, m)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_stands_at_its_id_and_finds_its_fields() {
        for (id, message) in MESSAGES.iter().enumerate() {
            assert_eq!(message.id, id);
            for (i, field) in message.fields.iter().enumerate() {
                assert_eq!(message.by_number(field.number), Some(i));
                assert_eq!(message.by_json_name(field.json_name.as_bytes()), Some(i));
            }
            assert_eq!(message.by_number(0), None);
            assert_eq!(message.by_json_name(b""), None);
        }
    }
}
