//! AnyValues and attribute lists from columns.

use std::ops::Range;

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
        let types = Numbers::of(columns, "type")?;
        Ok(Self {
            strings: Texts::of(columns, "str")?.read_where(&types, &[kind::STRING]),
            ints: Numbers::of(columns, "int")?.read_where(&types, &[kind::INT, kind::STRINDEX]),
            types,
            doubles: Numbers::of(columns, "double")?,
            bools: Bools::of(columns, "bool")?,
            bytes: Texts::of(columns, "bytes")?,
        })
    }

    #[inline(always)]
    fn kind(&self, row: usize) -> u8 {
        self.types.optional(row).unwrap_or(kind::NONE)
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
        let range = self.lists.range(row);
        let mut left = range.len();
        let plain = self.plain(range.clone());
        while left > 0 {
            if let Some(plain) = &plain {
                left = plain.write(left, tag, out);
            }
            if left > 0 {
                left -= 1;
                self.write_any(range.start + left, tag, out);
            }
        }
    }

    /// What is read of the rows of a list, when none of it is null where it is read.
    #[inline(always)]
    fn plain(&self, rows: Range<usize>) -> Option<Plain<'_>> {
        let (key_ends, keys) = self.keys.plain(rows.clone())?;
        let (text_ends, texts) = self.values.strings.plain(rows.clone())?;
        Some(Plain {
            types: self.values.types.plain(rows.clone())?,
            ints: self.values.ints.plain(rows.clone())?,
            bools: &self.values.bools,
            first: rows.start,
            key_ends,
            keys,
            text_ends,
            texts,
        })
    }

    fn write_any(&self, i: usize, tag: u8, out: &mut Backward) {
        let mark = out.mark();
        let found = self.values.kind(i);
        if found == kind::RAW {
            out.bytes(self.values.bytes.get(i));
        } else {
            if found != kind::NONE {
                self.values.write(i, found, out);
                out.close(mark, 0x12);
            }
            out.text_tail(0x0a, self.keys.tail(i));
        }
        out.close(mark, tag);
    }

    /// Bytes that all rows may take, roughly.
    pub fn size(&self) -> usize {
        self.keys.size()
            + self.values.strings.size()
            + self.values.bytes.size()
            + self.values.types.len() * 12
    }
}

/// The attributes of a row as they are in nearly all batches.
struct Plain<'a> {
    types: &'a [u8],
    ints: &'a [i64],
    bools: &'a Bools<'a>,
    /// Row of the first in `bools`.
    first: usize,
    /// One more than there are attributes: the first begins where the one before it ends.
    key_ends: &'a [i32],
    keys: &'a [u8],
    text_ends: &'a [i32],
    texts: &'a [u8],
}

/// Bytes of a text that is copied in chunks.
const SHORT: usize = 64;
/// What a short attribute and two chunks need.
const ROOM: usize = 192;

/// Put the last `size` bytes of a short text into `room`, to end at `end`. What stands before them comes along; it goes
/// where the next write goes.
#[inline(always)]
fn put_tail(room: &mut [u8; ROOM], end: usize, text: &[u8; SHORT], size: usize) {
    const HALF: usize = SHORT / 2;
    room[end - HALF..end].copy_from_slice(&text[HALF..]);
    if size > HALF {
        room[end - SHORT..end - HALF].copy_from_slice(&text[..HALF]);
    }
}

impl Plain<'_> {
    /// Write the first `left` attributes from the last one on, until one is not short, and return how many are left.
    ///
    /// Most of a request passes through here.
    #[inline(always)]
    fn write(&self, mut left: usize, tag: u8, out: &mut Backward) -> usize {
        let (buf, mut start) = out.front();
        while left > 0 {
            let room = buf[..start].last_chunk_mut();
            let Some(size) = room.and_then(|room| self.put(left - 1, tag, room)) else {
                break;
            };
            start -= size;
            left -= 1;
        }
        out.continue_at(start);
        left
    }

    /// Put a short attribute, with its tag, at the end of `room` and return how many bytes it takes.
    #[inline(always)]
    fn put(&self, i: usize, tag: u8, room: &mut [u8; ROOM]) -> Option<usize> {
        let key_end = self.key_ends[i + 1] as usize;
        let key = key_end - self.key_ends[i] as usize;
        let keys: &[u8; SHORT] = self.keys[..key_end].last_chunk()?;
        let value = self.put_value(i, room)?;
        let total = value + key + 2;
        if key == 0 || key >= SHORT || value > SHORT + 4 || total >= 0x80 {
            return None;
        }
        let end = ROOM - value;
        put_tail(room, end, keys, key);
        let begin = end - key - 4;
        room[begin..begin + 4].copy_from_slice(&[tag, total as u8, 0x0a, key as u8]);
        Some(total + 2)
    }

    /// Put the field `value` of a KeyValue.
    #[inline(always)]
    fn put_value(&self, i: usize, room: &mut [u8; ROOM]) -> Option<usize> {
        let (word, size) = match self.types[i] {
            kind::STRING => {
                let end = self.text_ends[i + 1] as usize;
                let size = end - self.text_ends[i] as usize;
                let text = self.texts[..end].last_chunk()?;
                if size >= SHORT {
                    return None;
                }
                put_tail(room, ROOM, text, size);
                let begin = ROOM - size - 4;
                room[begin..begin + 4].copy_from_slice(&[0x12, size as u8 + 2, 0x0a, size as u8]);
                return Some(size + 4);
            }
            kind::INT => {
                let int = self.ints[i] as u64;
                // Seven bits to each byte, the highest bit set in all but the last.
                let bytes = int & 0x7f
                    | (int & 0x3f80) << 1
                    | (int & 0x1f_c000) << 2
                    | (int & 0xfe0_0000) << 3;
                let (more, size) = match int {
                    0..=0x7f => (0, 1),
                    0x80..=0x3fff => (0x80, 2),
                    0x4000..=0x1f_ffff => (0x8080, 3),
                    0x20_0000..=0xfff_ffff => (0x80_8080, 4),
                    _ => return None,
                };
                let field = 0x18_0012 | (size + 1) << 8 | (bytes | more) << 24;
                (field, size as usize + 3)
            }
            kind::BOOL => (
                0x10_0212 | u64::from(self.bools.get(self.first + i)) << 24,
                4,
            ),
            _ => return None,
        };
        if let Some(last) = room.last_chunk_mut() {
            *last = (word << (64 - 8 * size)).to_le_bytes();
        }
        Some(size)
    }
}
