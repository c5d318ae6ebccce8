//! AnyValues and attribute lists in columns.

use std::sync::Arc;

use arrow_array::types::{Float64Type, Int64Type, UInt8Type};
use arrow_array::{ArrayRef, BooleanArray, PrimitiveArray};
use arrow_buffer::{BooleanBuffer, NullBuffer};

use super::columns::{equal_bits, list, structs, trimmed, Built, Ends, Texts};
use super::cursor::{Cursor, Fast, Irregular};
use super::nested::{self, KeyValue};
use crate::schema::{self, value_type as kind};

/// Bytes of payload per attribute, for a first guess of how many rows there will be.
const BYTES_PER_ATTRIBUTE: usize = 36;

/// AnyValues: `types`, `strings` and `ints` have a row for each. The other children are filled up to the last row of their
/// kind only, since most batches hold few of them. All are null where the type is another.
pub struct Values {
    types: Vec<u8>,
    strings: Texts,
    ints: Vec<i64>,
    doubles: Vec<f64>,
    bools: Vec<bool>,
    bytes: Texts,
}

/// Set row `row`, after letting the missing ones before it be the default.
#[inline(always)]
fn set_at<T: Copy + Default>(values: &mut Vec<T>, row: usize, value: T) {
    if values.len() < row {
        values.resize(row, T::default());
    }
    values.push(value);
}

impl Values {
    fn with_capacity(rows: usize) -> Self {
        Self {
            types: Vec::with_capacity(rows),
            strings: Texts::with_capacity(rows, rows * 12),
            ints: Vec::with_capacity(rows),
            doubles: Vec::new(),
            bools: Vec::new(),
            bytes: Texts::with_capacity(0, 0),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.types.len()
    }

    pub fn push_none(&mut self) {
        self.push_other(kind::NONE);
    }

    /// Add a row whose value, if it has one, is in none of the two children that are always filled.
    #[inline(always)]
    fn push_other(&mut self, found: u8) {
        self.strings.push_empty();
        self.ints.push(0);
        self.types.push(found);
    }

    #[inline(always)]
    fn push_string(&mut self, wide: &[u8], size: usize) {
        self.strings.push_wide(wide, size);
        self.ints.push(0);
        self.types.push(kind::STRING);
    }

    #[inline(always)]
    fn push_int(&mut self, value: i64, found: u8) {
        self.strings.push_empty();
        self.ints.push(value);
        self.types.push(found);
    }

    fn push_raw(&mut self, body: &[u8], left: u32, unknown: &mut u64) -> Fast<()> {
        let row = self.types.len();
        self.bytes
            .write_at(row, |out| nested::key_value(body, left, unknown, out))?;
        self.push_other(kind::RAW);
        Ok(())
    }

    /// Read an AnyValue; `left` is how many levels may still be entered below it.
    #[inline(always)]
    pub fn push(&mut self, body: &[u8], left: u32, unknown: &mut u64) -> Fast<()> {
        self.push_wide(body, body.len(), left, unknown)
    }

    /// Read the AnyValue in the first `size` bytes of `wide`.
    #[inline(always)]
    fn push_wide(&mut self, wide: &[u8], size: usize, left: u32, unknown: &mut u64) -> Fast<()> {
        match wide {
            // A string and nothing else, of less than 128 bytes: what most values are.
            [0x0a, length @ ..=0x7f, text @ ..] if usize::from(*length) + 2 == size => {
                self.push_string(text, size - 2);
                return Ok(());
            }
            // A small integer and nothing else.
            [0x18, low @ ..=0x7f, ..] if size == 2 => {
                self.push_int(i64::from(*low), kind::INT);
                return Ok(());
            }
            [0x18, low, high @ ..=0x7f, ..] if size == 3 && *low > 0x7f => {
                self.push_int(i64::from(*low & 0x7f) | i64::from(*high) << 7, kind::INT);
                return Ok(());
            }
            _ => {}
        }
        self.push_any(&wide[..size], left, unknown)
    }

    fn push_any(&mut self, body: &[u8], left: u32, unknown: &mut u64) -> Fast<()> {
        let row = self.types.len();
        let mut cursor = Cursor(body);
        while !cursor.is_empty() {
            let tag = cursor.tag()?;
            let known = matches!(tag, 0x0a | 0x10 | 0x18 | 0x21 | 0x2a | 0x32 | 0x3a | 0x40);
            if known && self.types.len() > row {
                return Err(Irregular); // a second member of the oneof
            }
            match tag {
                0x0a => {
                    let text = cursor.bytes()?;
                    self.push_string(text, text.len());
                }
                0x10 => {
                    set_at(&mut self.bools, row, cursor.varint()? != 0);
                    self.push_other(kind::BOOL);
                }
                0x18 => self.push_int(cursor.varint()? as i64, kind::INT),
                0x21 => {
                    set_at(&mut self.doubles, row, cursor.double()?);
                    self.push_other(kind::DOUBLE);
                }
                0x2a | 0x32 => {
                    let content = cursor.bytes()?;
                    let inside = left.checked_sub(1).ok_or(Irregular)?;
                    let list = tag == 0x2a;
                    let element = if list { nested::array } else { nested::kvlist };
                    self.bytes
                        .write_at(row, |out| element(content, inside, unknown, out))?;
                    self.push_other(if list { kind::ARRAY } else { kind::KVLIST });
                }
                0x3a => {
                    self.bytes.push_at(row, cursor.bytes()?);
                    self.push_other(kind::BYTES);
                }
                0x40 => self.push_int(i64::from(cursor.varint32()? as i32), kind::STRINDEX),
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        if self.types.len() == row {
            self.push_other(kind::EMPTY);
        }
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        self.types.truncate(rows);
        self.strings.truncate(rows);
        self.ints.truncate(rows);
        self.doubles.truncate(rows);
        self.bools.truncate(rows);
        self.bytes.truncate(rows);
    }

    /// Append what tells this value from every other.
    fn describe(&self, row: usize, out: &mut Vec<u8>) {
        let found = self.types[row];
        out.push(found);
        match found {
            kind::STRING => describe_text(self.strings.get(row), out),
            kind::BOOL => out.push(u8::from(self.bools[row])),
            kind::INT | kind::STRINDEX => out.extend(self.ints[row].to_le_bytes()),
            kind::DOUBLE => out.extend(self.doubles[row].to_le_bytes()),
            kind::ARRAY | kind::KVLIST | kind::BYTES | kind::RAW => {
                describe_text(self.bytes.get(row), out)
            }
            _ => {}
        }
    }

    /// The children in the order of the schema.
    fn children(mut self) -> Built<Vec<ArrayRef>> {
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
        let ints = nulls_but(rows, &[kind::INT, kind::STRINDEX]);
        let doubles = nulls_but(self.doubles.len(), &[kind::DOUBLE]);
        let bools = nulls_but(self.bools.len(), &[kind::BOOL]);
        let bytes = nulls_but(
            self.bytes.len(),
            &[kind::ARRAY, kind::KVLIST, kind::BYTES, kind::RAW],
        );
        let any = types.contains(&kind::NONE).then(|| not_none(&types));
        self.doubles.resize(rows, 0.0);
        self.bools.resize(rows, false);
        self.bytes.pad(rows);
        Ok(vec![
            Arc::new(PrimitiveArray::<UInt8Type>::try_new(
                trimmed(types).into(),
                any,
            )?),
            self.strings.strings(strings)?,
            Arc::new(PrimitiveArray::<Int64Type>::try_new(
                trimmed(self.ints).into(),
                ints,
            )?),
            Arc::new(PrimitiveArray::<Float64Type>::try_new(
                trimmed(self.doubles).into(),
                doubles,
            )?),
            Arc::new(BooleanArray::new(BooleanBuffer::from(self.bools), bools)),
            self.bytes.binary(bytes)?,
        ])
    }
}

fn not_none(types: &[u8]) -> NullBuffer {
    NullBuffer::new(!&equal_bits(types, kind::NONE))
}

pub fn describe_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text);
}

/// A column of AnyValues, null where there is none.
pub struct AnyValues(Values);

impl AnyValues {
    pub fn with_capacity(rows: usize) -> Self {
        Self(Values::with_capacity(rows))
    }

    #[inline]
    pub fn push(&mut self, body: Option<&[u8]>, left: u32, unknown: &mut u64) -> Fast<()> {
        match body {
            Some(body) => self.0.push(body, left, unknown),
            None => {
                self.0.push_none();
                Ok(())
            }
        }
    }

    pub fn finish(self) -> Built<ArrayRef> {
        let nulls = self
            .0
            .types
            .contains(&kind::NONE)
            .then(|| not_none(&self.0.types));
        structs(&schema::ANY_VALUE, self.0.children()?, nulls)
    }
}

/// A column of attribute lists. Add the attributes of a row, then `close` it.
pub struct Attributes {
    keys: Texts,
    values: Values,
    ends: Ends,
}

impl Attributes {
    /// For `rows` lists in a payload of `bytes`, most of which are attributes.
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        let attributes = bytes / BYTES_PER_ATTRIBUTE;
        Self {
            keys: Texts::with_capacity(attributes, bytes / 2),
            values: Values::with_capacity(attributes),
            ends: Ends::with_capacity(rows),
        }
    }

    /// Add a KeyValue to the open row; `left` is how many levels may still be entered below the KeyValue.
    ///
    /// It stands in the first `size` bytes of `wide`, and what follows there belongs to the same record.
    #[inline(always)]
    pub fn push(&mut self, (wide, size): (&[u8], usize), left: u32, unknown: &mut u64) -> Fast<()> {
        // Key and value in this order, each shorter than 128 bytes: what encoders write.
        if let [0x0a, length @ ..=0x7f, key @ ..] = wide {
            let length = usize::from(*length);
            if let Some([0x12, inner @ ..=0x7f, value @ ..]) = key.get(length..) {
                let inner = usize::from(*inner);
                if length + inner + 4 == size {
                    self.keys.push_wide(key, length);
                    return self.values.push_wide(
                        value,
                        inner,
                        left.checked_sub(1).ok_or(Irregular)?,
                        unknown,
                    );
                }
            }
        }
        self.push_general(&wide[..size], left, unknown)
    }

    fn push_general(&mut self, body: &[u8], left: u32, unknown: &mut u64) -> Fast<()> {
        let before = *unknown;
        let found = KeyValue::read(body, left, unknown)?;
        self.keys.push(found.key);
        if found.strindex != 0 {
            *unknown = before; // `push_raw` counts them again
            return self.values.push_raw(body, left, unknown);
        }
        match found.value {
            Some(value) => self
                .values
                .push(value, left.checked_sub(1).ok_or(Irregular)?, unknown),
            None => {
                self.values.push_none();
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

    pub fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.keys.truncate(self.ends.last());
        self.values.truncate(self.ends.last());
    }

    /// Append what tells this row's attributes from all others.
    pub fn describe(&self, row: usize, out: &mut Vec<u8>) {
        let range = self.ends.range(row);
        out.extend((range.len() as u32).to_le_bytes());
        for i in range {
            describe_text(self.keys.get(i), out);
            self.values.describe(i, out);
        }
    }

    pub fn finish(self) -> Built<ArrayRef> {
        self.finish_with(None)
    }

    pub fn finish_with(self, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        let mut children = vec![self.keys.strings(None)?];
        children.extend(self.values.children()?);
        let attributes = structs(&schema::ATTRIBUTE, children, None)?;
        let arrow_schema::DataType::List(item) = schema::attributes() else {
            unreachable!("attributes are a list")
        };
        list(item, self.ends, attributes, nulls)
    }
}
