//! The crate's allocator, as far as Python has to do with it.

use pyo3::prelude::*;

/// Give memory that the crate has freed back to the operating system at once, instead of within a second of use.
#[pyfunction]
fn give_back(py: Python<'_>) {
    py.detach(|| {
        // SAFETY: `mi_collect` takes no pointer, may be called at any time by any thread, and frees nothing that is in
        // use; it is `unsafe` only because it is foreign. There is no safe way to it.
        #[allow(unsafe_code)]
        unsafe {
            libmimalloc_sys::mi_collect(true);
        }
    });
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(give_back, m)?)
}
