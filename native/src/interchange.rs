//! Arrow data to and from Python without copying it.

use arrow_array::ffi::FFI_ArrowArray;
use arrow_array::ffi_stream::RecordBatchStreamReader;
use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_data::ArrayData;
use arrow_pyarrow::FromPyArrow;
use arrow_schema::ArrowError;
use pyo3::exceptions::PyValueError;
use pyo3::ffi::Py_uintptr_t;
use pyo3::intern;
use pyo3::prelude::*;

/// The batches of a `pyarrow.RecordBatch` (one), `Table` or `RecordBatchReader`; at least one, if without rows.
///
/// Through the C stream interface: unlike the array interface it does not read every value to validate it again.
/// What Python built stays Python's word, so kernels check each offset they follow.
pub fn batches_from_python(stream: &Bound<'_, PyAny>) -> PyResult<Vec<RecordBatch>> {
    let reader = RecordBatchStreamReader::from_pyarrow_bound(stream)?;
    let schema = reader.schema();
    let mut found = reader.collect::<Result<Vec<_>, _>>().map_err(refused)?;
    if found.is_empty() {
        found.push(RecordBatch::new_empty(schema));
    }
    Ok(found)
}

/// The one batch of a `pyarrow.RecordBatch`.
pub fn batch_from_python(stream: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let mut found = batches_from_python(stream)?;
    match (found.pop(), found.is_empty()) {
        (Some(batch), true) => Ok(batch),
        _ => Err(PyValueError::new_err("expected one record batch")),
    }
}

/// A `pyarrow.RecordBatch` of `schema` over `rows`, which is a struct.
///
/// Only the layout travels: Python says what it means, so that text which came from Python as text goes back as text
/// without being checked again.
pub fn batch_to_python<'py>(
    rows: &ArrayData,
    schema: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    import(rows, "RecordBatch", schema)
}

/// A `pyarrow.Array` of `data_type` over `data`.
pub fn array_to_python<'py>(
    data: &ArrayData,
    data_type: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    import(data, "Array", data_type)
}

pub fn refused(error: ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn import<'py>(
    data: &ArrayData,
    class: &str,
    meaning: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = meaning.py();
    let exported = FFI_ArrowArray::new(data);
    py.import(intern!(py, "pyarrow"))?
        .getattr(class)?
        .call_method1(
            intern!(py, "_import_from_c"),
            (&raw const exported as Py_uintptr_t, meaning),
        )
}
