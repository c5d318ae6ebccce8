//! A batch that grows by a payload at a time.
//!
//! Two ways lead into its columns. The quick one reads a payload once, as long as it is written the way encoders write.
//! On anything else it takes back what it has read, and `normalise` either says what is wrong, and where, or turns the
//! payload into the form the quick way reads.

use std::sync::{Mutex, MutexGuard};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};

use super::envelope::{Decoder, Limits, Stop};
use super::{logs, metrics, traces, Bounds, Decoded, PyDecoded, PySchemas};
use crate::descriptor::Signal;
use crate::error::ParseError;
use crate::json::json_to_protobuf;
use crate::normalise::normalise_message;
use crate::wire::Reader;

/// Arrow's 32-bit offsets must hold whatever a batch's payloads become; nothing grows fourfold.
const MAX_BATCH_BYTES: usize = i32::MAX as usize / 4;

/// A batch that grows by a payload at a time.
pub struct Collector {
    decoder: AnyDecoder,
    signal: Signal,
    payload_bytes: usize,
    /// Unknown fields that were skipped on the way to the decoder.
    unknown: u64,
}

enum AnyDecoder {
    Traces(Box<Decoder<traces::Spans>>),
    Logs(Box<Decoder<logs::LogRecords>>),
    Metrics(Box<Decoder<metrics::DataPoints>>),
}

/// The same of a decoder of whatever signal.
macro_rules! any {
    ($any:expr, $decoder:ident => $work:expr) => {
        match $any {
            AnyDecoder::Traces($decoder) => $work,
            AnyDecoder::Logs($decoder) => $work,
            AnyDecoder::Metrics($decoder) => $work,
        }
    };
}

impl Collector {
    /// For payloads of so many bytes in all, as a guess.
    pub fn new(signal: Signal, bytes: usize) -> Self {
        let decoder = match signal {
            Signal::Traces => AnyDecoder::Traces(Box::new(Decoder::with_capacity(bytes))),
            Signal::Logs => AnyDecoder::Logs(Box::new(Decoder::with_capacity(bytes))),
            Signal::Metrics => AnyDecoder::Metrics(Box::new(Decoder::with_capacity(bytes))),
        };
        Self {
            decoder,
            signal,
            payload_bytes: 0,
            unknown: 0,
        }
    }

    pub fn rows(&self) -> usize {
        any!(&self.decoder, decoder => decoder.rows())
    }

    /// Bytes of the columns, counted from what they were made of.
    pub fn bytes(&self) -> usize {
        self.payload_bytes + self.expansion()
    }

    pub fn expansion(&self) -> usize {
        any!(&self.decoder, decoder => decoder.expansion())
    }

    /// Add the records of a payload; when that fails, nothing of it. Returns false when its columns would take more than
    /// `room` bytes besides its own, though no more than it may; then nothing was added either.
    pub fn add(
        &mut self,
        payload: &[u8],
        tenant: Option<&str>,
        bounds: Bounds,
        room: usize,
    ) -> Result<bool, ParseError> {
        bounds.admit(payload)?;
        let total = self.payload_bytes + payload.len();
        if total > MAX_BATCH_BYTES {
            return Err(ParseError::new(
                format!("batch of {total} bytes, the limit is {MAX_BATCH_BYTES}"),
                0,
            ));
        }
        let limits = Limits {
            depth: bounds.depth,
            room: bounds.expansion_bytes.min(room),
        };
        let read = |decoder: &mut AnyDecoder, payload: &[u8]| any!(decoder, decoder => decoder.add(payload, tenant, limits));
        let stopped = match read(&mut self.decoder, payload) {
            Ok(()) => None,
            Err(Stop::Irregular) => {
                let request = self.signal.request();
                let (normal, unknown) =
                    normalise_message(request, Reader::new(payload), bounds.depth)?;
                let stopped = read(&mut self.decoder, &normal).err();
                self.unknown += if stopped.is_none() { unknown } else { 0 };
                stopped
            }
            Err(stop) => Some(stop),
        };
        match stopped {
            None => {
                self.payload_bytes = total;
                Ok(true)
            }
            Some(Stop::TooLarge) if room < bounds.expansion_bytes => Ok(false),
            Some(Stop::TooLarge) => Err(ParseError::new(
                format!(
                    "columns over {} bytes more than the payload",
                    bounds.expansion_bytes
                ),
                0,
            )),
            // Not reached as far as anyone knows; refusing is what is left if it ever is.
            Some(Stop::Irregular) => Err(ParseError::new("not readable in its normal form", 0)),
        }
    }

    pub fn finish(self) -> Result<Decoded, ParseError> {
        let unknown = self.unknown + any!(&self.decoder, decoder => decoder.unknown());
        let [records, resources, scopes] = any!(self.decoder, decoder => decoder.finish())
            .map_err(|error| ParseError::new(error.to_string(), 0))?;
        Ok(Decoded {
            records,
            resources,
            scopes,
            unknown,
        })
    }
}

/// A collector that receiver threads fill and a dataflow empties.
#[pyclass(name = "Collector", module = "telflow._native", frozen)]
pub struct PyCollector {
    signal: Signal,
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// None until the first payload comes.
    open: Option<Collector>,
    /// Bytes of payloads in the last one: a guess of what the next will hold.
    expected: usize,
}

impl PyCollector {
    fn lock(&self) -> PyResult<MutexGuard<'_, State>> {
        // Only a panic leads there, and what it left half done must not pass for data.
        let broken =
            |_| PyRuntimeError::new_err("an earlier error has left the collector unusable");
        self.state.lock().map_err(broken)
    }

    fn grow(
        &self,
        payload: &[u8],
        tenant: Option<&str>,
        json: bool,
        room: usize,
    ) -> PyResult<Option<(usize, usize, usize)>> {
        let normal;
        let (payload, bounds, unknown) = if json {
            self.bounds.admit(payload)?;
            let (bytes, unknown) = json_to_protobuf(self.signal, payload, self.bounds.depth)?;
            normal = bytes;
            // The size limit is for what came in; a list of short numbers takes up to four times its text.
            let bounds = Bounds {
                payload_bytes: usize::MAX,
                ..self.bounds
            };
            (normal.as_slice(), bounds, unknown)
        } else {
            (payload, self.bounds, 0)
        };
        let mut state = self.lock()?;
        let expected = state.expected.max(payload.len());
        let open = state
            .open
            .get_or_insert_with(|| Collector::new(self.signal, expected));
        let before = open.rows();
        if !open.add(payload, tenant, bounds, room)? {
            return Ok(None);
        }
        open.unknown += unknown;
        Ok(Some((open.rows() - before, open.rows(), open.bytes())))
    }
}

#[pymethods]
impl PyCollector {
    #[new]
    fn new(signal: &str, limits: (usize, usize, u32)) -> PyResult<Self> {
        let (payload_bytes, expansion_bytes, depth) = limits;
        Ok(Self {
            signal: Signal::parse(signal)?,
            bounds: Bounds {
                payload_bytes,
                expansion_bytes,
                depth,
            },
            state: Mutex::default(),
        })
    }

    fn add(
        &self,
        py: Python<'_>,
        payload: PyBackedBytes,
        tenant: Option<PyBackedStr>,
        json: bool,
        room: usize,
    ) -> PyResult<Option<(usize, usize, usize)>> {
        py.detach(|| self.grow(&payload, tenant.as_deref(), json, room))
    }

    fn finish<'py>(
        &self,
        py: Python<'py>,
        schemas: PySchemas<'py>,
    ) -> PyResult<Option<PyDecoded<'py>>> {
        let exported = py.detach(|| {
            let mut state = self.lock()?;
            let Some(open) = state.open.take() else {
                return Ok(None);
            };
            state.expected = open.payload_bytes;
            drop(state);
            PyResult::Ok(Some(open.finish()?.export()))
        })?;
        exported
            .map(|exported| exported.into_python(&schemas))
            .transpose()
    }
}
