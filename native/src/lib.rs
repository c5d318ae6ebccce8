//! `telflow._native`: OTLP bytes <-> Arrow, and the few kernels that a benchmark demands.
//!
//! This file is the whole border to Python: it registers functions and turns errors into exceptions.
//! Work happens in the other modules, with the interpreter lock released.

use pyo3::prelude::*;

#[pymodule]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
