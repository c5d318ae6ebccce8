//! Growing columns, each the plain vectors that an Arrow array is made of.

use std::sync::Arc;

use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, StringArray,
    StructArray,
};
use arrow_buffer::{
    ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer,
    ScalarBuffer,
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

/// Bytes one after another. The buffer is filled with zeros ahead of `end`, so that short pieces can be copied in chunks
/// of a fixed size, which takes a fraction of the time of a copy of any size.
struct Pool {
    buf: Vec<u8>,
    end: usize,
}

/// Zeros that are written ahead at a time: few enough to be still in the cache when they are overwritten.
const AHEAD: usize = 16 << 10;
const CHUNK: usize = 32;

impl Pool {
    fn with_capacity(bytes: usize) -> Self {
        Self {
            buf: Vec::with_capacity(bytes),
            end: 0,
        }
    }

    /// Add the first `size` bytes of `wide`.
    #[inline(always)]
    fn push(&mut self, wide: &[u8], size: usize) {
        if size <= CHUNK {
            if let (Some(room), Some(chunk)) = (
                self.buf[self.end..].first_chunk_mut::<CHUNK>(),
                wide.first_chunk(),
            ) {
                *room = *chunk;
                self.end += size;
                return;
            }
        }
        self.push_long(&wide[..size]);
    }

    #[inline(never)]
    fn push_long(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        if self.buf.len() < end + CHUNK {
            let ahead = AHEAD.min(self.end / 4);
            self.buf.resize(end + CHUNK + ahead, 0);
        }
        self.buf[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// Let `write` append to the bytes.
    fn append<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.buf.truncate(self.end);
        let result = write(&mut self.buf);
        self.end = self.buf.len();
        result
    }

    fn finish(mut self) -> Buffer {
        self.buf.truncate(self.end);
        Buffer::from_vec(trimmed(self.buf))
    }
}

/// Strings or byte strings.
pub struct Texts {
    pool: Pool,
    ends: Ends,
}

impl Texts {
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self {
            pool: Pool::with_capacity(bytes),
            ends: Ends::with_capacity(rows),
        }
    }

    #[inline(always)]
    pub fn push(&mut self, text: &[u8]) {
        self.push_wide(text, text.len());
    }

    /// The first `size` bytes of `wide`: give what happens to stand behind a text with it, and copying is quicker.
    #[inline(always)]
    pub fn push_wide(&mut self, wide: &[u8], size: usize) {
        self.pool.push(wide, size);
        self.ends.push(self.pool.end);
    }

    #[inline(always)]
    pub fn push_empty(&mut self) {
        self.ends.push(self.pool.end);
    }

    /// Set row `row`, after letting the missing ones before it be empty.
    #[inline(always)]
    pub fn push_at(&mut self, row: usize, text: &[u8]) {
        self.ends.pad(row);
        self.push(text);
    }

    /// Let `write` append row `row`, after letting the missing ones before it be empty.
    #[inline]
    pub fn write_at<T>(&mut self, row: usize, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.ends.pad(row);
        let result = self.pool.append(write);
        self.ends.push(self.pool.end);
        result
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
            &self.pool.buf[self.ends.range(row)]
        } else {
            &[]
        }
    }

    pub fn truncate(&mut self, rows: usize) {
        if rows < self.ends.len() {
            self.ends.truncate(rows);
            self.pool.end = self.ends.last();
        }
    }

    /// Fails on invalid UTF-8, of which it checks all rows in one pass, and that no row begins inside a character.
    pub fn strings(self, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        Ok(Arc::new(StringArray::try_new(
            self.ends.finish(),
            self.pool.finish(),
            nulls,
        )?))
    }

    pub fn binary(self, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        Ok(Arc::new(BinaryArray::try_new(
            self.ends.finish(),
            self.pool.finish(),
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

/// A bit for every byte, set where it equals `wanted`: eight at a time.
pub fn equal_bits(bytes: &[u8], wanted: u8) -> BooleanBuffer {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut bits = Vec::with_capacity(words.len() + 1);
    bits.extend(words.iter().map(|word| equal_bits_of(*word, wanted)));
    let mut last = [!wanted; 8];
    last[..rest.len()].copy_from_slice(rest);
    bits.push(equal_bits_of(last, wanted));
    BooleanBuffer::new(Buffer::from_vec(bits), 0, bytes.len())
}

#[inline(always)]
fn equal_bits_of(word: [u8; 8], wanted: u8) -> u8 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // A byte that is 0 where they are equal; then its highest bit set, and no other.
    let differs = u64::from_le_bytes(word) ^ u64::from_le_bytes([wanted; 8]);
    let equal = !(((differs & LOW) + LOW) | differs | LOW);
    // Byte i's bit moves to place i of the highest byte.
    ((equal >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
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
