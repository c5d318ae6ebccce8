//! Growing columns, each the plain vectors that an Arrow array is made of.

use std::sync::Arc;

use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, StringArray,
    StructArray,
};
use arrow_buffer::{
    ArrowNativeType, Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer,
};
use arrow_schema::{ArrowError, FieldRef, Fields};

pub type Built<T> = Result<T, ArrowError>;

/// Give back memory that was reserved and not used, when it is worth a move.
pub fn trimmed<T>(mut values: Vec<T>) -> Vec<T> {
    if values.capacity() > values.len() + values.len() / 4 + 64 {
        values.shrink_to_fit();
    }
    values
}

/// Ends of variable-size elements; the first is the 0 before the first element, as Arrow wants its offsets.
pub struct Ends(Vec<i32>);

impl Ends {
    pub fn with_capacity(rows: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Self(ends)
    }

    /// `end` fits: a batch is made of less than 2^29 bytes, and no element costs less than one.
    #[inline(always)]
    pub fn push(&mut self, end: usize) {
        self.0.push(end as i32);
    }

    /// Let the rows before `row` that are missing be empty.
    #[inline(always)]
    pub fn pad(&mut self, row: usize) {
        while self.0.len() <= row {
            self.0.push(self.0[self.0.len() - 1]);
        }
    }

    pub fn len(&self) -> usize {
        self.0.len() - 1
    }

    pub fn last(&self) -> usize {
        self.0[self.0.len() - 1] as usize
    }

    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.0[row] as usize..self.0[row + 1] as usize
    }

    pub fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows + 1);
    }

    pub fn finish(self) -> OffsetBuffer<i32> {
        OffsetBuffer::new(ScalarBuffer::from(trimmed(self.0)))
    }
}

/// Strings or byte strings.
pub struct Texts {
    data: Vec<u8>,
    ends: Ends,
}

impl Texts {
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self {
            data: Vec::with_capacity(bytes),
            ends: Ends::with_capacity(rows),
        }
    }

    #[inline(always)]
    pub fn push(&mut self, text: &[u8]) {
        self.data.extend_from_slice(text);
        self.ends.push(self.data.len());
    }

    /// Set row `row`, after letting the missing ones before it be empty.
    #[inline(always)]
    pub fn push_at(&mut self, row: usize, text: &[u8]) {
        self.ends.pad(row);
        self.push(text);
    }

    /// The place to write one more value into; `close` ends it.
    #[inline]
    pub fn open_at(&mut self, row: usize) -> &mut Vec<u8> {
        self.ends.pad(row);
        &mut self.data
    }

    #[inline]
    pub fn close(&mut self) {
        self.ends.push(self.data.len());
    }

    pub fn pad(&mut self, rows: usize) {
        self.ends.pad(rows);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A row; one that was not reached yet is empty.
    pub fn get(&self, row: usize) -> &[u8] {
        if row < self.ends.len() {
            &self.data[self.ends.range(row)]
        } else {
            &[]
        }
    }

    pub fn truncate(&mut self, rows: usize) {
        if rows < self.ends.len() {
            self.ends.truncate(rows);
            self.data.truncate(self.ends.last());
        }
    }

    /// Fails on invalid UTF-8, of which it checks all rows in one pass, and that no row begins inside a character.
    pub fn strings(self, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        Ok(Arc::new(StringArray::try_new(
            self.ends.finish(),
            Buffer::from_vec(trimmed(self.data)),
            nulls,
        )?))
    }

    pub fn binary(self, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        Ok(Arc::new(BinaryArray::try_new(
            self.ends.finish(),
            Buffer::from_vec(trimmed(self.data)),
            nulls,
        )?))
    }
}

/// Numbers, some of them null.
pub struct Optional<T> {
    values: Vec<T>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowNativeType> Optional<T> {
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            values: Vec::with_capacity(rows),
            nulls: NullBufferBuilder::new(rows),
        }
    }

    #[inline(always)]
    pub fn push(&mut self, value: Option<T>) {
        self.values.push(value.unwrap_or_default());
        self.nulls.append(value.is_some());
    }

    pub fn push_nulls(&mut self, rows: usize) {
        self.values.resize(self.values.len() + rows, T::default());
        self.nulls.append_n_nulls(rows);
    }

    pub fn finish<A: ArrowPrimitiveType<Native = T>>(mut self) -> Built<ArrayRef> {
        let nulls = self.nulls.finish();
        Ok(Arc::new(PrimitiveArray::<A>::try_new(
            trimmed(self.values).into(),
            nulls,
        )?))
    }
}

/// Identifiers of `width` bytes; null where a record has none, or one of another length.
pub struct Ids {
    width: usize,
    data: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl Ids {
    pub fn with_capacity(width: usize, rows: usize) -> Self {
        Self {
            width,
            data: Vec::with_capacity(width * rows),
            nulls: NullBufferBuilder::new(rows),
        }
    }

    /// Returns whether the identifier is of another length, so that `Irregulars` must keep it.
    #[inline(always)]
    pub fn push(&mut self, id: &[u8]) -> bool {
        let regular = id.len() == self.width;
        if regular {
            self.data.extend_from_slice(id);
            self.nulls.append_non_null();
        } else {
            self.data.resize(self.data.len() + self.width, 0);
            self.nulls.append_null();
        }
        !regular && !id.is_empty()
    }

    pub fn finish(mut self) -> Built<ArrayRef> {
        let nulls = self.nulls.finish();
        Ok(Arc::new(FixedSizeBinaryArray::try_new(
            self.width as i32,
            Buffer::from_vec(trimmed(self.data)),
            nulls,
        )?))
    }
}

/// Identifiers of irregular length, as the protobuf fields they came in: null in nearly every row.
#[derive(Default)]
pub struct Irregulars {
    rows: Vec<(usize, Vec<u8>)>,
}

impl Irregulars {
    #[cold]
    pub fn push(&mut self, row: usize, fields: &[(u8, &[u8], usize)]) {
        let mut out = Vec::new();
        for &(tag, id, width) in fields {
            if !id.is_empty() && id.len() != width {
                out.push(tag);
                crate::decode::nested::put_varint(&mut out, id.len() as u64);
                out.extend_from_slice(id);
            }
        }
        self.rows.push((row, out));
    }

    pub fn finish(self, rows: usize) -> Built<ArrayRef> {
        if self.rows.is_empty() {
            return Ok(Arc::new(BinaryArray::new_null(rows)));
        }
        let mut texts = Texts::with_capacity(rows, 0);
        let mut nulls = NullBufferBuilder::new(rows);
        for (row, fields) in self.rows {
            nulls.append_n_nulls(row - nulls.len());
            nulls.append_non_null();
            texts.push_at(row, &fields);
        }
        nulls.append_n_nulls(rows - nulls.len());
        texts.pad(rows);
        texts.binary(nulls.finish())
    }
}

pub fn numbers<A: ArrowPrimitiveType>(values: Vec<A::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<A>::new(trimmed(values).into(), None))
}

pub fn list(
    item: FieldRef,
    ends: Ends,
    values: ArrayRef,
    nulls: Option<NullBuffer>,
) -> Built<ArrayRef> {
    Ok(Arc::new(ListArray::try_new(
        item,
        ends.finish(),
        values,
        nulls,
    )?))
}

pub fn structs(
    fields: &Fields,
    children: Vec<ArrayRef>,
    nulls: Option<NullBuffer>,
) -> Built<ArrayRef> {
    let array = StructArray::try_new(fields.clone(), children, nulls)?;
    debug_assert_eq!(array.num_columns(), fields.len());
    Ok(Arc::new(array))
}
