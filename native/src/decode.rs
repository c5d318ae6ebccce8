//! OTLP protobuf bytes -> Arrow columns.
//!
//! Two ways lead there. The quick one (`decode/`) reads a payload once, straight into columns, as long as it is written
//! the way encoders write. On anything else it gives up, and `normalise` either says what is wrong, and where, or turns
//! the payload into the form the quick way reads.

mod columns;
mod cursor;
mod envelope;
mod logs;
mod metrics;
pub(crate) mod nested;
mod places;
mod points;
mod pool;
mod traces;
mod values;

use std::borrow::Cow;
use std::collections::HashMap;

use arrow_array::{Array, RecordBatch, StructArray};
use arrow_pyarrow::ToPyArrow;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};

use crate::descriptor::Signal;
use crate::error::ParseError;
use crate::interchange::batch_to_python;
use crate::json::decode_json;
use crate::normalise::normalise_message;
use crate::schema;
use crate::wire::Reader;
use envelope::{Decoder, Limits, Records, Stop};

/// Arrow's 32-bit offsets must hold whatever a batch's payloads become; nothing grows fourfold.
const MAX_BATCH_BYTES: usize = i32::MAX as usize / 4;

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
    let total = payloads.iter().map(|p| p.len()).sum::<usize>();
    payloads
        .iter()
        .try_for_each(|payload| bounds.admit(payload))?;
    if total > MAX_BATCH_BYTES {
        return Err(ParseError::new(
            format!("batch of {total} bytes, the limit is {MAX_BATCH_BYTES}"),
            0,
        ));
    }
    let (names, numbers) = distinct(tenants);
    let regular: Vec<Cow<'_, [u8]>> = payloads.iter().map(|p| Cow::Borrowed(*p)).collect();
    let failed = match quick(signal, &regular, &names, &numbers, bounds) {
        Ok(decoded) => return Ok(decoded),
        Err(failed) => failed,
    };
    if let Failed::Limit(reason) = failed {
        return Err(ParseError::new(reason, 0));
    }
    // Every payload, not only the one that failed: so this happens once, however many are irregular.
    let mut unknown = 0;
    let mut regular = Vec::with_capacity(payloads.len());
    for (i, payload) in payloads.iter().enumerate() {
        let (bytes, skipped) =
            normalise_message(signal.request(), Reader::new(payload), bounds.depth).map_err(
                |error| {
                    if payloads.len() > 1 {
                        error.inside("payloads", Some(i))
                    } else {
                        error
                    }
                },
            )?;
        unknown += skipped;
        regular.push(Cow::Owned(bytes));
    }
    match quick(signal, &regular, &names, &numbers, bounds) {
        Ok(decoded) => Ok(Decoded {
            unknown: decoded.unknown + unknown,
            ..decoded
        }),
        Err(Failed::Limit(reason)) => Err(ParseError::new(reason, 0)),
        // Not reached as far as anyone knows; refusing is what is left if it ever is.
        Err(Failed::Irregular) => Err(ParseError::new("not readable in its normal form", 0)),
    }
}

/// The distinct tenants, and for each payload the number of its own among them.
fn distinct<'a>(tenants: &[Option<&'a str>]) -> (Vec<Option<&'a str>>, Vec<u32>) {
    let mut names = Vec::new();
    let mut known = HashMap::new();
    let numbers = tenants
        .iter()
        .map(|tenant| {
            *known.entry(*tenant).or_insert_with(|| {
                names.push(*tenant);
                names.len() as u32 - 1
            })
        })
        .collect();
    if names.is_empty() {
        names.push(None);
    }
    (names, numbers)
}

enum Failed {
    Irregular,
    Limit(String),
}

fn quick(
    signal: Signal,
    payloads: &[Cow<'_, [u8]>],
    tenants: &[Option<&str>],
    numbers: &[u32],
    bounds: Bounds,
) -> Result<Decoded, Failed> {
    match signal {
        Signal::Traces => quick_as::<traces::Spans>(payloads, tenants, numbers, bounds),
        Signal::Logs => quick_as::<logs::LogRecords>(payloads, tenants, numbers, bounds),
        Signal::Metrics => quick_as::<metrics::DataPoints>(payloads, tenants, numbers, bounds),
    }
}

fn quick_as<R: Records>(
    payloads: &[Cow<'_, [u8]>],
    tenants: &[Option<&str>],
    numbers: &[u32],
    bounds: Bounds,
) -> Result<Decoded, Failed> {
    let total = payloads.iter().map(|p| p.len()).sum();
    let limits = Limits {
        depth: bounds.depth,
        expansion: bounds.expansion_bytes,
    };
    let mut decoder = Decoder::<R>::new(total, tenants.to_vec(), limits);
    for (i, payload) in payloads.iter().enumerate() {
        decoder
            .request(payload, numbers.get(i).copied().unwrap_or(0))
            .map_err(|stop| match stop {
                Stop::Irregular => Failed::Irregular,
                Stop::TooLarge => Failed::Limit(format!(
                    "columns over {} bytes more than the payload",
                    bounds.expansion_bytes
                )),
            })?;
    }
    let unknown = decoder.unknown;
    // The one way in which it fails is invalid UTF-8, and `normalise` says where.
    let [records, resources, scopes] = decoder.finish().map_err(|_| Failed::Irregular)?;
    Ok(Decoded {
        records,
        resources,
        scopes,
        unknown,
    })
}

/// What pyarrow calls the schemas of records, resources and scopes.
type PySchemas<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Records, resources, scopes, and how many unknown fields were skipped.
type PyDecoded<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, u64);

fn to_python<'py>(batch: RecordBatch, schema: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    batch_to_python(&StructArray::from(batch).into_data(), schema)
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
    let decoded = py.detach(|| {
        let payloads: Vec<&[u8]> = payloads.iter().map(|p| p.as_ref()).collect();
        let tenants: Vec<Option<&str>> = tenants
            .iter()
            .map(|t| t.as_ref().map(|t| t.as_ref()))
            .collect();
        if json {
            decode_json(signal, &payloads, &tenants, bounds)
        } else {
            decode(signal, &payloads, &tenants, bounds)
        }
    })?;
    // Telling pyarrow the schema anew would cost as much as decoding a hundred records.
    Ok((
        to_python(decoded.records, &schemas.0)?,
        to_python(decoded.resources, &schemas.1)?,
        to_python(decoded.scopes, &schemas.2)?,
        decoded.unknown,
    ))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(py_schemas, m)?)?;
    m.add_function(wrap_pyfunction!(py_decode, m)?)
}
