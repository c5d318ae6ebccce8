//! Typed views of Arrow arrays, for reading single values fast.
//!
//! Null always reads as the default, whatever bytes lie below it: they may be what a filter or a redaction meant to hide.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, ByteArrayType, UInt8Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, GenericByteArray, ListArray,
    PrimitiveArray, StringArray,
};
use arrow_array::{RecordBatch, StructArray};
use arrow_buffer::NullBuffer;

use crate::decode::columns::equal_bits;

/// Why a batch cannot be written; becomes `telflow.errors.EncodeError`.
#[derive(Debug)]
pub struct Failure(pub String);

impl Failure {
    #[cold]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

pub type Result<T> = std::result::Result<T, Failure>;

/// A record batch or a struct column.
pub trait Columns {
    fn named(&self, name: &str) -> Option<&ArrayRef>;
}

impl Columns for RecordBatch {
    fn named(&self, name: &str) -> Option<&ArrayRef> {
        self.column_by_name(name)
    }
}

impl Columns for StructArray {
    fn named(&self, name: &str) -> Option<&ArrayRef> {
        self.column_by_name(name)
    }
}

fn column<'a, A: Array + 'static>(of: &'a impl Columns, name: &str) -> Result<&'a A> {
    let found = of
        .named(name)
        .ok_or_else(|| Failure::new(format!("column {name}: missing")))?;
    found.as_any().downcast_ref::<A>().ok_or_else(|| {
        Failure::new(format!(
            "column {name}: unexpected type {}",
            found.data_type()
        ))
    })
}

/// Nulls, when there are any.
fn nulls(array: &dyn Array) -> Option<&NullBuffer> {
    array.nulls().filter(|nulls| nulls.null_count() > 0)
}

#[inline(always)]
fn is_null(nulls: Option<&NullBuffer>, row: usize) -> bool {
    nulls.is_some_and(|nulls| nulls.is_null(row))
}

/// `nulls`, unless no row whose type is one of `wanted` is null: when only those are read, none has to be asked.
fn nulls_where<'a>(
    nulls: Option<&'a NullBuffer>,
    types: &Numbers<'_, UInt8Type>,
    wanted: &[u8],
) -> Option<&'a NullBuffer> {
    let null = |nulls: &NullBuffer, wanted: &u8| {
        if !types.values.contains(wanted) {
            return false;
        }
        let wanted = equal_bits(types.values, *wanted);
        let valid = nulls.inner().bit_chunks();
        let mut pairs = wanted.bit_chunks().iter_padded().zip(valid.iter_padded());
        pairs.any(|(wanted, valid)| wanted & !valid != 0)
    };
    nulls.filter(|nulls| {
        nulls.len() != types.len() || wanted.iter().any(|wanted| null(nulls, wanted))
    })
}

/// Python's arrays come as they are: check once that no row reaches beyond its buffer, so that none has to be later.
fn check_offsets(offsets: &[i32], limit: usize, name: &str) -> Result<()> {
    let ascending = offsets
        .windows(2)
        .fold(true, |ok, pair| ok & (pair[0] <= pair[1]));
    match (offsets.first(), offsets.last()) {
        (Some(0..), Some(last)) if ascending && *last as usize <= limit => Ok(()),
        _ => Err(Failure::new(format!(
            "column {name}: offsets out of bounds"
        ))),
    }
}

/// Strings or byte strings.
pub struct Texts<'a> {
    offsets: &'a [i32],
    data: &'a [u8],
    nulls: Option<&'a NullBuffer>,
}

impl<'a> Texts<'a> {
    /// A column of strings or of byte strings.
    pub fn of(columns: &'a impl Columns, name: &str) -> Result<Self> {
        match column::<StringArray>(columns, name) {
            Ok(array) => Self::view(array, name),
            Err(_) => Self::view(column::<BinaryArray>(columns, name)?, name),
        }
    }

    fn view<T: ByteArrayType<Offset = i32>>(
        array: &'a GenericByteArray<T>,
        name: &str,
    ) -> Result<Self> {
        check_offsets(array.value_offsets(), array.value_data().len(), name)?;
        Ok(Self {
            offsets: array.value_offsets(),
            data: array.value_data(),
            nulls: nulls(array),
        })
    }

    #[inline(always)]
    pub fn get(&self, row: usize) -> &'a [u8] {
        if is_null(self.nulls, row) {
            return &[];
        }
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// The value and all that stands before it, and its size.
    #[inline(always)]
    pub fn tail(&self, row: usize) -> (&'a [u8], usize) {
        if is_null(self.nulls, row) {
            return (&[], 0);
        }
        let end = self.offsets[row + 1];
        (
            &self.data[..end as usize],
            (end - self.offsets[row]) as usize,
        )
    }

    /// The same when only rows of the types `wanted` are read.
    pub fn read_where(mut self, types: &Numbers<'_, UInt8Type>, wanted: &[u8]) -> Self {
        self.nulls = nulls_where(self.nulls, types, wanted);
        self
    }

    /// The ends of some rows, with the end of the one before them, and the bytes; None when a row may be null.
    #[inline(always)]
    pub fn plain(&self, rows: Range<usize>) -> Option<(&'a [i32], &'a [u8])> {
        let ends = self.offsets.get(rows.start..=rows.end)?;
        self.nulls.is_none().then_some((ends, self.data))
    }

    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        is_null(self.nulls, row)
    }

    /// None when no row has a value.
    pub fn unless_empty(self) -> Option<Self> {
        (self.size() != 0).then_some(self)
    }

    /// Bytes of all rows.
    pub fn size(&self) -> usize {
        (self.offsets[self.offsets.len() - 1] - self.offsets[0]) as usize
    }
}

/// Numbers.
pub struct Numbers<'a, A: ArrowPrimitiveType> {
    values: &'a [A::Native],
    nulls: Option<&'a NullBuffer>,
}

impl<'a, A: ArrowPrimitiveType> Numbers<'a, A> {
    pub fn of(columns: &'a impl Columns, name: &str) -> Result<Self> {
        Ok(Self::view(column::<PrimitiveArray<A>>(columns, name)?))
    }

    fn view(array: &'a PrimitiveArray<A>) -> Self {
        Self {
            values: array.values(),
            nulls: nulls(array),
        }
    }

    #[inline(always)]
    pub fn get(&self, row: usize) -> A::Native {
        self.optional(row).unwrap_or_default()
    }

    #[inline(always)]
    pub fn optional(&self, row: usize) -> Option<A::Native> {
        if is_null(self.nulls, row) {
            None
        } else {
            Some(self.values[row])
        }
    }

    /// See `Texts::read_where`.
    pub fn read_where(mut self, types: &Numbers<'_, UInt8Type>, wanted: &[u8]) -> Self {
        self.nulls = nulls_where(self.nulls, types, wanted);
        self
    }

    /// The values of some rows; None when one may be null.
    #[inline(always)]
    pub fn plain(&self, rows: Range<usize>) -> Option<&'a [A::Native]> {
        let values = self.values.get(rows)?;
        self.nulls.is_none().then_some(values)
    }

    /// None when every row has the default.
    pub fn unless_zero(self) -> Option<Self> {
        // No short cut, so that the compiler can look at many at once; most columns this is asked of have nothing else.
        let found = |found, value: &A::Native| found | (*value != A::Native::default());
        self.values.iter().fold(false, found).then_some(self)
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The values of a list's range, none of which is null.
    pub fn range(&self, range: Range<usize>) -> &'a [A::Native] {
        &self.values[range]
    }
}

pub struct Bools<'a>(&'a BooleanArray);

impl<'a> Bools<'a> {
    pub fn of(columns: &'a impl Columns, name: &str) -> Result<Self> {
        Ok(Self(column(columns, name)?))
    }

    #[inline(always)]
    pub fn get(&self, row: usize) -> bool {
        self.0.is_valid(row) && self.0.value(row)
    }
}

/// Identifiers of `W` bytes.
pub struct Ids<'a, const W: usize> {
    ids: &'a [[u8; W]],
    nulls: Option<&'a NullBuffer>,
}

impl<'a, const W: usize> Ids<'a, W> {
    pub fn of(columns: &'a impl Columns, name: &str) -> Result<Self> {
        let array: &FixedSizeBinaryArray = column(columns, name)?;
        if array.value_length() != W as i32 {
            return Err(Failure::new(format!(
                "column {name}: unexpected type {}",
                array.data_type()
            )));
        }
        let (ids, _) = array.value_data().as_chunks();
        Ok(Self {
            ids,
            nulls: nulls(array),
        })
    }

    #[inline(always)]
    pub fn get(&self, row: usize) -> Option<&'a [u8; W]> {
        if is_null(self.nulls, row) {
            return None;
        }
        self.ids.get(row)
    }
}

/// Where each row's elements stand in the list's child.
pub struct Lists<'a> {
    offsets: &'a [i32],
    nulls: Option<&'a NullBuffer>,
}

impl<'a> Lists<'a> {
    /// The lists, and their child.
    fn of(columns: &'a impl Columns, name: &str) -> Result<(Self, &'a ArrayRef)> {
        let array: &ListArray = column(columns, name)?;
        check_offsets(array.value_offsets(), array.values().len(), name)?;
        Ok((
            Self {
                offsets: array.value_offsets(),
                nulls: nulls(array),
            },
            array.values(),
        ))
    }

    pub fn of_structs(columns: &'a impl Columns, name: &str) -> Result<(Self, &'a StructArray)> {
        let (lists, child) = Self::of(columns, name)?;
        let child = child
            .as_struct_opt()
            .ok_or_else(|| Failure::new(format!("column {name}: not a list of structs")))?;
        Ok((lists, child))
    }

    pub fn of_numbers<A: ArrowPrimitiveType>(
        columns: &'a impl Columns,
        name: &str,
    ) -> Result<(Self, Numbers<'a, A>)> {
        let (lists, child) = Self::of(columns, name)?;
        let child = child
            .as_primitive_opt::<A>()
            .ok_or_else(|| Failure::new(format!("column {name}: not a list of numbers")))?;
        Ok((lists, Numbers::view(child)))
    }

    pub fn of_texts(columns: &'a impl Columns, name: &str) -> Result<(Self, Texts<'a>)> {
        let (lists, child) = Self::of(columns, name)?;
        let texts = match (child.as_string_opt::<i32>(), child.as_binary_opt::<i32>()) {
            (Some(strings), _) => Texts::view(strings, name)?,
            (_, Some(bytes)) => Texts::view(bytes, name)?,
            _ => {
                return Err(Failure::new(format!(
                    "column {name}: not a list of strings"
                )))
            }
        };
        Ok((lists, texts))
    }

    #[inline(always)]
    pub fn range(&self, row: usize) -> Range<usize> {
        if is_null(self.nulls, row) {
            return 0..0;
        }
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }

    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        is_null(self.nulls, row)
    }
}

/// A struct column that may be null.
pub fn structs<'a>(
    columns: &'a impl Columns,
    name: &str,
) -> Result<(&'a StructArray, Option<&'a NullBuffer>)> {
    let array: &StructArray = column(columns, name)?;
    Ok((array, nulls(array)))
}
