//! Growing columns, each the plain vectors that an Arrow array is made of.

use std::sync::{Arc, LazyLock};

use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, StructArray,
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

/// Numbers for a column without any: most batches have such columns, and all of them can share the zeros.
pub fn zeros<T: ArrowNativeType>(rows: usize) -> ScalarBuffer<T> {
    static SHARED: LazyLock<Buffer> = LazyLock::new(|| Buffer::from_vec(vec![0u64; 1 << 17]));
    let bytes = rows * size_of::<T>();
    if bytes <= SHARED.len() {
        ScalarBuffer::new(SHARED.clone(), 0, rows)
    } else {
        vec![T::default(); rows].into()
    }
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

    /// Add ends that are already counted from the beginning.
    pub fn extend(&mut self, ends: &[i32]) {
        self.0.extend_from_slice(ends);
    }

    pub fn len(&self) -> usize {
        self.0.len() - 1
    }

    pub fn all(&self) -> &[i32] {
        &self.0
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

/// Numbers that are 0 in nearly every record: filled up to the last that is not.
#[derive(Default)]
pub struct Rare<T>(Vec<T>);

impl<T: ArrowNativeType> Rare<T> {
    pub fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows);
    }

    #[inline(always)]
    pub fn set(&mut self, row: usize, value: T) {
        if value != T::default() {
            self.0.resize(row, T::default());
            self.0.push(value);
        }
    }

    pub fn set_range(&mut self, begin: usize, rows: usize, value: T) {
        self.0.resize(begin, T::default());
        self.0.resize(begin + rows, value);
    }

    pub fn finish<A: ArrowPrimitiveType<Native = T>>(mut self, rows: usize) -> Built<ArrayRef> {
        let values = if self.0.is_empty() {
            zeros(rows)
        } else {
            self.0.resize(rows, T::default());
            trimmed(self.0).into()
        };
        Ok(Arc::new(PrimitiveArray::<A>::try_new(values, None)?))
    }
}

impl Rare<u8> {
    /// Nulls where it is 1.
    pub fn into_nulls(mut self, rows: usize) -> Option<NullBuffer> {
        if self.0.is_empty() {
            return None;
        }
        self.0.resize(rows, 0);
        Some(NullBuffer::new(equal_bits(&self.0, 0)))
    }
}

/// Numbers, some of them null.
pub struct Optional<T> {
    values: Vec<T>,
    /// 1 where there is none.
    missing: Rare<u8>,
}

impl<T: ArrowNativeType> Optional<T> {
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            values: Vec::with_capacity(rows),
            missing: Rare::default(),
        }
    }

    #[inline(always)]
    pub fn push(&mut self, value: Option<T>) {
        if value.is_none() {
            self.missing.set(self.values.len(), 1);
        }
        self.values.push(value.unwrap_or_default());
    }

    pub fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.missing.truncate(rows);
    }

    pub fn push_nulls(&mut self, rows: usize) {
        self.missing.set_range(self.values.len(), rows, 1);
        self.values.resize(self.values.len() + rows, T::default());
    }

    pub fn finish<A: ArrowPrimitiveType<Native = T>>(self) -> Built<ArrayRef> {
        let nulls = self.missing.into_nulls(self.values.len());
        Ok(Arc::new(PrimitiveArray::<A>::try_new(
            trimmed(self.values).into(),
            nulls,
        )?))
    }
}

/// Identifiers of `W` bytes; null where a record has none, or one of another length.
pub struct Ids<const W: usize> {
    data: Vec<[u8; W]>,
    /// 1 where there is none.
    missing: Rare<u8>,
}

impl<const W: usize> Ids<W> {
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            data: Vec::with_capacity(rows),
            missing: Rare::default(),
        }
    }

    pub fn truncate(&mut self, rows: usize) {
        self.data.truncate(rows);
        self.missing.truncate(rows);
    }

    /// Returns whether the identifier is of another length, so that `Irregulars` must keep it.
    #[inline(always)]
    pub fn push(&mut self, id: &[u8]) -> bool {
        if let Ok(id) = <&[u8; W]>::try_from(id) {
            self.data.push(*id);
            return false;
        }
        self.missing.set(self.data.len(), 1);
        self.data.push([0; W]);
        !id.is_empty()
    }

    pub fn finish(self) -> Built<ArrayRef> {
        let nulls = self.missing.into_nulls(self.data.len());
        let bytes = trimmed(self.data).into_flattened();
        Ok(Arc::new(FixedSizeBinaryArray::try_new(
            W as i32,
            Buffer::from_vec(bytes),
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

    pub fn truncate(&mut self, rows: usize) {
        let left = self.rows.partition_point(|(row, _)| *row < rows);
        self.rows.truncate(left);
    }

    pub fn finish(self, rows: usize) -> Built<ArrayRef> {
        if self.rows.is_empty() {
            return Ok(Arc::new(BinaryArray::new_null(rows)));
        }
        let mut texts = super::pool::Texts::with_capacity(rows, 0);
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
