//! AnyValues and attribute lists in columns.

use std::sync::Arc;

use arrow_array::types::{Float64Type, Int64Type, UInt8Type};
use arrow_array::{ArrayRef, BooleanArray, PrimitiveArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};

use super::columns::{equal_bits, list, structs, trimmed, zeros, Built, Ends};
use super::cursor::{Cursor, Fast, Irregular};
use super::nested::{self, KeyValue};
use super::pool::{Pool, Texts, WINDOW};
use crate::schema::{self, value_type as kind};

/// Bytes of payload per attribute, for a first guess of how many rows there will be.
const BYTES_PER_ATTRIBUTE: usize = 36;

/// Rows that are put together here before they go to their columns, where each would need a check of its own for room.
const BLOCK: usize = 128;

struct Block {
    types: [u8; BLOCK],
    ints: [i64; BLOCK],
    key_ends: [i32; BLOCK],
    text_ends: [i32; BLOCK],
}

/// KeyValues, or AnyValues without keys. `types`, `ints` and the strings have an element for each. The other children are
/// filled up to the last row of their kind only, since most batches hold few of them. All are null where the type is
/// another.
pub struct Values {
    block: Box<Block>,
    in_block: usize,
    types: Vec<u8>,
    ints: Vec<i64>,
    keys: Pool,
    key_ends: Ends,
    texts: Pool,
    text_ends: Ends,
    doubles: Vec<f64>,
    /// Twice the row number of each boolean, plus its value.
    bools: Vec<u32>,
    bytes: Texts,
}

/// Set row `row`, after letting the missing ones before it be the default.
#[inline(always)]
fn set_at<T: Copy + Default>(values: &mut Vec<T>, row: usize, value: T) {
    while values.len() < row {
        values.push(T::default());
    }
    values.push(value);
}

impl Values {
    fn with_capacity(rows: usize, key_bytes: usize) -> Self {
        let block = Block {
            types: [0; BLOCK],
            ints: [0; BLOCK],
            key_ends: [0; BLOCK],
            text_ends: [0; BLOCK],
        };
        Self {
            block: Box::new(block),
            in_block: 0,
            types: Vec::with_capacity(rows),
            ints: Vec::with_capacity(rows),
            keys: Pool::with_capacity(key_bytes),
            key_ends: Ends::with_capacity(rows),
            texts: Pool::with_capacity(rows * 12),
            text_ends: Ends::with_capacity(rows),
            doubles: Vec::new(),
            bools: Vec::new(),
            bytes: Texts::with_capacity(0, 0),
        }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.types.len() + self.in_block
    }

    /// Add a row after its key, its string or its element of a child that is not always filled.
    #[inline(always)]
    fn add(&mut self, found: u8, int: i64) {
        let row = self.in_block % BLOCK;
        self.block.types[row] = found;
        self.block.ints[row] = int;
        self.block.key_ends[row] = self.keys.end() as i32;
        self.block.text_ends[row] = self.texts.end() as i32;
        self.in_block = row + 1;
        if self.in_block == BLOCK {
            self.flush();
        }
    }

    #[inline(never)]
    fn flush(&mut self) {
        let rows = std::mem::take(&mut self.in_block);
        self.types.extend_from_slice(&self.block.types[..rows]);
        self.ints.extend_from_slice(&self.block.ints[..rows]);
        self.key_ends.extend(&self.block.key_ends[..rows]);
        self.text_ends.extend(&self.block.text_ends[..rows]);
        self.keys.glance();
        self.texts.glance();
    }

    fn push_string(&mut self, text: &[u8]) {
        self.texts.push(text);
        self.add(kind::STRING, 0);
    }

    #[inline(always)]
    fn push_bool(&mut self, value: bool) {
        self.bools.push((self.len() as u32) << 1 | u32::from(value));
        self.add(kind::BOOL, 0);
    }

    fn push_raw(&mut self, body: &[u8], left: u32, unknown: &mut u64) -> Fast<()> {
        let row = self.len();
        self.bytes
            .write_at(row, |out| nested::key_value(body, left, unknown, out))?;
        self.add(kind::RAW, 0);
        Ok(())
    }

    /// Read an AnyValue; `left` is how many levels may still be entered below it.
    #[inline]
    pub fn push(&mut self, body: &[u8], left: u32, unknown: &mut u64) -> Fast<()> {
        // A string and nothing else, of less than 128 bytes: what most values are.
        if let [0x0a, size @ ..=0x7f, text @ ..] = body {
            if text.len() == usize::from(*size) {
                self.push_string(text);
                return Ok(());
            }
        }
        self.push_any(body, left, unknown)
    }

    fn push_any(&mut self, body: &[u8], left: u32, unknown: &mut u64) -> Fast<()> {
        let row = self.len();
        let mut cursor = Cursor::new(body);
        while !cursor.is_empty() {
            let tag = cursor.tag()?;
            let known = matches!(tag, 0x0a | 0x10 | 0x18 | 0x21 | 0x2a | 0x32 | 0x3a | 0x40);
            if known && self.len() > row {
                return Err(Irregular); // a second member of the oneof
            }
            match tag {
                0x0a => self.push_string(cursor.bytes()?),
                0x10 => self.push_bool(cursor.varint()? != 0),
                0x18 => self.add(kind::INT, cursor.varint()? as i64),
                0x21 => {
                    set_at(&mut self.doubles, row, cursor.double()?);
                    self.add(kind::DOUBLE, 0);
                }
                0x2a | 0x32 => {
                    let content = cursor.bytes()?;
                    let inside = left.checked_sub(1).ok_or(Irregular)?;
                    let list = tag == 0x2a;
                    let element = if list { nested::array } else { nested::kvlist };
                    self.bytes
                        .write_at(row, |out| element(content, inside, unknown, out))?;
                    self.add(if list { kind::ARRAY } else { kind::KVLIST }, 0);
                }
                0x3a => {
                    self.bytes.push_at(row, cursor.bytes()?);
                    self.add(kind::BYTES, 0);
                }
                0x40 => self.add(kind::STRINDEX, i64::from(cursor.varint32()? as i32)),
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        if self.len() == row {
            self.add(kind::EMPTY, 0);
        }
        Ok(())
    }

    /// See `Records::check`.
    fn check(&mut self) -> bool {
        self.flush();
        self.keys.check(&self.key_ends) && self.texts.check(&self.text_ends)
    }

    fn truncate(&mut self, rows: usize) {
        self.flush();
        self.types.truncate(rows);
        self.ints.truncate(rows);
        self.key_ends.truncate(rows);
        self.keys.truncate(self.key_ends.last());
        self.text_ends.truncate(rows);
        self.texts.truncate(self.text_ends.last());
        self.doubles.truncate(rows);
        self.bools
            .truncate(self.bools.partition_point(|b| ((b >> 1) as usize) < rows));
        self.bytes.truncate(rows);
    }

    /// Append what tells this row from every other; `flush` before.
    fn describe(&self, row: usize, out: &mut Vec<u8>) {
        let found = self.types[row];
        out.push(found);
        describe_text(&self.keys.bytes()[self.key_ends.range(row)], out);
        match found {
            kind::STRING => describe_text(&self.texts.bytes()[self.text_ends.range(row)], out),
            kind::BOOL => {
                let at = self.bools.partition_point(|b| ((b >> 1) as usize) < row);
                out.push(self.bools[at] as u8 & 1);
            }
            kind::INT | kind::STRINDEX => out.extend(self.ints[row].to_le_bytes()),
            kind::DOUBLE => out.extend(self.doubles[row].to_le_bytes()),
            kind::ARRAY | kind::KVLIST | kind::BYTES | kind::RAW => {
                describe_text(self.bytes.get(row), out)
            }
            _ => {}
        }
    }

    /// The keys.
    fn keys(&mut self) -> Built<ArrayRef> {
        self.flush();
        let keys = std::mem::replace(&mut self.keys, Pool::with_capacity(0));
        let ends = std::mem::replace(&mut self.key_ends, Ends::with_capacity(0));
        keys.strings(ends, None)
    }

    /// The children in the order of the schema.
    fn children(mut self) -> Built<Vec<ArrayRef>> {
        self.flush();
        let rows = self.len();
        let types = self.types;
        let nulls_but = |filled: usize, kinds: &[u8]| -> Option<NullBuffer> {
            if filled == 0 {
                return Some(NullBuffer::new_null(rows));
            }
            let valid = kinds.iter().map(|kind| equal_bits(&types, *kind));
            valid.reduce(|a, b| &a | &b).map(NullBuffer::new)
        };
        let strings = nulls_but(rows, &[kind::STRING]);
        // Rare enough that looking for it pays.
        let strindex = types.contains(&kind::STRINDEX);
        let kinds = if strindex { 2 } else { 1 };
        let ints = nulls_but(rows, &[kind::INT, kind::STRINDEX][..kinds]);
        let doubles = nulls_but(self.doubles.len(), &[kind::DOUBLE]);
        let bools = nulls_but(self.bools.len(), &[kind::BOOL]);
        let bytes = nulls_but(
            self.bytes.len(),
            &[kind::ARRAY, kind::KVLIST, kind::BYTES, kind::RAW],
        );
        let any = types.contains(&kind::NONE).then(|| not_none(&types));
        let doubles_of = if self.doubles.is_empty() {
            zeros(rows)
        } else {
            self.doubles.resize(rows, 0.0);
            ScalarBuffer::from(trimmed(self.doubles))
        };
        let mut trues = vec![0u8; rows.div_ceil(8)];
        for b in &self.bools {
            trues[(b >> 4) as usize] |= (*b as u8 & 1) << (b >> 1 & 7);
        }
        Ok(vec![
            Arc::new(PrimitiveArray::<UInt8Type>::try_new(
                trimmed(types).into(),
                any,
            )?),
            self.texts.strings(self.text_ends, strings)?,
            Arc::new(PrimitiveArray::<Int64Type>::try_new(
                trimmed(self.ints).into(),
                ints,
            )?),
            Arc::new(PrimitiveArray::<Float64Type>::try_new(doubles_of, doubles)?),
            Arc::new(BooleanArray::new(
                BooleanBuffer::new(Buffer::from_vec(trues), 0, rows),
                bools,
            )),
            self.bytes.binary_of(rows, bytes)?,
        ])
    }
}

fn not_none(types: &[u8]) -> NullBuffer {
    NullBuffer::new(!&equal_bits(types, kind::NONE))
}

/// The varint of up to four bytes that an AnyValue of `value` bytes ends with; None when it is longer.
#[inline(always)]
fn short_varint(window: &[u8; WINDOW], begin: usize, value: usize) -> Option<u64> {
    let word = u32::from_le_bytes(*window[begin..].first_chunk()?);
    // The highest bit is set in all bytes but the last.
    let word = match value {
        2 if word & 0x80 == 0 => word & 0x7f,
        3 if word & 0x8080 == 0x80 => word & 0x7fff,
        4 if word & 0x80_8080 == 0x8080 => word & 0x7f_ffff,
        5 if word & 0x8080_8080 == 0x80_8080 => word,
        _ => return None,
    };
    let low = word & 0x7f | word >> 1 & 0x3f80 | word >> 2 & 0x1f_c000 | word >> 3 & 0xfe0_0000;
    Some(u64::from(low))
}

pub fn describe_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text);
}

/// A column of AnyValues, null where there is none.
pub struct AnyValues(Values);

impl AnyValues {
    pub fn with_capacity(rows: usize) -> Self {
        Self(Values::with_capacity(rows, 0))
    }

    #[inline]
    pub fn push(&mut self, body: Option<&[u8]>, left: u32, unknown: &mut u64) -> Fast<()> {
        match body {
            Some(body) => self.0.push(body, left, unknown),
            None => {
                self.0.add(kind::NONE, 0);
                Ok(())
            }
        }
    }

    pub fn check(&mut self) -> bool {
        self.0.check()
    }

    pub fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows);
    }

    pub fn finish(mut self) -> Built<ArrayRef> {
        self.0.flush();
        let types = &self.0.types;
        let nulls = types.contains(&kind::NONE).then(|| not_none(types));
        structs(&schema::ANY_VALUE, self.0.children()?, nulls)
    }
}

/// A column of attribute lists. Add the attributes of a row, then `close` it.
pub struct Attributes {
    values: Values,
    ends: Ends,
}

impl Attributes {
    /// For `rows` lists in a payload of `bytes`, most of which are attributes.
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        let attributes = bytes / BYTES_PER_ATTRIBUTE;
        Self {
            values: Values::with_capacity(attributes, bytes / 2),
            ends: Ends::with_capacity(rows),
        }
    }

    /// Add the KeyValue whose length is next, and all that follow it in fields of the same tag, to the open row; `left` is
    /// how many levels may still be entered below a KeyValue.
    ///
    /// Most of a payload passes through here. The loop keeps the place in registers, which `cursor` would not.
    #[inline(never)]
    pub fn push(
        &mut self,
        tag: u8,
        cursor: &mut Cursor<'_>,
        left: u32,
        unknown: &mut u64,
    ) -> Fast<()> {
        let Cursor { buf, mut pos, end } = *cursor;
        loop {
            match self.push_short(buf, pos, end) {
                Some(next) => pos = next,
                None => {
                    let mut one = Cursor { buf, pos, end };
                    self.push_one(one.bytes()?, left, unknown)?;
                    pos = one.pos;
                }
            }
            if pos >= end || buf.get(pos) != Some(&tag) {
                cursor.pos = pos;
                return Ok(());
            }
            pos += 1;
        }
    }

    /// Add a KeyValue of less than 128 bytes with a key and then a value that is a string, a small integer or a boolean,
    /// and return where it ends: what nearly all are. It is read from a window of a fixed size, the indices into which
    /// are known to be inside.
    #[inline(always)]
    fn push_short(&mut self, buf: &[u8], pos: usize, end: usize) -> Option<usize> {
        let window: &[u8; WINDOW] = buf.get(pos..)?.first_chunk()?;
        let size = usize::from(window[0]);
        let key = usize::from(window[2] & 0x7f);
        let value = usize::from(window[key + 4]);
        let next = pos + 1 + size;
        let regular = window[1] == 0x0a
            && window[2] < 0x80
            && window[key + 3] == 0x12
            && key + value + 4 == size;
        if !regular || size > 0x7f || next > end {
            return None;
        }
        let low = window[key + 6];
        match window[key + 5] {
            0x0a if usize::from(low) + 2 == value => {
                self.values.texts.push_short(window, key + 7, value - 2);
                self.values.keys.push_short(window, 3, key);
                self.values.add(kind::STRING, 0);
            }
            0x18 => {
                let int = short_varint(window, key + 6, value)?;
                self.values.keys.push_short(window, 3, key);
                self.values.add(kind::INT, int as i64);
            }
            0x10 if value == 2 && low < 2 => {
                self.values.keys.push_short(window, 3, key);
                self.values.push_bool(low != 0);
            }
            _ => return None,
        }
        Some(next)
    }

    /// Add a KeyValue to the open row; `left` is how many levels may still be entered below it.
    pub fn push_one(&mut self, body: &[u8], left: u32, unknown: &mut u64) -> Fast<()> {
        let before = *unknown;
        let found = KeyValue::read(body, left, unknown)?;
        self.values.keys.push(found.key);
        if found.strindex != 0 {
            *unknown = before; // `push_raw` counts them again
            return self.values.push_raw(body, left, unknown);
        }
        match found.value {
            Some(value) => self
                .values
                .push(value, left.checked_sub(1).ok_or(Irregular)?, unknown),
            None => {
                self.values.add(kind::NONE, 0);
                Ok(())
            }
        }
    }

    /// End the open row.
    #[inline(always)]
    pub fn close(&mut self) {
        self.ends.push(self.values.len());
    }

    /// Bytes of columns beyond the contents of strings: no attribute takes more.
    #[inline]
    pub fn expansion(&self) -> usize {
        self.values.len() * 32
    }

    pub fn check(&mut self) -> bool {
        self.values.check()
    }

    pub fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.values.truncate(self.ends.last());
    }

    /// Append what tells this row's attributes from all others.
    pub fn describe(&mut self, row: usize, out: &mut Vec<u8>) {
        self.values.flush();
        let range = self.ends.range(row);
        out.extend((range.len() as u32).to_le_bytes());
        range.for_each(|i| self.values.describe(i, out));
    }

    pub fn finish(self) -> Built<ArrayRef> {
        self.finish_with(None)
    }

    pub fn finish_with(mut self, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        let mut children = vec![self.values.keys()?];
        children.extend(self.values.children()?);
        let attributes = structs(&schema::ATTRIBUTE, children, None)?;
        let arrow_schema::DataType::List(item) = schema::attributes() else {
            unreachable!("attributes are a list")
        };
        list(item, self.ends, attributes, nulls)
    }
}
