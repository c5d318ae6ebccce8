//! Finding and removing sensitive text, wherever a record batch can hold it.
//!
//! `scan` finds, `shapes`, `numbers` and `tokens` decide what an e-mail address or a card number is, `rules` says what to
//! write instead, `columns`, `values`, `ids` and `nested` walk the Arrow arrays and the protobuf bytes inside them and rebuild what changed.

mod columns;
mod edits;
mod ids;
mod keys;
mod nested;
mod numbers;
mod patterns;
mod rules;
mod scan;
mod shapes;
mod tokens;
mod values;

use std::sync::{Mutex, PoisonError};

use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_data::ArrayData;
use arrow_pyarrow::PyArrowType;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::interchange::batch_from_python;
use keys::KeyCache;
use rules::{Engine, KeySpec, RuleSpec, Tables};

/// Compiled rules. Shared by all threads; holds no data but a bounded cache of attribute keys.
#[pyclass(frozen, module = "telflow._native")]
struct Redactor {
    engine: Engine,
    keys: Mutex<KeyCache>,
}

type Redaction = (
    Option<PyArrowType<RecordBatch>>,
    Option<PyArrowType<ArrayData>>,
    Vec<(String, String, u64)>,
);

#[pymethods]
impl Redactor {
    #[new]
    #[pyo3(signature = (*, rules, keys, hash_key, hash_digits, issuers, ibans, not_domains, skipped_places))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        rules: Vec<RuleSpec>,
        keys: Vec<KeySpec>,
        hash_key: Vec<u8>,
        hash_digits: usize,
        issuers: Vec<(String, String, Vec<usize>)>,
        ibans: Vec<(String, String)>,
        not_domains: Vec<String>,
        skipped_places: Vec<String>,
    ) -> PyResult<Self> {
        let tables = Tables {
            issuers,
            ibans,
            not_domains,
        };
        let engine = Engine::new(rules, keys, hash_key, hash_digits, tables, skipped_places)
            .map_err(PyValueError::new_err)?;
        Ok(Self {
            engine,
            keys: Mutex::new(KeyCache::new()),
        })
    }

    /// One table of a batch: (the changed table, rows that could not be judged, what was replaced).
    fn redact(
        &self,
        py: Python<'_>,
        table: &str,
        batch: &Bound<'_, PyAny>,
        compact: bool,
    ) -> PyResult<Redaction> {
        let batch = batch_from_python(batch)?;
        let done = py.detach(|| {
            // Another thread at work: a fresh cache costs less than waiting.
            let mut fresh;
            let mut shared;
            let cache = match self.keys.try_lock() {
                Ok(guard) => {
                    shared = guard;
                    &mut *shared
                }
                Err(_) => {
                    fresh = KeyCache::new();
                    &mut fresh
                }
            };
            columns::redact_table(&self.engine, cache, table, &batch, compact)
        });
        let done = done.map_err(PyRuntimeError::new_err)?;
        let failed = (!done.failed.is_empty())
            .then(|| PyArrowType(UInt32Array::from(done.failed).into_data()));
        Ok((done.batch.map(PyArrowType), failed, done.counts))
    }

    /// What is found in one text: (start, end, rule name), in bytes.
    fn find(&self, text: &[u8]) -> Vec<(usize, usize, String)> {
        self.engine.find(text)
    }

    /// The text as it may be shown; None when a rule deletes it.
    fn replace<'py>(&self, py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyBytes>> {
        self.engine
            .replace(text)
            .map(|clean| PyBytes::new(py, &clean))
    }

    /// Forget the cached keys.
    fn clear(&self) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = KeyCache::new();
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Redactor>()
}
