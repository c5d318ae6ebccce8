//! Nested AnyValues: wire bytes -> the canonical bytes that the official library would write for the parsed value.
//!
//! Canonical: ascending field numbers, minimal varints, no defaults but for oneof members, unknown fields left out.

use super::cursor::{set_message, set_text, Cursor, Fast, Irregular};

#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: usize) -> usize {
    (70 - (value as u64 | 1).leading_zeros() as usize) / 7
}

/// Write `tag`, the length of what `content` writes, and that. `guess` is the content's likely length.
fn delimited(
    out: &mut Vec<u8>,
    tag: u8,
    guess: usize,
    content: impl FnOnce(&mut Vec<u8>) -> Fast<()>,
) -> Fast<()> {
    out.push(tag);
    let room = varint_len(guess);
    let begin = out.len();
    put_varint(out, guess as u64);
    content(out)?;
    let size = out.len() - begin - room;
    if size != guess {
        let mut length = Vec::with_capacity(10);
        put_varint(&mut length, size as u64);
        out.splice(begin..begin + room, length);
    }
    Ok(())
}

fn put_text(out: &mut Vec<u8>, tag: u8, text: &[u8]) {
    out.push(tag);
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn valid(text: &[u8]) -> Fast<&[u8]> {
    match std::str::from_utf8(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(Irregular),
    }
}

/// The content of an ArrayValue or of a KeyValueList: a list of `element`.
fn elements<'a>(
    body: &'a [u8],
    left: u32,
    unknown: &mut u64,
    out: &mut Vec<u8>,
    element: fn(&'a [u8], u32, &mut u64, &mut Vec<u8>) -> Fast<()>,
) -> Fast<()> {
    let inside = left.checked_sub(1).ok_or(Irregular)?;
    let mut cursor = Cursor::new(body);
    while !cursor.is_empty() {
        match cursor.tag()? {
            0x0a => {
                let content = cursor.bytes()?;
                delimited(out, 0x0a, content.len(), |out| {
                    element(content, inside, unknown, out)
                })?;
            }
            tag => {
                cursor.skip(tag, left)?;
                *unknown += 1;
            }
        }
    }
    Ok(())
}

/// `left`: how many levels may still be entered below the ArrayValue.
pub fn array(body: &[u8], left: u32, unknown: &mut u64, out: &mut Vec<u8>) -> Fast<()> {
    elements(body, left, unknown, out, any_value)
}

pub fn kvlist(body: &[u8], left: u32, unknown: &mut u64, out: &mut Vec<u8>) -> Fast<()> {
    elements(body, left, unknown, out, key_value)
}

/// A KeyValue's fields; the value is not looked into.
#[derive(Default)]
pub struct KeyValue<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    pub strindex: i32,
}

impl<'a> KeyValue<'a> {
    #[inline(always)]
    pub fn read(body: &'a [u8], left: u32, unknown: &mut u64) -> Fast<Self> {
        let mut found = Self::default();
        let mut cursor = Cursor::new(body);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => set_text(&mut found.key, cursor.bytes()?)?,
                0x12 => set_message(&mut found.value, cursor.bytes()?)?,
                0x18 => found.strindex = cursor.varint32()? as i32,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        Ok(found)
    }
}

pub fn key_value(body: &[u8], left: u32, unknown: &mut u64, out: &mut Vec<u8>) -> Fast<()> {
    let found = KeyValue::read(body, left, unknown)?;
    if !found.key.is_empty() {
        put_text(out, 0x0a, valid(found.key)?);
    }
    if let Some(value) = found.value {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        delimited(out, 0x12, value.len(), |out| {
            any_value(value, inside, unknown, out)
        })?;
    }
    if found.strindex != 0 {
        out.push(0x18);
        put_varint(out, found.strindex as i64 as u64);
    }
    Ok(())
}

fn any_value(body: &[u8], left: u32, unknown: &mut u64, out: &mut Vec<u8>) -> Fast<()> {
    let mut cursor = Cursor::new(body);
    let mut set = false;
    while !cursor.is_empty() {
        let tag = cursor.tag()?;
        match tag {
            // A oneof: the last member would win, and a message would be merged.
            0x0a | 0x10 | 0x18 | 0x21 | 0x2a | 0x32 | 0x3a | 0x40
                if std::mem::replace(&mut set, true) =>
            {
                return Err(Irregular)
            }
            0x0a => put_text(out, 0x0a, valid(cursor.bytes()?)?),
            0x10 => out.extend([0x10, u8::from(cursor.varint()? != 0)]),
            0x18 => {
                out.push(0x18);
                put_varint(out, cursor.varint()?);
            }
            0x21 => {
                out.push(0x21);
                out.extend(cursor.fixed64()?.to_le_bytes());
            }
            0x2a | 0x32 => {
                let content = cursor.bytes()?;
                let inside = left.checked_sub(1).ok_or(Irregular)?;
                let element = if tag == 0x2a { array } else { kvlist };
                delimited(out, tag as u8, content.len(), |out| {
                    element(content, inside, unknown, out)
                })?;
            }
            0x3a => put_text(out, 0x3a, cursor.bytes()?),
            0x40 => {
                out.push(0x40);
                put_varint(out, cursor.varint()? as i32 as i64 as u64);
            }
            tag => {
                cursor.skip(tag, left)?;
                *unknown += 1;
            }
        }
    }
    Ok(())
}
