//! `telflow._native`: OTLP bytes <-> Arrow, and the few kernels that a benchmark demands.
//!
//! This file only lists what Python sees. Work happens in the modules, with the interpreter lock released.

mod attribute_values;
mod attributes;
mod builders;
mod column;
mod decode;
mod descriptor;
mod encode;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod interchange;
mod json;
mod memory;
mod normalise;
mod redact;
mod row_hash;
mod rows;
mod schema;
mod screen;
mod text;
mod trace_slots;
mod wire;

use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    descriptor::register(m)?;
    normalise::register(m)?;
    decode::register(m)?;
    encode::register(m)?;
    json::register(m)?;
    memory::register(m)?;
    screen::register(m)?;
    redact::register(m)?;
    row_hash::register(m)?;
    rows::register(m)?;
    attribute_values::register(m)?;
    attributes::register(m)?;
    trace_slots::register(m)
}
