//! OTLP/JSON text <-> protobuf bytes, straight from one to the other without a tree in between.
//!
//! The mapping is protobuf's JSON mapping with OTLP's exceptions (OTLP specification, "JSON Protobuf Encoding"):
//! identifiers in hexadecimal, enums as integers only, lowerCamelCase names only, unknown names ignored.
//! `tests/telflow/test_json.py` states the rules one by one.

mod read;
mod text;
mod write;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::decode::{decode, Bounds, Decoded};
use crate::descriptor::Signal;
use crate::error::ParseError;
use crate::wire::MAX_DEPTH;

/// Protobuf bytes of an OTLP/JSON request, and how many unknown names were ignored.
///
/// Fields stand in the order of the text; everything else is canonical.
/// `depth` is how many levels of messages may stand below the request.
pub fn json_to_protobuf(
    signal: Signal,
    text: &[u8],
    depth: u32,
) -> Result<(Vec<u8>, u64), ParseError> {
    read::request(signal.request(), text, depth)
}

/// `decode` for payloads that are JSON texts.
pub fn decode_json(
    signal: Signal,
    texts: &[&[u8]],
    tenants: &[Option<&str>],
    bounds: Bounds,
) -> Result<Decoded, ParseError> {
    let mut payloads = Vec::with_capacity(texts.len());
    let mut unknown = 0;
    for (i, text) in texts.iter().enumerate() {
        bounds.admit(text)?;
        let (payload, ignored) = json_to_protobuf(signal, text, bounds.depth).map_err(|error| {
            if texts.len() > 1 {
                error.inside("payloads", Some(i))
            } else {
                error
            }
        })?;
        unknown += ignored;
        payloads.push(payload);
    }
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    // The size limit is for what came in; a list of short numbers takes up to four times its text.
    let bounds = Bounds {
        payload_bytes: usize::MAX,
        ..bounds
    };
    let decoded = decode(signal, &payloads, tenants, bounds)?;
    Ok(Decoded {
        unknown: decoded.unknown + unknown,
        ..decoded
    })
}

/// OTLP/JSON text of a request in protobuf bytes; unknown fields are left out.
pub fn protobuf_to_json(signal: Signal, payload: &[u8]) -> Result<Vec<u8>, ParseError> {
    write::request(signal, payload)
}

#[pyfunction]
#[pyo3(name = "json_to_protobuf")]
fn py_json_to_protobuf<'py>(
    py: Python<'py>,
    signal: &str,
    text: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, u64)> {
    let signal = Signal::parse(signal)?;
    let (bytes, unknown) = py.detach(|| json_to_protobuf(signal, text, MAX_DEPTH))?;
    Ok((PyBytes::new(py, &bytes), unknown))
}

#[pyfunction]
#[pyo3(name = "protobuf_to_json")]
fn py_protobuf_to_json<'py>(
    py: Python<'py>,
    signal: &str,
    payload: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let signal = Signal::parse(signal)?;
    let text = py.detach(|| protobuf_to_json(signal, payload))?;
    Ok(PyBytes::new(py, &text))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(py_json_to_protobuf, m)?)?;
    m.add_function(wrap_pyfunction!(py_protobuf_to_json, m)?)
}
