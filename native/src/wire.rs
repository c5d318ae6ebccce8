//! The protobuf wire format: tags, varints, lengths.
//!
//! Reads accept exactly what the official library (upb) accepts, overlong varints included.

use crate::error::ParseError;

pub const VARINT: u8 = 0;
pub const FIXED64: u8 = 1;
pub const DELIMITED: u8 = 2;
pub const START_GROUP: u8 = 3;
pub const END_GROUP: u8 = 4;
pub const FIXED32: u8 = 5;

/// Messages and groups may nest this deep below the outermost message, as in the official library.
pub const MAX_DEPTH: u32 = 100;

/// A position in a message; `end` is the end of the innermost message being read.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    buf: &'a [u8],
    pos: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub fn new(buf: &'a [u8]) -> Self {
        Self {
            buf,
            pos: 0,
            end: buf.len(),
        }
    }

    /// Offset of the next byte in the whole input.
    #[inline]
    pub fn pos(&self) -> usize {
        self.pos
    }

    #[inline]
    pub fn is_done(&self) -> bool {
        self.pos >= self.end
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, ParseError> {
        let mut value = 0u64;
        for (i, &byte) in self.buf[self.pos..self.end].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.pos += i + 1;
                return Ok(value);
            }
        }
        Err(ParseError::new(
            if self.end - self.pos < 10 {
                "truncated varint"
            } else {
                "varint longer than 10 bytes"
            },
            self.pos,
        ))
    }

    /// Field number and wire type.
    #[inline]
    pub fn tag(&mut self) -> Result<(u32, u8), ParseError> {
        let start = self.pos;
        match self.tag_in_group()? {
            (0, _) => Err(ParseError::new("invalid field number", start)),
            tag => Ok(tag),
        }
    }

    /// Inside a group that it skips, the official library also takes field number 0.
    #[inline]
    fn tag_in_group(&mut self) -> Result<(u32, u8), ParseError> {
        let start = self.pos;
        let tag = self.varint()?;
        match u32::try_from(tag) {
            Ok(tag) if self.pos - start <= 5 => Ok((tag >> 3, (tag & 7) as u8)),
            _ => Err(ParseError::new("invalid field number", start)),
        }
    }

    #[inline]
    pub fn fixed64(&mut self) -> Result<u64, ParseError> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub fn fixed32(&mut self) -> Result<u32, ParseError> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        match self.buf[self.pos..self.end].first_chunk::<N>() {
            Some(chunk) => {
                self.pos += N;
                Ok(*chunk)
            }
            None => Err(ParseError::new("truncated number", self.pos)),
        }
    }

    /// A reader over the length-delimited content that follows; this one moves past it.
    #[inline]
    pub fn delimited(&mut self) -> Result<Reader<'a>, ParseError> {
        let start = self.pos;
        let size = self.varint()?;
        match usize::try_from(size) {
            // The official library reads five bytes of a length, were the rest only padding.
            Ok(size)
                if size <= self.end - self.pos
                    && self.pos - start <= 5
                    && size < i32::MAX as usize =>
            {
                let inner = Reader {
                    buf: self.buf,
                    pos: self.pos,
                    end: self.pos + size,
                };
                self.pos += size;
                Ok(inner)
            }
            _ => Err(ParseError::new(
                format!("length {size} beyond the end of its message"),
                start,
            )),
        }
    }

    /// What is left to read.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        &self.buf[self.pos..self.end]
    }

    /// Move past the value of an unknown field; `depth` is how many levels may still be entered.
    pub fn skip(&mut self, number: u32, wire_type: u8, depth: u32) -> Result<(), ParseError> {
        match wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            DELIMITED => self.delimited().map(drop),
            FIXED32 => self.fixed32().map(drop),
            START_GROUP => {
                let Some(depth) = depth.checked_sub(1) else {
                    return Err(too_deep(self.pos));
                };
                while !self.is_done() {
                    let start = self.pos;
                    match self.tag_in_group()? {
                        (found, END_GROUP) if found == number => return Ok(()),
                        (_, END_GROUP) => {
                            return Err(ParseError::new("end of a group that was not begun", start))
                        }
                        (inner, wire_type) => self.skip(inner, wire_type, depth)?,
                    }
                }
                Err(ParseError::new("group without an end", self.pos))
            }
            END_GROUP => Err(ParseError::new(
                "end of a group that was not begun",
                self.pos,
            )),
            _ => Err(ParseError::new(
                format!("invalid wire type {wire_type}"),
                self.pos,
            )),
        }
    }
}

#[cold]
pub fn too_deep(offset: usize) -> ParseError {
    ParseError::new(format!("nested deeper than {MAX_DEPTH} levels"), offset)
}

#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number << 3 | u32::from(wire_type)));
}

pub fn put_delimited(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    put_tag(out, number, DELIMITED);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Bytes that `put_varint` would write.
#[inline]
pub fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Leave room for a length not known yet; give what it returns to `end_length` after the content.
#[inline]
pub fn begin_length(out: &mut Vec<u8>, room: usize) -> usize {
    out.resize(out.len() + room, 0);
    out.len()
}

/// Write the length of everything after `start` before it, in as few bytes as it takes; returns how many.
///
/// Content moves only when `room` was guessed wrong, so guess from the last message of the same kind.
#[inline]
pub fn end_length(out: &mut Vec<u8>, start: usize, room: usize) -> usize {
    let size = out.len() - start;
    let need = varint_len(size as u64);
    let first = start - room;
    if need != room {
        let content = start..out.len();
        if need > room {
            out.resize(out.len() + need - room, 0);
        }
        out.copy_within(content, first + need);
        out.truncate(first + need + size);
    }
    let mut rest = size;
    for place in &mut out[first..first + need] {
        *place = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[first + need - 1] &= 0x7f;
    need
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal_whatever_room_was_left() {
        for size in [0, 1, 127, 128, 300, 16_383, 16_384, 3_000_000] {
            for room in 0..6 {
                let mut out = vec![7];
                let start = begin_length(&mut out, room);
                out.extend((0..size).map(|i| i as u8));
                assert_eq!(end_length(&mut out, start, room), varint_len(size as u64));
                let mut expected = vec![7];
                put_varint(&mut expected, size as u64);
                expected.extend((0..size).map(|i| i as u8));
                assert_eq!(out, expected);
            }
        }
    }

    #[test]
    fn varint_len_counts_what_put_varint_writes() {
        for bits in 0..64 {
            for value in [(1u64 << bits) - 1, 1 << bits, u64::MAX >> bits] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value));
                assert_eq!(Reader::new(&out).varint().ok(), Some(value));
            }
        }
    }
}
