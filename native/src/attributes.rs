//! Attribute lists: finding, putting in, taking out and renaming attributes.

use arrow_array::cast::AsArray;
use arrow_array::types::ByteArrayType;
use arrow_array::{Array, GenericByteArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::NullBuffer;
use arrow_data::ArrayData;
use arrow_schema::ArrowError;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::builders::{BitWriter, Offsets};
use crate::column::{broken, gather, list_of, part, struct_of, Column, Runs, Values};
use crate::interchange::{array_to_python, batch_from_python, refused};
use crate::rows::span;

/// The place of an item that a row does not have.
pub const ABSENT: u32 = u32::MAX;

/// A column of `telflow.schema.ATTRIBUTES`.
pub struct Attributes<'a> {
    rows: usize,
    offsets: &'a [i32],
    nulls: Option<&'a NullBuffer>,
    keys: Texts<'a>,
    pub items: &'a StructArray,
}

/// Text or bytes, one value per row.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    pub offsets: &'a [i32],
    pub bytes: &'a [u8],
}

impl<'a> Texts<'a> {
    pub fn new<T: ByteArrayType<Offset = i32>>(array: &'a GenericByteArray<T>) -> Self {
        Self {
            offsets: array.value_offsets(),
            bytes: array.value_data(),
        }
    }

    #[inline]
    pub fn get(&self, row: usize) -> Result<&'a [u8], ArrowError> {
        let (start, end) = span(self.offsets, row)?;
        part(self.bytes, start, end)
    }

    /// Whether the text is `wanted`; looks at no byte when the lengths differ, as they mostly do.
    #[inline]
    fn is(&self, row: usize, wanted: &[u8]) -> Result<bool, ArrowError> {
        let (start, end) = span(self.offsets, row)?;
        Ok(end - start == wanted.len() && part(self.bytes, start, end)? == wanted)
    }
}

impl<'a> Attributes<'a> {
    pub fn new(batch: &'a RecordBatch) -> Result<Self, ArrowError> {
        let list = batch
            .columns()
            .first()
            .and_then(|column| column.as_list_opt::<i32>())
            .ok_or_else(|| ArrowError::SchemaError("expected one column of attributes".into()))?;
        let items = list
            .values()
            .as_struct_opt()
            .ok_or_else(|| ArrowError::SchemaError("expected attributes as structs".into()))?;
        Ok(Self {
            rows: list.len(),
            offsets: list.value_offsets(),
            nulls: list.nulls(),
            keys: Texts::new(child(items, "key", |array| array.as_string_opt::<i32>())?),
            items,
        })
    }

    #[inline]
    fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    /// First and one past the last item of a row.
    #[inline]
    fn row(&self, row: usize) -> Result<(usize, usize), ArrowError> {
        if self.is_null(row) {
            return Ok((0, 0));
        }
        let (start, end) = span(self.offsets, row)?;
        if end > self.items.len() {
            return Err(broken("a list beyond the end of its items"));
        }
        Ok((start, end))
    }

    /// The first item with `key` of every row, or `ABSENT`.
    ///
    /// Goes through the keys of all rows as one column, a block at a time. Keys mostly differ in length already, which
    /// the offsets alone tell, without a branch and several at once; only keys of the right length are looked at, and
    /// only those that are the key are looked up in their row.
    pub fn find(&self, key: &[u8]) -> Result<Vec<u32>, ArrowError> {
        let mut found = vec![ABSENT; self.rows];
        let (Ok(length), Some(&first), Some(&last)) = (
            i32::try_from(key.len()),
            self.offsets.first(),
            self.offsets.last(),
        ) else {
            return Ok(found);
        };
        let ends = self
            .keys
            .offsets
            .get(first as usize..=last as usize)
            .ok_or_else(|| broken("a list beyond the end of its items"))?;
        let mut row = 0;
        let mut same_length = [0u8; BLOCK];
        for at in (0..ends.len() - 1).step_by(BLOCK) {
            let block = &ends[at..(at + BLOCK + 1).min(ends.len())];
            same_length.fill(0);
            for (same, pair) in same_length.iter_mut().zip(block.windows(2)) {
                *same = u8::from(pair[1].wrapping_sub(pair[0]) == length);
            }
            for (eight, flags) in same_length.as_chunks::<8>().0.iter().enumerate() {
                let mut flags = u64::from_le_bytes(*flags);
                while flags != 0 {
                    let place = eight * 8 + flags.trailing_zeros() as usize / 8;
                    flags &= flags - 1;
                    if !is_key(self.keys.bytes, block[place], key)? {
                        continue;
                    }
                    let item = first as usize + at + place;
                    while self
                        .offsets
                        .get(row + 1)
                        .is_some_and(|end| *end as usize <= item)
                    {
                        row += 1;
                    }
                    if let Some(place) = found.get_mut(row) {
                        if *place == ABSENT && !self.is_null(row) {
                            *place = item as u32;
                        }
                    }
                }
            }
        }
        Ok(found)
    }
}

const BLOCK: usize = 256;

/// Whether `key` stands in `bytes` at `start`; in words instead of by a call, as the keys are short.
#[inline]
fn is_key(bytes: &[u8], start: i32, key: &[u8]) -> Result<bool, ArrowError> {
    let found = part(bytes, start as usize, start as usize + key.len())?;
    Ok(match (found.first_chunk::<8>(), found.last_chunk::<8>()) {
        (Some(head), Some(tail)) if key.len() <= 16 => {
            key.first_chunk::<8>() == Some(head) && key.last_chunk::<8>() == Some(tail)
        }
        _ => found == key,
    })
}

pub fn child<'a, T>(
    items: &'a StructArray,
    name: &str,
    cast: impl Fn(&'a dyn Array) -> Option<&'a T>,
) -> Result<&'a T, ArrowError> {
    items
        .column_by_name(name)
        .and_then(|array| cast(array.as_ref()))
        .ok_or_else(|| {
            ArrowError::SchemaError(format!("attributes: no child {name} of the right type"))
        })
}

/// What putting an attribute does where its key exists, and where it does not.
#[derive(Clone, Copy)]
struct Mode {
    replace: bool,
    append: bool,
}

/// Attributes with `items` put in: row by row, or the same row of items for all when there is one.
#[pyfunction]
fn put_attributes<'py>(
    attributes: &Bound<'py, PyAny>,
    items: &Bound<'py, PyAny>,
    replace: bool,
    append: bool,
    data_type: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let (old, new) = (batch_from_python(attributes)?, batch_from_python(items)?);
    let put = data_type.py().detach(|| {
        put(
            &Attributes::new(&old)?,
            &Attributes::new(&new)?,
            Mode { replace, append },
        )
    });
    array_to_python(&put.map_err(refused)?, data_type)
}

fn put(old: &Attributes<'_>, new: &Attributes<'_>, mode: Mode) -> Result<ArrayData, ArrowError> {
    if new.rows != 1 && new.rows != old.rows {
        return Err(ArrowError::InvalidArgumentError(format!(
            "expected {} rows, got {}",
            old.rows, new.rows
        )));
    }
    let mut lists = Lists::new(old.rows);
    let mut placed = Vec::new();
    for row in 0..old.rows {
        let (start, end) = old.row(row)?;
        let (first, last) = new.row(if new.rows == 1 { 0 } else { row })?;
        placed.clear();
        placed.resize(last - first, false);
        for item in start..end {
            let mut same = None;
            for candidate in first..last {
                if old.keys.is(item, new.keys.get(candidate)?)? {
                    same = Some(candidate);
                    break;
                }
            }
            match same {
                Some(candidate) if mode.replace => {
                    if !std::mem::replace(&mut placed[candidate - first], true) {
                        lists.runs.push(1, candidate as u32, 1);
                    }
                }
                Some(candidate) => {
                    placed[candidate - first] = true;
                    lists.runs.push(0, item as u32, 1);
                }
                None => lists.runs.push(0, item as u32, 1),
            }
        }
        if mode.append {
            for candidate in (first..last).filter(|candidate| !placed[candidate - first]) {
                lists.runs.push(1, candidate as u32, 1);
            }
        }
        lists.end_row(old.is_null(row))?;
    }
    let (items, added) = (Column::new(old.items)?, Column::new(new.items)?);
    let gathered = gather(&[&items, &added], &lists.runs)?;
    lists.finish(gathered)
}

/// Attributes without those under `keys`.
#[pyfunction]
fn drop_attributes<'py>(
    attributes: &Bound<'py, PyAny>,
    keys: Vec<String>,
    data_type: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let batch = batch_from_python(attributes)?;
    let kept = data_type.py().detach(|| {
        let attributes = Attributes::new(&batch)?;
        let mut lists = Lists::new(attributes.rows);
        for row in 0..attributes.rows {
            let (start, end) = attributes.row(row)?;
            for item in start..end {
                let key = attributes.keys.get(item)?;
                if !keys.iter().any(|dropped| dropped.as_bytes() == key) {
                    lists.runs.push(0, item as u32, 1);
                }
            }
            lists.end_row(attributes.is_null(row))?;
        }
        let gathered = gather(&[&Column::new(attributes.items)?], &lists.runs)?;
        lists.finish(gathered)
    });
    array_to_python(&kept.map_err(refused)?, data_type)
}

/// Attributes under other keys. The first to come to a key stays; others that have or come to the same key go.
#[pyfunction]
fn rename_attributes<'py>(
    attributes: &Bound<'py, PyAny>,
    old: Vec<String>,
    new: Vec<String>,
    data_type: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    if old.len() != new.len() {
        return Err(PyValueError::new_err(
            "expected as many new keys as old ones",
        ));
    }
    let batch = batch_from_python(attributes)?;
    let renamed = data_type
        .py()
        .detach(|| rename(&Attributes::new(&batch)?, &old, &new));
    array_to_python(&renamed.map_err(refused)?, data_type)
}

fn rename(
    attributes: &Attributes<'_>,
    from: &[String],
    to: &[String],
) -> Result<ArrayData, ArrowError> {
    let mut lists = Lists::new(attributes.rows);
    let mut keys = Runs::default();
    let mut renamed: Vec<Option<usize>> = Vec::new();
    for row in 0..attributes.rows {
        let (start, end) = attributes.row(row)?;
        renamed.clear();
        for item in start..end {
            let key = attributes.keys.get(item)?;
            renamed.push(from.iter().position(|name| name.as_bytes() == key));
        }
        let any = renamed.iter().any(Option::is_some);
        for item in start..end {
            let place = item - start;
            match renamed[place] {
                Some(target) => {
                    let name = &to[target];
                    if !renamed[..place]
                        .iter()
                        .flatten()
                        .any(|other| to[*other] == *name)
                    {
                        lists.runs.push(0, item as u32, 1);
                        keys.push(1, target as u32, 1);
                    }
                }
                None => {
                    let key = attributes.keys.get(item)?;
                    if !any
                        || !renamed
                            .iter()
                            .flatten()
                            .any(|other| to[*other].as_bytes() == key)
                    {
                        lists.runs.push(0, item as u32, 1);
                        keys.push(0, item as u32, 1);
                    }
                }
            }
        }
        lists.end_row(attributes.is_null(row))?;
    }
    let targets = StringArray::from_iter_values(to);
    let (items, targets) = (Column::new(attributes.items)?, Column::new(&targets)?);
    let Values::Struct { names, columns } = &items.values else {
        return Err(broken("attributes that are not structs"));
    };
    let children = names
        .iter()
        .zip(columns)
        .map(|(name, column)| match *name {
            "key" => gather(&[column, &targets], &keys),
            _ => gather(&[column], &lists.runs),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let rebuilt = struct_of(names.iter().copied(), lists.runs.rows, None, children)?;
    lists.finish(rebuilt)
}

/// Attribute lists under construction: where their items come from and where each list ends.
struct Lists {
    runs: Runs,
    offsets: Offsets,
    valid: BitWriter,
    rows: usize,
    nulls: bool,
}

impl Lists {
    fn new(rows: usize) -> Self {
        Self {
            runs: Runs::default(),
            offsets: Offsets::new(rows),
            valid: BitWriter::new(rows),
            rows,
            nulls: false,
        }
    }

    /// A list that was null stays so unless something was put into it.
    fn end_row(&mut self, was_null: bool) -> Result<(), ArrowError> {
        let added = self.runs.rows - self.offsets.last();
        let null = was_null && added == 0;
        self.nulls |= null;
        self.valid.push(u64::from(!null), 1);
        self.offsets.push(added)
    }

    fn finish(self, items: ArrayData) -> Result<ArrayData, ArrowError> {
        let nulls = self.nulls.then(|| self.valid.finish());
        list_of(self.rows, nulls, self.offsets, items)
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(put_attributes, m)?)?;
    m.add_function(wrap_pyfunction!(drop_attributes, m)?)?;
    m.add_function(wrap_pyfunction!(rename_attributes, m)?)
}
