//! OTLP protobuf bytes -> Arrow columns.

mod collector;
pub(crate) mod columns;
mod cursor;
mod entity_refs;
mod envelope;
mod logs;
mod metrics;
pub(crate) mod nested;
mod places;
mod points;
mod pool;
mod traces;
mod values;

use arrow_array::ffi::FFI_ArrowArray;
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_pyarrow::ToPyArrow;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};

use crate::descriptor::Signal;
use crate::error::ParseError;
use crate::interchange::exported_batch_to_python;
use crate::json::decode_json;
use crate::schema;
use collector::Collector;

/// A batch, and how many unknown fields were skipped.
pub struct Decoded {
    pub records: RecordBatch,
    pub resources: RecordBatch,
    pub scopes: RecordBatch,
    pub unknown: u64,
}

/// What a batch may cost.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Bytes of one payload.
    pub payload_bytes: usize,
    /// Bytes of columns beyond the payloads' own.
    pub expansion_bytes: usize,
    /// Levels of messages and groups below the request.
    pub depth: u32,
}

impl Bounds {
    /// Refuse a payload that is too large.
    pub fn admit(&self, payload: &[u8]) -> Result<(), ParseError> {
        let (size, limit) = (payload.len(), self.payload_bytes);
        if size <= limit {
            return Ok(());
        }
        Err(ParseError::new(
            format!("payload of {size} bytes, the limit is {limit}"),
            limit,
        ))
    }
}

/// Read payloads of one signal into one batch; `tenants` names the tenant of each, or of none when it is empty.
pub fn decode(
    signal: Signal,
    payloads: &[&[u8]],
    tenants: &[Option<&str>],
    bounds: Bounds,
) -> Result<Decoded, ParseError> {
    let mut collector = Collector::new(signal, payloads.iter().map(|p| p.len()).sum());
    for (i, payload) in payloads.iter().enumerate() {
        let tenant = tenants.get(i).copied().flatten();
        let bounds = Bounds {
            expansion_bytes: bounds.expansion_bytes.saturating_sub(collector.expansion()),
            ..bounds
        };
        collector
            .add(payload, tenant, bounds, usize::MAX)
            .map_err(|error| {
                if payloads.len() > 1 {
                    error.inside("payloads", Some(i))
                } else {
                    error
                }
            })?;
    }
    collector.finish()
}

/// What pyarrow calls the schemas of records, resources and scopes.
type PySchemas<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Records, resources, scopes, and how many unknown fields were skipped.
type PyDecoded<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, u64);

/// A batch on its way to Python.
struct Exported {
    tables: [FFI_ArrowArray; 3],
    unknown: u64,
}

impl Decoded {
    fn export(self) -> Exported {
        Exported {
            tables: [self.records, self.resources, self.scopes]
                .map(|table| FFI_ArrowArray::new(&StructArray::from(table).into_data())),
            unknown: self.unknown,
        }
    }
}

impl Exported {
    /// With the schemas as Python objects: telling pyarrow anew would cost as much as decoding a hundred records.
    fn into_python<'py>(mut self, schemas: &PySchemas<'py>) -> PyResult<PyDecoded<'py>> {
        let [records, resources, scopes] = &mut self.tables;
        Ok((
            exported_batch_to_python(records, &schemas.0)?,
            exported_batch_to_python(resources, &schemas.1)?,
            exported_batch_to_python(scopes, &schemas.2)?,
            self.unknown,
        ))
    }
}

/// What `schema.rs` says of a signal's records, of resources and of scopes.
#[pyfunction]
#[pyo3(name = "schemas")]
fn py_schemas<'py>(py: Python<'py>, signal: &str) -> PyResult<[Bound<'py, PyAny>; 3]> {
    let records = match Signal::parse(signal)? {
        Signal::Traces => &schema::SPANS,
        Signal::Logs => &schema::LOG_RECORDS,
        Signal::Metrics => &schema::DATA_POINTS,
    };
    let [records, resources, scopes] =
        [records, &schema::RESOURCES, &schema::SCOPES].map(|s| s.as_ref().to_pyarrow(py));
    Ok([records?, resources?, scopes?])
}

#[pyfunction]
#[pyo3(name = "decode")]
fn py_decode<'py>(
    py: Python<'py>,
    payloads: Vec<PyBackedBytes>,
    signal: &str,
    json: bool,
    tenants: Vec<Option<PyBackedStr>>,
    limits: (usize, usize, u32),
    schemas: PySchemas<'py>,
) -> PyResult<PyDecoded<'py>> {
    let signal = Signal::parse(signal)?;
    let (payload_bytes, expansion_bytes, depth) = limits;
    let bounds = Bounds {
        payload_bytes,
        expansion_bytes,
        depth,
    };
    let exported = py.detach(|| {
        let payloads: Vec<&[u8]> = payloads.iter().map(|p| p.as_ref()).collect();
        let tenants: Vec<Option<&str>> = tenants
            .iter()
            .map(|t| t.as_ref().map(|t| t.as_ref()))
            .collect();
        let decoded = if json {
            decode_json(signal, &payloads, &tenants, bounds)
        } else {
            decode(signal, &payloads, &tenants, bounds)
        };
        decoded.map(Decoded::export)
    })?;
    exported.into_python(&schemas)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(py_schemas, m)?)?;
    m.add_function(wrap_pyfunction!(py_decode, m)?)?;
    m.add_class::<collector::PyCollector>()
}
