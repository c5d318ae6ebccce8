//! AnyValues and attribute lists from columns.

use arrow_array::types::{Float64Type, Int64Type, UInt8Type};
use arrow_buffer::NullBuffer;

use super::backward::Backward;
use super::input::{structs, Bools, Columns, Lists, Numbers, Result, Texts};
use crate::schema::value_type as kind;

struct Values<'a> {
    types: Numbers<'a, UInt8Type>,
    strings: Texts<'a>,
    ints: Numbers<'a, Int64Type>,
    doubles: Numbers<'a, Float64Type>,
    bools: Bools<'a>,
    bytes: Texts<'a>,
}

impl<'a> Values<'a> {
    fn of(columns: &'a impl Columns) -> Result<Self> {
        Ok(Self {
            types: Numbers::of(columns, "type")?,
            strings: Texts::of(columns, "str")?,
            ints: Numbers::of(columns, "int")?,
            doubles: Numbers::of(columns, "double")?,
            bools: Bools::of(columns, "bool")?,
            bytes: Texts::of(columns, "bytes")?,
        })
    }

    #[inline(always)]
    fn kind(&self, row: usize) -> u8 {
        self.types.optional(row).unwrap_or(kind::NONE)
    }

    /// The field `value` of a KeyValue.
    #[inline(always)]
    fn write_field(&self, row: usize, found: u8, out: &mut Backward) {
        match found {
            kind::STRING => {
                let (text, size) = self.strings.tail(row);
                if size < 0x7e {
                    out.tail(text, size);
                    return out.array([0x12, size as u8 + 2, 0x0a, size as u8]);
                }
            }
            kind::INT => {
                let int = self.ints.get(row);
                if (0..0x80).contains(&int) {
                    return out.array([0x12, 2, 0x18, int as u8]);
                }
                if (0..0x4000).contains(&int) {
                    return out.array([0x12, 3, 0x18, int as u8 | 0x80, (int >> 7) as u8]);
                }
            }
            kind::BOOL => return out.array([0x12, 2, 0x10, u8::from(self.bools.get(row))]),
            kind::NONE => return,
            _ => {}
        }
        let mark = out.mark();
        self.write(row, found, out);
        out.close(mark, 0x12);
    }

    /// The content of an AnyValue.
    #[inline(always)]
    fn write(&self, row: usize, found: u8, out: &mut Backward) {
        match found {
            kind::STRING => {
                let mark = out.mark();
                let (text, size) = self.strings.tail(row);
                out.tail(text, size);
                out.close(mark, 0x0a);
            }
            kind::INT => {
                out.varint(self.ints.get(row) as u64);
                out.byte(0x18);
            }
            kind::BOOL => out.array([0x10, u8::from(self.bools.get(row))]),
            kind::DOUBLE => out.eight(0x21, self.doubles.get(row).to_le_bytes()),
            kind::ARRAY => out.delimited(0x2a, self.bytes.get(row)),
            kind::KVLIST => out.delimited(0x32, self.bytes.get(row)),
            kind::BYTES => out.delimited(0x3a, self.bytes.get(row)),
            kind::STRINDEX => {
                out.varint(self.ints.get(row) as u64);
                out.byte(0x40);
            }
            _ => {} // EMPTY
        }
    }
}

/// A column of AnyValues.
pub struct AnyValues<'a> {
    values: Values<'a>,
    nulls: Option<&'a NullBuffer>,
}

impl<'a> AnyValues<'a> {
    pub fn of(columns: &'a impl Columns, name: &str) -> Result<Self> {
        let (array, nulls) = structs(columns, name)?;
        Ok(Self {
            values: Values::of(array)?,
            nulls,
        })
    }

    /// The field `tag`, left out where there is no value.
    #[inline]
    pub fn write(&self, row: usize, tag: u8, out: &mut Backward) {
        let found = self.values.kind(row);
        if found != kind::NONE && !self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            let mark = out.mark();
            self.values.write(row, found, out);
            out.close(mark, tag);
        }
    }

    pub fn size(&self) -> usize {
        self.values.strings.size() + self.values.bytes.size()
    }
}

/// A column of attribute lists.
pub struct Attributes<'a> {
    lists: Lists<'a>,
    keys: Texts<'a>,
    values: Values<'a>,
}

impl<'a> Attributes<'a> {
    pub fn of(columns: &'a impl Columns, name: &str) -> Result<Self> {
        let (lists, child) = Lists::of_structs(columns, name)?;
        Ok(Self {
            lists,
            keys: Texts::of(child, "key")?,
            values: Values::of(child)?,
        })
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.lists.is_null(row)
    }

    pub fn is_empty(&self, row: usize) -> bool {
        self.lists.range(row).is_empty()
    }

    /// All attributes of a row as elements of the repeated field `tag`.
    #[inline(never)]
    pub fn write(&self, row: usize, tag: u8, out: &mut Backward) {
        for i in self.lists.range(row).rev() {
            let mark = out.mark();
            let found = self.values.kind(i);
            if found == kind::RAW {
                out.bytes(self.values.bytes.get(i));
                out.close(mark, tag);
                continue;
            }
            self.values.write_field(i, found, out);
            let (key, size) = self.keys.tail(i);
            let total = out.mark() - mark + size + 2;
            if size != 0 && total < 0x80 {
                out.tail(key, size);
                out.array([tag, total as u8, 0x0a, size as u8]);
            } else {
                out.text_tail(0x0a, (key, size));
                out.close(mark, tag);
            }
        }
    }

    /// Bytes that all rows may take, roughly.
    pub fn size(&self) -> usize {
        self.keys.size()
            + self.values.strings.size()
            + self.values.bytes.size()
            + self.values.types.len() * 12
    }
}
