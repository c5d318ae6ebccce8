//! Arrow columns -> OTLP protobuf bytes.
//!
//! Records are grouped by resource, scope and metric, and written from the last to the first (`backward.rs`), so that one
//! pass over the columns is enough.

mod as_json;
mod backward;
mod groups;
mod input;
mod logs;
mod metrics;
mod places;
mod points;
mod request;
mod split;
mod traces;
mod values;

use std::cell::RefCell;

use arrow_array::RecordBatch;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::descriptor::Signal;
use crate::interchange::Inlet;
use backward::Backward;
use groups::Groups;
use input::{Failure, Result};
use places::Places;
use request::Source;

mod errors {
    pyo3::import_exception!(telflow.errors, EncodeError);
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        errors::EncodeError::new_err(failure.0)
    }
}

/// The three tables of a batch.
pub struct Batch {
    pub records: RecordBatch,
    pub resources: RecordBatch,
    pub scopes: RecordBatch,
}

/// Write a batch as one request at the end of a buffer.
pub fn encode(signal: Signal, batch: &Batch, buffer: Vec<u8>) -> Result<Backward> {
    match signal {
        Signal::Traces => whole(batch, &traces::Spans::of(&batch.records)?, buffer),
        Signal::Logs => whole(batch, &logs::LogRecords::of(&batch.records)?, buffer),
        Signal::Metrics => whole(batch, &metrics::DataPoints::of(&batch.records)?, buffer),
    }
}

fn whole(batch: &Batch, source: &impl Source, buffer: Vec<u8>) -> Result<Backward> {
    let places = Places::of(&batch.resources, &batch.scopes)?;
    let order = Groups::of(&batch.records, &places, source)?;
    let mut out = Backward::new(buffer, source.size());
    request::write(&order.groups, &order, &places, source, &mut out);
    out.check()?;
    Ok(out)
}

/// What an exporter asks of `encode_split`.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub signal: Signal,
    pub json: bool,
    /// Bytes of the largest request.
    pub limit: usize,
}

/// Write a batch as requests of at most `wanted.limit` bytes each.
pub fn encode_split(wanted: Wanted, batch: &Batch) -> Result<Vec<Vec<u8>>> {
    match wanted.signal {
        Signal::Traces => parts(wanted, batch, &traces::Spans::of(&batch.records)?),
        Signal::Logs => parts(wanted, batch, &logs::LogRecords::of(&batch.records)?),
        Signal::Metrics => parts(wanted, batch, &metrics::DataPoints::of(&batch.records)?),
    }
}

fn parts(wanted: Wanted, batch: &Batch, source: &impl Source) -> Result<Vec<Vec<u8>>> {
    let places = Places::of(&batch.resources, &batch.scopes)?;
    let order = Groups::of(&batch.records, &places, source)?;
    let records = batch.records.num_rows();
    let Wanted {
        signal,
        json,
        limit,
    } = wanted;
    if json {
        as_json::split(signal, &order, records, &places, source, limit)
    } else {
        split::split(&order, records, &places, source, limit)
    }
}

fn import(
    signal: Signal,
    records: &Bound<'_, PyAny>,
    resources: &Bound<'_, PyAny>,
    scopes: &Bound<'_, PyAny>,
) -> PyResult<Batch> {
    static SPANS: Inlet = Inlet::new();
    static LOG_RECORDS: Inlet = Inlet::new();
    static DATA_POINTS: Inlet = Inlet::new();
    static RESOURCES: Inlet = Inlet::new();
    static SCOPES: Inlet = Inlet::new();
    let inlet = match signal {
        Signal::Traces => &SPANS,
        Signal::Logs => &LOG_RECORDS,
        Signal::Metrics => &DATA_POINTS,
    };
    Ok(Batch {
        records: inlet.batch(records)?,
        resources: RESOURCES.batch(resources)?,
        scopes: SCOPES.batch(scopes)?,
    })
}

/// The largest buffer that a thread keeps for its next batch.
const KEEP_BYTES: usize = 16 << 20;

thread_local! {
    /// Growing and zeroing a buffer costs about as much as filling it.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[pyfunction]
#[pyo3(name = "encode")]
fn py_encode<'py>(
    py: Python<'py>,
    signal: &str,
    json: bool,
    records: &Bound<'py, PyAny>,
    resources: &Bound<'py, PyAny>,
    scopes: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    let signal = Signal::parse(signal)?;
    let batch = import(signal, records, resources, scopes)?;
    let (out, text) = py.detach(|| {
        let out = encode(signal, &batch, BUFFER.take())?;
        let text = if json {
            Some(as_json::text(signal, out.written())?)
        } else {
            None
        };
        Ok::<_, Failure>((out, text))
    })?;
    let bytes = PyBytes::new(py, text.as_deref().unwrap_or(out.written()));
    let buffer = out.into_buffer();
    if buffer.len() <= KEEP_BYTES {
        BUFFER.set(buffer);
    }
    Ok(bytes)
}

#[pyfunction]
#[pyo3(name = "encode_split")]
fn py_encode_split<'py>(
    py: Python<'py>,
    signal: &str,
    json: bool,
    records: &Bound<'py, PyAny>,
    resources: &Bound<'py, PyAny>,
    scopes: &Bound<'py, PyAny>,
    max_bytes: usize,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let signal = Signal::parse(signal)?;
    let batch = import(signal, records, resources, scopes)?;
    let wanted = Wanted {
        signal,
        json,
        limit: max_bytes,
    };
    let parts = py.detach(|| encode_split(wanted, &batch))?;
    Ok(parts.iter().map(|part| PyBytes::new(py, part)).collect())
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(py_encode, m)?)?;
    m.add_function(wrap_pyfunction!(py_encode_split, m)?)
}
