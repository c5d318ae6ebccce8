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

/// What is left of the innermost message.
#[derive(Clone, Copy)]
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Field number and wire type as one number, the way they are written.
    #[inline(always)]
    pub fn tag(&mut self) -> Fast<u32> {
        match self.0 {
            [tag @ 8..=0x7f, rest @ ..] => {
                self.0 = rest;
                Ok(u32::from(*tag))
            }
            _ => self.long_tag(),
        }
    }

    /// At most five bytes, at most 32 bits, field number not 0.
    #[inline(never)]
    fn long_tag(&mut self) -> Fast<u32> {
        let before = self.0.len();
        let tag = u32::try_from(self.varint()?).map_err(|_| Irregular)?;
        if tag >> 3 == 0 || before - self.0.len() > 5 {
            return Err(Irregular);
        }
        Ok(tag)
    }

    #[inline(always)]
    pub fn varint(&mut self) -> Fast<u64> {
        match self.0 {
            [low @ ..=0x7f, rest @ ..] => {
                self.0 = rest;
                Ok(u64::from(*low))
            }
            [low, high @ ..=0x7f, rest @ ..] => {
                self.0 = rest;
                Ok(u64::from(*low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Fast<u64> {
        let mut value = 0u64;
        for (i, &byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        Err(Irregular)
    }

    /// The content of a length-delimited field.
    #[inline(always)]
    pub fn bytes(&mut self) -> Fast<&'a [u8]> {
        let before = self.0.len();
        let size = self.varint()? as usize;
        // A length of more than five bytes is refused by the official library even when its value is small.
        if size > self.0.len() || (before - self.0.len() > 5) {
            return Err(Irregular);
        }
        let (content, rest) = self.0.split_at(size);
        self.0 = rest;
        Ok(content)
    }

    /// Like `bytes`, with what stands behind it in the same message: a longer slice, and the content's size in it.
    #[inline(always)]
    pub fn wide(&mut self) -> Fast<(&'a [u8], usize)> {
        let before = self.0.len();
        let size = self.varint()? as usize;
        if size > self.0.len() || (before - self.0.len() > 5) {
            return Err(Irregular);
        }
        let wide = self.0;
        self.0 = &wide[size..];
        Ok((wide, size))
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Fast<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or(Irregular)?;
        self.0 = rest;
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
            DELIMITED => self.bytes().map(drop),
            FIXED32 => self.fixed32().map(drop),
            START_GROUP => {
                let left = left.checked_sub(1).ok_or(Irregular)?;
                loop {
                    let inner = self.tag()?;
                    if inner == tag + 1 {
                        return Ok(());
                    }
                    self.skip(inner, left)?;
                }
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

/// Set a singular message; a second one would have to be merged into the first.
#[inline(always)]
pub fn set_message<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8]) -> Fast<()> {
    if slot.is_some() {
        return Err(Irregular);
    }
    *slot = Some(value);
    Ok(())
}
