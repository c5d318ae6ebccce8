//! Building arrays anew around the few rows that changed, so that no byte of the old text stays behind a view.

use std::sync::Arc;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::types::{ArrowPrimitiveType, ByteArrayType};
use arrow_array::{Array, ArrayRef, BooleanArray, GenericByteArray, PrimitiveArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

/// One step of building a column; rows that no step names are dropped.
#[derive(Debug)]
pub enum Step<'a, T: ?Sized> {
    /// Rows as they are.
    Copy(usize, usize),
    Set(&'a T),
    Null,
}

/// Turn sparse changes (row, change) into steps that cover all `rows`.
pub fn steps<'a, T: ?Sized, E>(
    rows: usize,
    edits: &'a [(usize, E)],
    change: impl Fn(usize, &'a E) -> Change<'a, T>,
) -> (Vec<Step<'a, T>>, bool) {
    let mut out = Vec::with_capacity(2 * edits.len() + 1);
    let mut next = 0;
    let mut changed = false;
    for (row, edit) in edits {
        let step = match change(*row, edit) {
            Change::Same => continue,
            Change::Drop => None,
            Change::Set(content) => Some(Step::Set(content)),
            Change::Null => Some(Step::Null),
        };
        changed = true;
        if next < *row {
            out.push(Step::Copy(next, *row));
        }
        out.extend(step);
        next = row + 1;
    }
    if next < rows {
        out.push(Step::Copy(next, rows));
    }
    (out, changed)
}

/// What happens to one row of one column.
pub enum Change<'a, T: ?Sized> {
    Same,
    Drop,
    Set(&'a T),
    Null,
}

fn row_count<T: ?Sized>(steps: &[Step<'_, T>]) -> usize {
    let rows = |step: &Step<'_, T>| match step {
        Step::Copy(from, to) => to - from,
        _ => 1,
    };
    steps.iter().map(rows).sum()
}

fn validity<T: ?Sized>(old: Option<&NullBuffer>, steps: &[Step<'_, T>]) -> Option<NullBuffer> {
    let mut bits = BooleanBufferBuilder::new(row_count(steps));
    for step in steps {
        match step {
            Step::Copy(from, to) => match old {
                Some(nulls) => bits.append_buffer(&nulls.inner().slice(*from, to - from)),
                None => bits.append_n(to - from, true),
            },
            Step::Set(_) => bits.append(true),
            Step::Null => bits.append(false),
        }
    }
    let nulls = NullBuffer::new(bits.finish());
    (nulls.null_count() > 0).then_some(nulls)
}

/// Strings or binary. Fails when the bytes are no UTF-8, or too many for 32-bit offsets.
pub fn bytes<T: ByteArrayType<Offset = i32>>(
    old: &GenericByteArray<T>,
    steps: &[Step<'_, [u8]>],
) -> Result<ArrayRef, String> {
    let from_offsets = old.value_offsets();
    let content = old.value_data();
    let mut offsets = Vec::with_capacity(row_count(steps) + 1);
    let mut values: Vec<u8> = Vec::with_capacity(content.len());
    offsets.push(0_i32);
    let end_of = |values: &Vec<u8>| {
        i32::try_from(values.len()).map_err(|_| "a column grew beyond 2 GiB".to_owned())
    };
    for step in steps {
        match step {
            Step::Copy(from, to) => {
                let (first, last) = (from_offsets[*from], from_offsets[*to]);
                let base = end_of(&values)?;
                values.extend_from_slice(&content[first as usize..last as usize]);
                end_of(&values)?;
                let moved = from_offsets[from + 1..=*to].iter();
                offsets.extend(moved.map(|offset| offset - first + base));
            }
            Step::Set(text) => {
                values.extend_from_slice(text);
                offsets.push(end_of(&values)?);
            }
            Step::Null => offsets.push(end_of(&values)?),
        }
    }
    let array = GenericByteArray::<T>::try_new(
        OffsetBuffer::new(ScalarBuffer::from(offsets)),
        Buffer::from_vec(values),
        validity(old.nulls(), steps),
    );
    // The error of arrow-rs may quote the text.
    Ok(Arc::new(
        array.map_err(|_| "a string column is not UTF-8".to_owned())?,
    ))
}

pub fn primitive<T: ArrowPrimitiveType>(
    old: &PrimitiveArray<T>,
    steps: &[Step<'_, T::Native>],
) -> ArrayRef {
    let mut values: Vec<T::Native> = Vec::with_capacity(row_count(steps));
    for step in steps {
        match step {
            Step::Copy(from, to) => values.extend_from_slice(&old.values()[*from..*to]),
            Step::Set(value) => values.push(**value),
            Step::Null => values.push(T::Native::default()),
        }
    }
    let nulls = validity(old.nulls(), steps);
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))
}

pub fn boolean(old: &BooleanArray, steps: &[Step<'_, bool>]) -> ArrayRef {
    let mut values = BooleanBufferBuilder::new(row_count(steps));
    for step in steps {
        match step {
            Step::Copy(from, to) => values.append_buffer(&old.values().slice(*from, to - from)),
            Step::Set(value) => values.append(**value),
            Step::Null => values.append(false),
        }
    }
    let values: BooleanBuffer = values.finish();
    Arc::new(BooleanArray::new(values, validity(old.nulls(), steps)))
}
