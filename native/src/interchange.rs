//! Arrow data to and from Python without copying it.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;

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

/// The way in for batches of one schema that come again and again.
///
/// The streams they come through stay open: making a stream, telling the schema and understanding it would take several
/// times as long as handing over a batch.
pub struct Inlet(Mutex<Vec<Stream>>);

struct Stream {
    schema: Py<PyAny>,
    /// What the next batch is taken from.
    waiting: Py<PyList>,
    reader: RecordBatchStreamReader,
}

impl Inlet {
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Like `batch_from_python`.
    pub fn batch(&self, batch: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
        let py = batch.py();
        let schema = batch.getattr(intern!(py, "schema"))?;
        // A guard in the `match` itself would live as long as it, and calling Python may let go of the interpreter: a
        // thread that then has it would wait here for this one, and this one for it.
        let idle = self.open().pop();
        let mut stream = match idle {
            Some(stream) if stream.is_of(&schema)? => stream,
            _ => Stream::open(&schema)?,
        };
        stream.waiting.bind(py).append(batch)?;
        let read = stream.reader.next();
        let read = read.ok_or_else(|| PyValueError::new_err("expected a record batch"))?;
        let read = read.map_err(refused)?;
        self.open().push(stream);
        Ok(read)
    }

    /// As many as there were batches read at the same time, and not in use now.
    fn open(&self) -> MutexGuard<'_, Vec<Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    fn open(schema: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = schema.py();
        let waiting = PyList::empty(py);
        // Python's iter(waiting.pop, None): a batch for each call, and never an end.
        let pop = waiting.getattr("pop")?;
        let batches = py
            .import("builtins")?
            .call_method1("iter", (pop, py.None()))?;
        let reader = py
            .import("pyarrow")?
            .getattr("RecordBatchReader")?
            .call_method1("from_batches", (schema, batches))?;
        Ok(Self {
            schema: schema.clone().unbind(),
            waiting: waiting.unbind(),
            reader: RecordBatchStreamReader::from_pyarrow_bound(&reader)?,
        })
    }

    fn is_of(&self, schema: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = schema.py();
        let known = self.schema.bind(py);
        known
            .call_method1(intern!(py, "equals"), (schema,))?
            .is_truthy()
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
    exported_batch_to_python(&mut FFI_ArrowArray::new(rows), schema)
}

/// The same of rows that are exported already, which needs no interpreter lock.
pub fn exported_batch_to_python<'py>(
    rows: &mut FFI_ArrowArray,
    schema: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    static IMPORT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    import(rows, &IMPORT, "RecordBatch", schema)
}

/// A `pyarrow.Array` of `data_type` over `data`.
pub fn array_to_python<'py>(
    data: &ArrayData,
    data_type: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    static IMPORT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    import(&mut FFI_ArrowArray::new(data), &IMPORT, "Array", data_type)
}

pub fn refused(error: ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// `known` keeps the method of `class` that imports.
fn import<'py>(
    exported: &mut FFI_ArrowArray,
    known: &PyOnceLock<Py<PyAny>>,
    class: &str,
    meaning: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = meaning.py();
    let method = known.get_or_try_init(py, || {
        let class = py.import("pyarrow")?.getattr(class)?;
        PyResult::Ok(class.getattr("_import_from_c")?.unbind())
    })?;
    let address = std::ptr::from_mut(exported) as Py_uintptr_t;
    method.bind(py).call1((address, meaning))
}
