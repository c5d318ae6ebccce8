//! The Arrow schemas of a batch, as `telflow/schema.py` defines and explains them.
//!
//! They stand here a second time so that this crate builds arrays without asking Python; a test compares the two.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use DataType::{Binary, Boolean, FixedSizeBinary, Float64, Int32, Int64, UInt32, UInt64, UInt8};

/// Strings, which inside this crate are byte strings of the same layout: `decode` has checked that they are UTF-8, and
/// Arrow would do so again. Python gives them their name.
pub const TEXT: DataType = Binary;

/// Kind of an AnyValue: its field number, as in `telflow.schema.ValueType`.
pub mod value_type {
    pub const EMPTY: u8 = 0;
    pub const STRING: u8 = 1;
    pub const BOOL: u8 = 2;
    pub const INT: u8 = 3;
    pub const DOUBLE: u8 = 4;
    pub const ARRAY: u8 = 5;
    pub const KVLIST: u8 = 6;
    pub const BYTES: u8 = 7;
    pub const STRINDEX: u8 = 8;
    /// A whole KeyValue, because it has a field that no column holds.
    pub const RAW: u8 = 255;
    /// No AnyValue at all: null in Arrow.
    pub const NONE: u8 = 254;
}

/// Kind of a metric: the field number of its data, as in `telflow.schema.MetricType`.
pub mod metric_type {
    pub const GAUGE: u8 = 5;
    pub const SUM: u8 = 7;
    pub const HISTOGRAM: u8 = 9;
    pub const EXPONENTIAL_HISTOGRAM: u8 = 10;
    pub const SUMMARY: u8 = 11;
}

fn required(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn nullable(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// Field of a list's elements.
pub fn item(data_type: DataType) -> FieldRef {
    Arc::new(required("item", data_type))
}

pub fn list(data_type: DataType) -> DataType {
    DataType::List(item(data_type))
}

fn value_fields() -> Vec<Field> {
    vec![
        nullable("type", UInt8),
        nullable("str", TEXT),
        nullable("int", Int64),
        nullable("double", Float64),
        nullable("bool", Boolean),
        nullable("bytes", Binary),
    ]
}

pub static ANY_VALUE: LazyLock<Fields> = LazyLock::new(|| value_fields().into());

pub static ATTRIBUTE: LazyLock<Fields> = LazyLock::new(|| {
    let mut fields = vec![required("key", TEXT)];
    fields.extend(value_fields());
    fields.into()
});

pub fn attributes() -> DataType {
    list(DataType::Struct(ATTRIBUTE.clone()))
}

pub static EVENT: LazyLock<Fields> = LazyLock::new(|| {
    vec![
        required("time_unix_nano", UInt64),
        required("name", TEXT),
        required("attributes", attributes()),
        required("dropped_attributes_count", UInt32),
    ]
    .into()
});

pub static LINK: LazyLock<Fields> = LazyLock::new(|| {
    vec![
        required("trace_id", Binary),
        required("span_id", Binary),
        required("trace_state", TEXT),
        required("attributes", attributes()),
        required("dropped_attributes_count", UInt32),
        required("flags", UInt32),
    ]
    .into()
});

pub static EXEMPLAR: LazyLock<Fields> = LazyLock::new(|| {
    vec![
        required("filtered_attributes", attributes()),
        required("time_unix_nano", UInt64),
        nullable("value_int", Int64),
        nullable("value_double", Float64),
        required("span_id", Binary),
        required("trace_id", Binary),
    ]
    .into()
});

// Nullable like the struct they stand in: Arrow kernels that make a null struct make null children, which Parquet
// refuses in required fields.
pub static BUCKETS: LazyLock<Fields> = LazyLock::new(|| {
    vec![
        nullable("offset", Int32),
        nullable("bucket_counts", list(UInt64)),
    ]
    .into()
});

pub static QUANTILE: LazyLock<Fields> =
    LazyLock::new(|| vec![required("quantile", Float64), required("value", Float64)].into());

pub static ENTITY_REF: LazyLock<Fields> = LazyLock::new(|| {
    vec![
        required("schema_url", TEXT),
        required("type", TEXT),
        required("id_keys", list(TEXT)),
        required("description_keys", list(TEXT)),
    ]
    .into()
});

pub static RESOURCES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        nullable("tenant", TEXT),
        nullable("attributes", attributes()),
        required("dropped_attributes_count", UInt32),
        required("entity_refs", list(DataType::Struct(ENTITY_REF.clone()))),
        required("schema_url", TEXT),
    ]))
});

pub static SCOPES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        nullable("name", TEXT),
        required("version", TEXT),
        required("attributes", attributes()),
        required("dropped_attributes_count", UInt32),
        required("schema_url", TEXT),
    ]))
});

pub static SPANS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        required("resource", UInt32),
        required("scope", UInt32),
        nullable("trace_id", FixedSizeBinary(16)),
        nullable("span_id", FixedSizeBinary(8)),
        nullable("parent_span_id", FixedSizeBinary(8)),
        nullable("irregular_ids", Binary),
        required("trace_state", TEXT),
        required("flags", UInt32),
        required("name", TEXT),
        required("kind", Int32),
        required("start_time_unix_nano", UInt64),
        required("end_time_unix_nano", UInt64),
        required("attributes", attributes()),
        required("dropped_attributes_count", UInt32),
        required("events", list(DataType::Struct(EVENT.clone()))),
        required("dropped_events_count", UInt32),
        required("links", list(DataType::Struct(LINK.clone()))),
        required("dropped_links_count", UInt32),
        nullable("status_code", Int32),
        nullable("status_message", TEXT),
    ]))
});

pub static LOG_RECORDS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        required("resource", UInt32),
        required("scope", UInt32),
        required("time_unix_nano", UInt64),
        required("observed_time_unix_nano", UInt64),
        required("severity_number", Int32),
        required("severity_text", TEXT),
        nullable("body", DataType::Struct(ANY_VALUE.clone())),
        required("attributes", attributes()),
        required("dropped_attributes_count", UInt32),
        required("flags", UInt32),
        nullable("trace_id", FixedSizeBinary(16)),
        nullable("span_id", FixedSizeBinary(8)),
        nullable("irregular_ids", Binary),
        required("event_name", TEXT),
    ]))
});

pub static DATA_POINTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        required("resource", UInt32),
        required("scope", UInt32),
        required("name", TEXT),
        required("description", TEXT),
        required("unit", TEXT),
        required("metadata", attributes()),
        required("type", UInt8),
        required("aggregation_temporality", Int32),
        required("is_monotonic", Boolean),
        required("attributes", attributes()),
        required("start_time_unix_nano", UInt64),
        required("time_unix_nano", UInt64),
        required("flags", UInt32),
        required("exemplars", list(DataType::Struct(EXEMPLAR.clone()))),
        nullable("value_int", Int64),
        nullable("value_double", Float64),
        nullable("count", UInt64),
        nullable("sum", Float64),
        nullable("min", Float64),
        nullable("max", Float64),
        nullable("bucket_counts", list(UInt64)),
        nullable("explicit_bounds", list(Float64)),
        nullable("scale", Int32),
        nullable("zero_count", UInt64),
        nullable("zero_threshold", Float64),
        nullable("positive", DataType::Struct(BUCKETS.clone())),
        nullable("negative", DataType::Struct(BUCKETS.clone())),
        nullable("quantile_values", list(DataType::Struct(QUANTILE.clone()))),
    ]))
});
