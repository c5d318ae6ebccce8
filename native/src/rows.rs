//! Rows of record batches: choosing, comparing, counting them.

use std::collections::HashMap;

use arrow_array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow_data::ArrayData;
use arrow_pyarrow::PyArrowType;
use arrow_schema::{ArrowError, DataType};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::column::{broken, columns, gather_rows, part, Column, Runs, Values};
use crate::interchange::{
    array_to_python, batch_from_python, batch_to_python, batches_from_python, refused,
};

/// Rows of `batch` at `indices` (uint32), in that order.
#[pyfunction]
fn take_rows<'py>(
    batch: &Bound<'py, PyAny>,
    indices: PyArrowType<ArrayData>,
    schema: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    if indices.0.data_type() != &DataType::UInt32 || indices.0.null_count() > 0 {
        return Err(PyValueError::new_err(
            "expected row numbers as uint32 without nulls",
        ));
    }
    let (batch, indices) = (batch_from_python(batch)?, UInt32Array::from(indices.0));
    let taken = schema.py().detach(|| {
        let mut runs = Runs::default();
        for &row in indices.values() {
            if row as usize >= batch.num_rows() {
                return Err(ArrowError::InvalidArgumentError(format!(
                    "row {row} of a batch of {} rows",
                    batch.num_rows()
                )));
            }
            runs.push(0, row, 1);
        }
        gather_rows(&[&batch], &runs)
    });
    batch_to_python(&taken.map_err(refused)?, schema)
}

/// Rows of `batch` for which `mask` is true; null counts as false.
#[pyfunction]
fn filter_rows<'py>(
    batch: &Bound<'py, PyAny>,
    mask: PyArrowType<ArrayData>,
    schema: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let batch = batch_from_python(batch)?;
    if mask.0.data_type() != &DataType::Boolean || mask.0.len() != batch.num_rows() {
        return Err(PyValueError::new_err(format!(
            "expected a mask of {} booleans",
            batch.num_rows()
        )));
    }
    let mask = BooleanArray::from(mask.0);
    let kept = schema.py().detach(|| {
        let mut runs = Runs::default();
        let bits = match mask.nulls() {
            Some(nulls) => mask.values() & nulls.inner(),
            None => mask.values().clone(),
        };
        for (start, end) in bits.set_slices() {
            runs.push(0, start as u32, (end - start) as u32);
        }
        gather_rows(&[&batch], &runs)
    });
    batch_to_python(&kept.map_err(refused)?, schema)
}

/// The rows of all batches of a stream, equal ones once; and for each old row, in order, its row number there.
///
/// Equal means equal values: NaN equals NaN, -0.0 is not 0.0, null equals null.
#[pyfunction]
fn merge_distinct<'py>(
    batches: &Bound<'py, PyAny>,
    schema: &Bound<'py, PyAny>,
    uint32: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let found = batches_from_python(batches)?;
    let merged = schema.py().detach(|| -> Result<_, ArrowError> {
        let sources: Vec<_> = found.iter().collect();
        let (numbers, firsts) = number_distinct(&sources)?;
        Ok((gather_rows(&sources, &firsts)?, numbers))
    });
    let (rows, numbers) = merged.map_err(refused)?;
    let numbers = UInt32Array::from(numbers).into_data();
    Ok((
        batch_to_python(&rows, schema)?,
        array_to_python(&numbers, uint32)?,
    ))
}

/// The number of every row and where each number appears first.
fn number_distinct(batches: &[&RecordBatch]) -> Result<(Vec<u32>, Runs), ArrowError> {
    let mut seen: HashMap<Vec<u8>, u32> = HashMap::new();
    let (mut numbers, mut firsts, mut bytes) = (Vec::new(), Runs::default(), Vec::new());
    for (source, batch) in batches.iter().enumerate() {
        let columns = columns(batch.columns())?;
        for row in 0..batch.num_rows() {
            bytes.clear();
            for column in &columns {
                write_value(column, row, &mut bytes)?;
            }
            if let Some(number) = seen.get(&bytes) {
                numbers.push(*number);
                continue;
            }
            let number = seen.len() as u32;
            seen.insert(bytes.clone(), number);
            numbers.push(number);
            firsts.push(source as u32, row as u32, 1);
        }
    }
    Ok((numbers, firsts))
}

/// The first row in which two batches of the same columns and length differ, equality as in `merge_distinct`.
#[pyfunction]
fn first_difference(
    py: Python<'_>,
    left: &Bound<'_, PyAny>,
    right: &Bound<'_, PyAny>,
) -> PyResult<Option<usize>> {
    let (left, right) = (batch_from_python(left)?, batch_from_python(right)?);
    let found = py.detach(|| -> Result<Option<usize>, ArrowError> {
        let (a, b) = (columns(left.columns())?, columns(right.columns())?);
        let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
        for row in 0..left.num_rows().min(right.num_rows()) {
            of_a.clear();
            of_b.clear();
            for (a, b) in a.iter().zip(&b) {
                write_value(a, row, &mut of_a)?;
                write_value(b, row, &mut of_b)?;
            }
            if of_a != of_b {
                return Ok(Some(row));
            }
        }
        Ok(None)
    });
    found.map_err(refused)
}

/// Append bytes that are equal for equal values and differ for different ones.
fn write_value(column: &Column<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    if row >= column.len {
        return Err(broken("a row beyond the end of its column"));
    }
    if column.is_null(row) {
        out.push(0);
        return Ok(());
    }
    out.push(1);
    match &column.values {
        Values::Bits(bits) => out.push(u8::from(bits.value(row))),
        Values::Fixed {
            width,
            bytes,
            data_type,
        } => {
            let value = part(bytes, row * width, (row + 1) * width)?;
            match (data_type, value.first_chunk::<8>()) {
                (DataType::Float64, Some(chunk)) if f64::from_le_bytes(*chunk).is_nan() => {
                    out.extend_from_slice(&f64::NAN.to_le_bytes());
                }
                _ => out.extend_from_slice(value),
            }
        }
        Values::Bytes { offsets, bytes } => {
            let (start, end) = span(offsets, row)?;
            out.extend_from_slice(&(end - start).to_le_bytes());
            out.extend_from_slice(part(bytes, start, end)?);
        }
        Values::List { offsets, items } => {
            let (start, end) = span(offsets, row)?;
            out.extend_from_slice(&(end - start).to_le_bytes());
            for item in start..end {
                write_value(items, item, out)?;
            }
        }
        Values::Struct { columns, .. } => {
            for column in columns {
                write_value(column, row, out)?;
            }
        }
    }
    Ok(())
}

#[inline]
pub fn span(offsets: &[i32], row: usize) -> Result<(usize, usize), ArrowError> {
    match offsets.get(row..row + 2) {
        Some(&[start, end]) if 0 <= start && start <= end => Ok((start as usize, end as usize)),
        _ => Err(broken("offsets that do not increase")),
    }
}

/// Bytes of Arrow buffers that the rows of `batch` occupy; what a slice hides is not counted.
#[pyfunction]
fn count_bytes(batch: &Bound<'_, PyAny>) -> PyResult<usize> {
    let batch = batch_from_python(batch)?;
    let columns = columns(batch.columns()).map_err(refused)?;
    let mut total = 0;
    for column in &columns {
        total += bytes_of(column, 0, batch.num_rows()).map_err(refused)?;
    }
    Ok(total)
}

fn bytes_of(column: &Column<'_>, start: usize, end: usize) -> Result<usize, ArrowError> {
    let rows = end - start;
    let nulls = if column.nulls.is_some() {
        rows.div_ceil(8)
    } else {
        0
    };
    let bounds = |offsets: &[i32]| match (offsets.get(start), offsets.get(end)) {
        (Some(first), Some(last)) if 0 <= *first && first <= last => {
            Ok((*first as usize, *last as usize))
        }
        _ => Err(broken("offsets that do not increase")),
    };
    Ok(nulls
        + match &column.values {
            Values::Bits(_) => rows.div_ceil(8),
            Values::Fixed { width, .. } => rows * width,
            Values::Bytes { offsets, .. } => {
                let (first, last) = bounds(offsets)?;
                (rows + 1) * 4 + last - first
            }
            Values::List { offsets, items } => {
                let (first, last) = bounds(offsets)?;
                (rows + 1) * 4 + bytes_of(items, first, last)?
            }
            Values::Struct { columns, .. } => {
                let mut total = 0;
                for column in columns {
                    total += bytes_of(column, start, end)?;
                }
                total
            }
        })
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(take_rows, m)?)?;
    m.add_function(wrap_pyfunction!(filter_rows, m)?)?;
    m.add_function(wrap_pyfunction!(merge_distinct, m)?)?;
    m.add_function(wrap_pyfunction!(first_difference, m)?)?;
    m.add_function(wrap_pyfunction!(count_bytes, m)?)
}
