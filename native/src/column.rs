//! A typed look at an Arrow array, and new arrays out of runs of rows of others.
//!
//! Covers the types of `telflow/schema.py`. Text is kept as bytes: kernels move it, they do not read it.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type, UInt8Type};
use arrow_array::{make_array, Array, ArrayRef, BinaryArray, ListArray, RecordBatch};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, Field, Fields};

use crate::builders::{BitWriter, Offsets};

/// One array, seen as its buffers.
pub struct Column<'a> {
    pub len: usize,
    pub nulls: Option<&'a NullBuffer>,
    pub values: Values<'a>,
}

pub enum Values<'a> {
    Bits(&'a BooleanBuffer),
    Fixed {
        width: usize,
        bytes: &'a [u8],
        data_type: DataType,
    },
    Bytes {
        offsets: &'a [i32],
        bytes: &'a [u8],
    },
    List {
        offsets: &'a [i32],
        items: Box<Column<'a>>,
    },
    Struct {
        names: Vec<&'a str>,
        columns: Vec<Column<'a>>,
    },
}

/// `len` rows from row `start` of source number `source`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    pub source: u32,
    pub start: u32,
    pub len: u32,
}

/// Runs in the order of the result; neighbours become one.
#[derive(Default)]
pub struct Runs {
    pub runs: Vec<Run>,
    pub rows: usize,
}

impl Runs {
    #[inline]
    pub fn push(&mut self, source: u32, start: u32, len: u32) {
        if len == 0 {
            return;
        }
        self.rows += len as usize;
        if let Some(last) = self.runs.last_mut() {
            if last.source == source && last.start + last.len == start {
                last.len += len;
                return;
            }
        }
        self.runs.push(Run { source, start, len });
    }
}

impl<'a> Column<'a> {
    pub fn new(array: &'a dyn Array) -> Result<Self, ArrowError> {
        let values = match array.data_type() {
            DataType::Boolean => Values::Bits(array.as_boolean().values()),
            DataType::Utf8 => {
                let array = array.as_string::<i32>();
                Values::Bytes {
                    offsets: array.value_offsets(),
                    bytes: array.value_data(),
                }
            }
            DataType::Binary => {
                let array = array.as_binary::<i32>();
                Values::Bytes {
                    offsets: array.value_offsets(),
                    bytes: array.value_data(),
                }
            }
            DataType::List(_) => {
                let array = array.as_list::<i32>();
                Values::List {
                    offsets: array.value_offsets(),
                    items: Box::new(Column::new(array.values())?),
                }
            }
            DataType::Struct(fields) => Values::Struct {
                names: fields.iter().map(|field| field.name().as_str()).collect(),
                columns: columns(array.as_struct().columns())?,
            },
            data_type => {
                let bytes = fixed_bytes(array)?;
                Values::Fixed {
                    width: width(data_type).unwrap_or(0),
                    bytes,
                    data_type: data_type.clone(),
                }
            }
        };
        Ok(Self {
            len: array.len(),
            nulls: array.nulls().filter(|nulls| nulls.null_count() > 0),
            values,
        })
    }

    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    /// What a column of nulls is rebuilt as, unless it has children.
    fn leaf_of_nulls(&self) -> Option<DataType> {
        if self.len > 0 && self.nulls.map(NullBuffer::null_count) != Some(self.len) {
            return None;
        }
        match &self.values {
            Values::Bits(_) => Some(DataType::Boolean),
            Values::Fixed { data_type, .. } => Some(data_type.clone()),
            Values::Bytes { .. } => Some(DataType::Binary),
            Values::List { .. } | Values::Struct { .. } => None,
        }
    }
}

pub fn columns(arrays: &[ArrayRef]) -> Result<Vec<Column<'_>>, ArrowError> {
    arrays.iter().map(|array| Column::new(array)).collect()
}

fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        other => other.primitive_width(),
    }
}

fn fixed_bytes(array: &dyn Array) -> Result<&[u8], ArrowError> {
    macro_rules! primitive {
        ($($data_type:ident => $native:ty),*) => {
            match array.data_type() {
                $(DataType::$data_type => array.as_primitive::<$native>().values().inner().as_slice(),)*
                DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value_data(),
                other => return Err(ArrowError::NotYetImplemented(format!("columns of type {other}"))),
            }
        };
    }
    Ok(primitive!(
        UInt8 => UInt8Type,
        Int32 => Int32Type,
        UInt32 => UInt32Type,
        Int64 => Int64Type,
        UInt64 => UInt64Type,
        Float64 => Float64Type
    ))
}

/// The rows that `runs` name, as one struct; `sources` have the same columns.
pub fn gather_rows(sources: &[&RecordBatch], runs: &Runs) -> Result<ArrayData, ArrowError> {
    let seen = sources
        .iter()
        .map(|batch| columns(batch.columns()))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(first) = sources.first() else {
        return Err(ArrowError::InvalidArgumentError(
            "nothing to gather from".into(),
        ));
    };
    let schema = first.schema_ref();
    let children = (0..first.num_columns())
        .map(|i| {
            gather(
                &seen.iter().map(|source| &source[i]).collect::<Vec<_>>(),
                runs,
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    struct_of(
        schema.fields().iter().map(|field| field.name().as_str()),
        runs.rows,
        None,
        children,
    )
}

/// The rows that `runs` name out of `sources`, which have the same type.
///
/// The result's type says how it is laid out, with text as `Binary`; see `interchange::array_to_python`.
pub fn gather(sources: &[&Column<'_>], runs: &Runs) -> Result<ArrayData, ArrowError> {
    let rows = runs.rows;
    // Most children of attributes and values are nothing but nulls.
    let leaves: Option<Vec<_>> = sources
        .iter()
        .map(|column| column.leaf_of_nulls())
        .collect();
    if let Some([leaf, ..]) = leaves.as_deref() {
        return Ok(ArrayData::new_null(leaf, rows));
    }
    let nulls = gather_nulls(sources, runs)?;
    match &sources[0].values {
        Values::Bits(_) => {
            let bits = each(sources, |column| match &column.values {
                Values::Bits(bits) => Some(*bits),
                _ => None,
            })?;
            let mut out = BitWriter::new(rows);
            for run in &runs.runs {
                out.extend(
                    bits[run.source as usize],
                    run.start as usize,
                    run.len as usize,
                )?;
            }
            ArrayData::try_new(
                DataType::Boolean,
                rows,
                nulls,
                0,
                vec![out.finish()],
                vec![],
            )
        }
        Values::Fixed {
            width, data_type, ..
        } => {
            let bytes = each(sources, |column| match &column.values {
                Values::Fixed {
                    bytes,
                    data_type: found,
                    ..
                } if found == data_type => Some(*bytes),
                _ => None,
            })?;
            let out = match *width {
                1 => gather_fixed::<1>(&bytes, runs),
                4 => gather_fixed::<4>(&bytes, runs),
                8 => gather_fixed::<8>(&bytes, runs),
                16 => gather_fixed::<16>(&bytes, runs),
                width => gather_wide(&bytes, runs, width),
            }?;
            ArrayData::try_new(data_type.clone(), rows, nulls, 0, vec![out], vec![])
        }
        Values::Bytes { .. } => {
            let source = each(sources, |column| match &column.values {
                Values::Bytes { offsets, bytes } => Some((*offsets, *bytes)),
                _ => None,
            })?;
            let mut offsets = Offsets::new(rows);
            let mut spans = Vec::with_capacity(runs.runs.len());
            for run in &runs.runs {
                let (from, _) = source[run.source as usize];
                spans.push(offsets.extend(from, run)?);
            }
            let mut out = MutableBuffer::with_capacity(offsets.last());
            for (run, (start, end)) in runs.runs.iter().zip(spans) {
                out.extend_from_slice(part(source[run.source as usize].1, start, end)?);
            }
            let nulls = nulls.map(|bits| NullBuffer::new(BooleanBuffer::new(bits, 0, rows)));
            Ok(BinaryArray::try_new(offsets.finish()?, out.into(), nulls)?.into_data())
        }
        Values::List { .. } => {
            let source = each(sources, |column| match &column.values {
                Values::List { offsets, items } => Some((*offsets, items.as_ref())),
                _ => None,
            })?;
            let mut offsets = Offsets::new(rows);
            let mut inner = Runs::default();
            for run in &runs.runs {
                let (start, end) = offsets.extend(source[run.source as usize].0, run)?;
                inner.push(run.source, start as u32, (end - start) as u32);
            }
            let items: Vec<_> = source.iter().map(|(_, items)| *items).collect();
            list_of(rows, nulls, offsets, gather(&items, &inner)?)
        }
        Values::Struct { names, columns } => {
            let source = each(sources, |column| match &column.values {
                Values::Struct { columns: found, .. } if found.len() == columns.len() => {
                    Some(found)
                }
                _ => None,
            })?;
            let children = (0..columns.len())
                .map(|i| {
                    gather(
                        &source.iter().map(|columns| &columns[i]).collect::<Vec<_>>(),
                        runs,
                    )
                })
                .collect::<Result<Vec<_>, _>>()?;
            struct_of(names.iter().copied(), rows, nulls, children)
        }
    }
}

/// Values of `W` bytes, a number known to the compiler: runs of one value, the usual case, copy without a call.
fn gather_fixed<const W: usize>(sources: &[&[u8]], runs: &Runs) -> Result<Buffer, ArrowError> {
    let sources: Vec<&[[u8; W]]> = sources
        .iter()
        .map(|bytes| bytes.as_chunks::<W>().0)
        .collect();
    let mut out = MutableBuffer::from_len_zeroed(runs.rows * W);
    let mut free = out.as_slice_mut().as_chunks_mut::<W>().0;
    for run in &runs.runs {
        let start = run.start as usize;
        let found = sources[run.source as usize].get(start..start + run.len as usize);
        let Some((place, rest)) = free.split_at_mut_checked(run.len as usize) else {
            return Err(broken("more rows than were counted"));
        };
        match (found, &mut *place) {
            (Some([value]), [place]) => *place = *value,
            (Some(values), _) => place.copy_from_slice(values),
            (None, _) => return Err(broken("a row beyond the end of its column")),
        }
        free = rest;
    }
    Ok(out.into())
}

fn gather_wide(sources: &[&[u8]], runs: &Runs, width: usize) -> Result<Buffer, ArrowError> {
    let mut out = MutableBuffer::with_capacity(runs.rows * width);
    for run in &runs.runs {
        let start = run.start as usize * width;
        let end = start + run.len as usize * width;
        out.extend_from_slice(part(sources[run.source as usize], start, end)?);
    }
    Ok(out.into())
}

/// A list array; every field is called `item` and nullable, because only the layout counts.
pub fn list_of(
    rows: usize,
    nulls: Option<Buffer>,
    offsets: Offsets,
    items: ArrayData,
) -> Result<ArrayData, ArrowError> {
    let field = Arc::new(Field::new("item", items.data_type().clone(), true));
    let nulls = nulls.map(|bits| NullBuffer::new(BooleanBuffer::new(bits, 0, rows)));
    Ok(ListArray::try_new(field, offsets.finish()?, make_array(items), nulls)?.into_data())
}

pub fn struct_of<'n>(
    names: impl Iterator<Item = &'n str>,
    rows: usize,
    nulls: Option<Buffer>,
    children: Vec<ArrayData>,
) -> Result<ArrayData, ArrowError> {
    let fields: Fields = names
        .zip(&children)
        .map(|(name, child)| Field::new(name, child.data_type().clone(), true))
        .collect();
    ArrayData::try_new(DataType::Struct(fields), rows, nulls, 0, vec![], children)
}

fn each<'s, 'a, T>(
    sources: &'s [&'s Column<'a>],
    look: impl Fn(&'s Column<'a>) -> Option<T>,
) -> Result<Vec<T>, ArrowError> {
    sources
        .iter()
        .map(|column| look(column).ok_or_else(|| broken("columns of different types")))
        .collect()
}

fn gather_nulls(sources: &[&Column<'_>], runs: &Runs) -> Result<Option<Buffer>, ArrowError> {
    if sources.iter().all(|column| column.nulls.is_none()) {
        return Ok(None);
    }
    let mut out = BitWriter::new(runs.rows);
    for run in &runs.runs {
        match sources[run.source as usize].nulls {
            Some(nulls) => out.extend(nulls.inner(), run.start as usize, run.len as usize)?,
            None => out.extend_ones(run.len as usize),
        }
    }
    Ok(Some(out.finish()))
}

#[inline]
pub fn part(bytes: &[u8], start: usize, end: usize) -> Result<&[u8], ArrowError> {
    bytes
        .get(start..end)
        .ok_or_else(|| broken("a value beyond the end of its buffer"))
}

#[cold]
pub fn broken(what: &str) -> ArrowError {
    ArrowError::InvalidArgumentError(format!("malformed Arrow data: {what}"))
}
