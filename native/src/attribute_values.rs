//! Typed columns out of attribute lists.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt8Type};
use arrow_array::{
    Array, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StructArray,
    UInt8Array,
};
use arrow_buffer::{
    ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer,
};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::attributes::{child, Attributes, Texts, ABSENT};
use crate::builders::{too_large, BitWriter};
use crate::column::part;
use crate::interchange::{array_to_python, batch_from_python, refused};
use crate::rows::span;
use crate::text;

/// `telflow.schema.ValueType`.
mod kind {
    pub const STRING: u8 = 1;
    pub const BOOL: u8 = 2;
    pub const INT: u8 = 3;
    pub const DOUBLE: u8 = 4;
    pub const ARRAY: u8 = 5;
    pub const KVLIST: u8 = 6;
    pub const BYTES: u8 = 7;
}

/// What a column of extracted values is made of.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Text,
    Int,
    Double,
    Bool,
    Bytes,
}

impl Wanted {
    /// By the name of pyarrow's constructor of the type.
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "string" => Self::Text,
            "int64" => Self::Int,
            "float64" => Self::Double,
            "bool_" => Self::Bool,
            "binary" => Self::Bytes,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Int => "int64",
            Self::Double => "float64",
            Self::Bool => "bool_",
            Self::Bytes => "binary",
        }
    }

    /// The narrowest type that holds all of the kinds found.
    fn infer(kinds: impl Iterator<Item = u8>) -> Self {
        let mut seen = [false; 256];
        kinds.for_each(|kind| seen[usize::from(kind)] = true);
        let seen: Vec<u8> = (kind::STRING..=kind::BYTES)
            .filter(|kind| seen[usize::from(*kind)])
            .collect();
        match seen[..] {
            [kind::INT] => Self::Int,
            [kind::DOUBLE] | [kind::INT, kind::DOUBLE] => Self::Double,
            [kind::BOOL] => Self::Bool,
            [kind::BYTES] => Self::Bytes,
            _ => Self::Text,
        }
    }
}

/// The first value under `key` of every row, as `wanted` (a pyarrow type constructor's name) or what they all are.
#[pyfunction]
#[pyo3(signature = (attributes, key, wanted=None))]
fn extract_attribute<'py>(
    py: Python<'py>,
    attributes: &Bound<'py, PyAny>,
    key: &str,
    wanted: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let wanted = wanted
        .map(|name| {
            Wanted::parse(name)
                .ok_or_else(|| PyValueError::new_err(format!("no values of type {name}")))
        })
        .transpose()?;
    let batch = batch_from_python(attributes)?;
    let (wanted, data) = py.detach(|| extract(&batch, key.as_bytes(), wanted))?;
    array_to_python(&data, &py.import("pyarrow")?.call_method0(wanted.name())?)
}

fn extract(
    batch: &RecordBatch,
    key: &[u8],
    wanted: Option<Wanted>,
) -> PyResult<(Wanted, ArrayData)> {
    let attributes = Attributes::new(batch).map_err(refused)?;
    let found = attributes.find(key).map_err(refused)?;
    let items = ItemValues::new(attributes.items).map_err(refused)?;
    let wanted = wanted.unwrap_or_else(|| {
        Wanted::infer(
            found
                .iter()
                .filter(|item| **item != ABSENT)
                .map(|item| items.kind(*item as usize)),
        )
    });
    let data = match wanted {
        Wanted::Text => items.texts(&found),
        Wanted::Int => numbers(&found, DataType::Int64, |item| {
            (items.kind(item) == kind::INT).then(|| items.int.value(item))
        }),
        Wanted::Double => numbers(&found, DataType::Float64, |item| match items.kind(item) {
            kind::DOUBLE => Some(items.double.value(item)),
            kind::INT => Some(items.int.value(item) as f64),
            _ => None,
        }),
        Wanted::Bool => items.bools(&found),
        Wanted::Bytes => items.binaries(&found),
    };
    Ok((wanted, data?))
}

/// The children of attribute items that hold values.
struct ItemValues<'a> {
    kinds: &'a UInt8Array,
    text: Texts<'a>,
    int: &'a Int64Array,
    double: &'a Float64Array,
    bool: &'a BooleanArray,
    bytes: Texts<'a>,
}

impl<'a> ItemValues<'a> {
    fn new(items: &'a StructArray) -> Result<Self, ArrowError> {
        Ok(Self {
            kinds: child(items, "type", |array| array.as_primitive_opt::<UInt8Type>())?,
            text: Texts::new(child(items, "str", |array| array.as_string_opt::<i32>())?),
            int: child(items, "int", |array| array.as_primitive_opt::<Int64Type>())?,
            double: child(items, "double", |array| {
                array.as_primitive_opt::<Float64Type>()
            })?,
            bool: child(items, "bool", |array| array.as_boolean_opt())?,
            bytes: Texts::new(child(items, "bytes", |array| array.as_binary_opt::<i32>())?),
        })
    }

    /// 0, the empty value, also where there is no value at all.
    #[inline]
    fn kind(&self, item: usize) -> u8 {
        match self.kinds.nulls() {
            Some(nulls) if nulls.is_null(item) => 0,
            _ => self.kinds.value(item),
        }
    }

    fn texts(&self, found: &[u32]) -> PyResult<ArrayData> {
        let is_text = |item: &u32| *item == ABSENT || self.kind(*item as usize) == kind::STRING;
        if found.iter().all(is_text) {
            return self.plain_texts(found).map_err(refused);
        }
        byte_values(found, |item, out| {
            match self.kind(item) {
                kind::STRING => out.extend_from_slice(self.text.get(item).map_err(refused)?),
                kind::BOOL => text::write_bool(self.bool.value(item), out),
                kind::INT => out.extend_from_slice(self.int.value(item).to_string().as_bytes()),
                kind::DOUBLE => text::write_double(self.double.value(item), out),
                kind::ARRAY => text::write_array(self.bytes.get(item).map_err(refused)?, out)?,
                kind::KVLIST => text::write_kvlist(self.bytes.get(item).map_err(refused)?, out)?,
                kind::BYTES => text::write_base64(self.bytes.get(item).map_err(refused)?, out),
                _ => return Ok(false),
            }
            Ok(true)
        })
    }

    /// What `texts` gives when all values found are text, the usual case.
    fn plain_texts(&self, found: &[u32]) -> Result<ArrayData, ArrowError> {
        let mut ends: Vec<i32> = Vec::with_capacity(found.len() + 1);
        let mut total = 0;
        ends.push(0);
        for &item in found {
            if item != ABSENT {
                let (start, end) = span(self.text.offsets, item as usize)?;
                total += end - start;
            }
            ends.push(total as i32);
        }
        if total > i32::MAX as usize {
            return Err(too_large());
        }
        // Short texts are copied as one piece of 16 bytes, and the next text overwrites what was too much.
        let mut bytes = vec![0u8; total + 16];
        let mut at = 0;
        for &item in found.iter().filter(|item| **item != ABSENT) {
            let (start, end) = span(self.text.offsets, item as usize)?;
            let length = end - start;
            let source = self.text.bytes.get(start..).unwrap_or_default();
            let target = &mut bytes[at..];
            match (source.first_chunk::<16>(), target.first_chunk_mut::<16>()) {
                (Some(from), Some(to)) if length <= 16 => *to = *from,
                _ => target[..length].copy_from_slice(part(source, 0, length)?),
            }
            at += length;
        }
        bytes.truncate(total);
        let valid = BooleanBuffer::collect_bool(found.len(), |row| found[row] != ABSENT);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        let nulls = Some(NullBuffer::new(valid));
        Ok(BinaryArray::try_new(offsets, Buffer::from_vec(bytes), nulls)?.into_data())
    }

    fn binaries(&self, found: &[u32]) -> PyResult<ArrayData> {
        byte_values(found, |item, out| {
            let is_bytes = self.kind(item) == kind::BYTES;
            if is_bytes {
                out.extend_from_slice(self.bytes.get(item).map_err(refused)?);
            }
            Ok(is_bytes)
        })
    }

    fn bools(&self, found: &[u32]) -> PyResult<ArrayData> {
        let (mut values, mut valid) = (BitWriter::new(found.len()), BitWriter::new(found.len()));
        for &item in found {
            let is_bool = item != ABSENT && self.kind(item as usize) == kind::BOOL;
            valid.push(u64::from(is_bool), 1);
            values.push(u64::from(is_bool && self.bool.value(item as usize)), 1);
        }
        let nulls = Some(valid.finish());
        ArrayData::try_new(
            DataType::Boolean,
            found.len(),
            nulls,
            0,
            vec![values.finish()],
            vec![],
        )
        .map_err(refused)
    }
}

fn numbers<T: ArrowNativeType>(
    found: &[u32],
    data_type: DataType,
    value: impl Fn(usize) -> Option<T>,
) -> PyResult<ArrayData> {
    let mut valid = BitWriter::new(found.len());
    let values: Vec<T> = found
        .iter()
        .map(|&item| {
            let value = if item == ABSENT {
                None
            } else {
                value(item as usize)
            };
            valid.push(u64::from(value.is_some()), 1);
            value.unwrap_or_default()
        })
        .collect();
    let nulls = Some(valid.finish());
    ArrayData::try_new(
        data_type,
        found.len(),
        nulls,
        0,
        vec![Buffer::from_vec(values)],
        vec![],
    )
    .map_err(refused)
}

/// `write` appends an item's bytes, or says that it has none.
fn byte_values(
    found: &[u32],
    write: impl Fn(usize, &mut Vec<u8>) -> PyResult<bool>,
) -> PyResult<ArrayData> {
    let mut ends: Vec<i32> = Vec::with_capacity(found.len() + 1);
    let mut valid = BitWriter::new(found.len());
    let mut bytes = Vec::with_capacity(found.len() * 16);
    ends.push(0);
    for &item in found {
        let is_some = item != ABSENT && write(item as usize, &mut bytes)?;
        valid.push(u64::from(is_some), 1);
        ends.push(bytes.len() as i32);
    }
    if bytes.len() > i32::MAX as usize {
        return Err(refused(too_large()));
    }
    let nulls = NullBuffer::new(BooleanBuffer::new(valid.finish(), 0, found.len()));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    let array = BinaryArray::try_new(offsets, Buffer::from_vec(bytes), Some(nulls));
    Ok(array.map_err(refused)?.into_data())
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(extract_attribute, m)?)
}
