//! The quick reader of protobuf's wire format, for messages as encoders write them.
//!
//! It accepts nothing that the official library (upb) refuses, and gives up with `Irregular` on everything else: what is
//! malformed, and what is legal but needs merging. The caller then asks `normalise`, which knows the full rules and says
//! where an error is; so nothing here spends a cycle on explaining.

/// The quick reader gives up; `normalise` decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Irregular;

pub type Fast<T> = Result<T, Irregular>;

pub const VARINT: u32 = 0;
pub const FIXED64: u32 = 1;
pub const DELIMITED: u32 = 2;
pub const START_GROUP: u32 = 3;
pub const FIXED32: u32 = 5;

/// A place in a message. `buf` goes on behind `end`, where the message ends: so short texts can be copied with what
/// stands behind them, in chunks of a fixed size.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    pub buf: &'a [u8],
    pub pos: usize,
    /// At most `buf.len()`.
    pub end: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Self {
            buf: body,
            pos: 0,
            end: body.len(),
        }
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.pos >= self.end
    }

    /// What stands next, unless the message ends before.
    #[inline(always)]
    pub fn ahead<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.buf.get(self.pos..self.end)?.first_chunk()
    }

    /// Move past a tag of one byte, when it is what stands next.
    #[inline(always)]
    pub fn take(&mut self, tag: u8) -> bool {
        let found = self.ahead() == Some(&[tag]);
        self.pos += usize::from(found);
        found
    }

    /// Field number and wire type as one number, the way they are written.
    #[inline(always)]
    pub fn tag(&mut self) -> Fast<u32> {
        match self.buf.get(self.pos) {
            Some(tag @ 8..=0x7f) => {
                self.pos += 1;
                Ok(u32::from(*tag))
            }
            _ => self.long_tag(),
        }
    }

    /// At most five bytes, at most 32 bits, field number not 0.
    #[inline(never)]
    fn long_tag(&mut self) -> Fast<u32> {
        let before = self.pos;
        let tag = u32::try_from(self.varint()?).map_err(|_| Irregular)?;
        if tag >> 3 == 0 || self.pos - before > 5 {
            return Err(Irregular);
        }
        Ok(tag)
    }

    #[inline(always)]
    pub fn varint(&mut self) -> Fast<u64> {
        match self.buf.get(self.pos..self.end) {
            Some([low @ ..=0x7f, ..]) => {
                self.pos += 1;
                Ok(u64::from(*low))
            }
            Some([low, high @ ..=0x7f, ..]) => {
                self.pos += 2;
                Ok(u64::from(*low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Fast<u64> {
        let rest = self.buf.get(self.pos..self.end).ok_or(Irregular)?;
        let mut value = 0u64;
        for (i, &byte) in rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.pos += i + 1;
                return Ok(value);
            }
        }
        Err(Irregular)
    }

    /// The content of a length-delimited field, as a place of its own; this one moves past it.
    #[inline(always)]
    pub fn message(&mut self) -> Fast<Self> {
        let before = self.pos;
        let size = self.varint()? as usize;
        // A length of more than five bytes is refused by the official library even when its value is small.
        if size > self.end - self.pos || self.pos - before > 5 {
            return Err(Irregular);
        }
        let inner = Self {
            end: self.pos + size,
            ..*self
        };
        self.pos = inner.end;
        Ok(inner)
    }

    /// The content of a length-delimited field.
    #[inline(always)]
    pub fn bytes(&mut self) -> Fast<&'a [u8]> {
        self.message()?.rest()
    }

    #[inline(always)]
    pub fn rest(&self) -> Fast<&'a [u8]> {
        self.buf.get(self.pos..self.end).ok_or(Irregular)
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Fast<[u8; N]> {
        let chunk = self.rest()?.first_chunk::<N>().ok_or(Irregular)?;
        self.pos += N;
        Ok(*chunk)
    }

    #[inline(always)]
    pub fn fixed64(&mut self) -> Fast<u64> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline(always)]
    pub fn double(&mut self) -> Fast<f64> {
        self.array().map(f64::from_le_bytes)
    }

    #[inline(always)]
    pub fn fixed32(&mut self) -> Fast<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A varint of a 32-bit type: what is wider is cut, as in the official library.
    #[inline(always)]
    pub fn varint32(&mut self) -> Fast<u32> {
        Ok(self.varint()? as u32)
    }

    /// Move past the value of an unknown field; `left` is how many levels may still be entered.
    #[inline(never)]
    pub fn skip(&mut self, tag: u32, left: u32) -> Fast<()> {
        match tag & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            DELIMITED => self.message().map(drop),
            FIXED32 => self.fixed32().map(drop),
            START_GROUP => {
                let left = left.checked_sub(1).ok_or(Irregular)?;
                while !self.is_empty() {
                    let inner = self.tag()?;
                    if inner == tag + 1 {
                        return Ok(());
                    }
                    self.skip(inner, left)?;
                }
                Err(Irregular)
            }
            _ => Err(Irregular), // the end of a group that was not begun, or no wire type at all
        }
    }
}

/// Replace a singular string. Only the last one counts, but every one must be valid UTF-8, which columns check for the
/// last: a second one is left to `normalise`.
#[inline(always)]
pub fn set_text<'a>(slot: &mut &'a [u8], value: &'a [u8]) -> Fast<()> {
    if !slot.is_empty() {
        return Err(Irregular);
    }
    *slot = value;
    Ok(())
}

/// The same, when the place it stands at is to be kept.
#[inline(always)]
pub fn set_near<'a>(slot: &mut Cursor<'a>, value: Cursor<'a>) -> Fast<()> {
    if !slot.is_empty() {
        return Err(Irregular);
    }
    *slot = value;
    Ok(())
}

/// Set a singular message; a second one would have to be merged into the first.
#[inline(always)]
pub fn set_message<T>(slot: &mut Option<T>, value: T) -> Fast<()> {
    if slot.is_some() {
        return Err(Irregular);
    }
    *slot = Some(value);
    Ok(())
}
