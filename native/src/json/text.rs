//! JSON tokens (RFC 8259): strings, numbers, and skipping of whole values.

use std::collections::HashSet;

use crate::error::ParseError;

/// Values of unknown fields may nest this deep.
const MAX_SKIPPED_DEPTH: u32 = 100;

/// A position in a text that is known to be UTF-8.
pub struct Scanner<'a> {
    text: &'a [u8],
    pos: usize,
}

/// A string token: a part of the text, or its unescaped copy in the caller's scratch.
pub enum Token<'a> {
    Plain(&'a [u8]),
    Unescaped,
}

/// A number token, which has been checked against JSON's grammar.
pub struct Number<'a> {
    digits: &'a [u8],
    /// Neither fraction nor exponent.
    integral: bool,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, pos: 0 }
    }

    #[inline]
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// The next byte that is not white space, without moving past it; 0 at the end of the text.
    #[inline]
    pub fn peek(&mut self) -> u8 {
        while let Some(&byte) = self.text.get(self.pos) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return byte;
            }
            self.pos += 1;
        }
        0
    }

    /// Move past the byte that `peek` returned.
    #[inline]
    pub fn bump(&mut self) {
        self.pos += 1;
    }

    #[inline]
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), ParseError> {
        if self.peek() != byte {
            return Err(self.unexpected(what));
        }
        self.pos += 1;
        Ok(())
    }

    /// After an element of an object or array: true when another follows, false when `close` ended it.
    #[inline]
    pub fn another(&mut self, close: u8, what: &'static str) -> Result<bool, ParseError> {
        let byte = self.peek();
        if byte != b',' && byte != close {
            return Err(self.unexpected(what));
        }
        self.pos += 1;
        Ok(byte == b',')
    }

    /// Refuse what stands here instead of `what`.
    #[cold]
    pub fn unexpected(&self, what: &str) -> ParseError {
        match self.text.get(self.pos) {
            None => ParseError::new(
                format!("expected {what}, got the end of the text"),
                self.pos,
            ),
            Some(byte) => {
                let got = match byte {
                    b'{' => "an object".to_owned(),
                    b'[' => "an array".to_owned(),
                    b'"' => "a string".to_owned(),
                    b'-' | b'0'..=b'9' => "a number".to_owned(),
                    b't' | b'f' => "a boolean".to_owned(),
                    b'n' => "null".to_owned(),
                    0x21..=0x7e => format!("'{}'", char::from(*byte)),
                    _ => format!("byte 0x{byte:02x}"),
                };
                ParseError::new(format!("expected {what}, got {got}"), self.pos)
            }
        }
    }

    /// Move past `null`, `true` or `false`.
    pub fn literal(&mut self, word: &'static str) -> Result<(), ParseError> {
        for byte in word.bytes() {
            if self.text.get(self.pos) != Some(&byte) {
                return Err(ParseError::new(format!("expected {word}"), self.pos));
            }
            self.pos += 1;
        }
        Ok(())
    }

    /// The string that begins here.
    #[inline]
    pub fn string(
        &mut self,
        what: &'static str,
        scratch: &mut Vec<u8>,
    ) -> Result<Token<'a>, ParseError> {
        self.expect(b'"', what)?;
        let start = self.pos;
        let end = special(self.text, start);
        if self.text.get(end) == Some(&b'"') {
            self.pos = end + 1;
            return Ok(Token::Plain(&self.text[start..end]));
        }
        self.unescape(scratch)?;
        Ok(Token::Unescaped)
    }

    /// Copy the string whose content begins here to `scratch`, escapes resolved.
    fn unescape(&mut self, scratch: &mut Vec<u8>) -> Result<(), ParseError> {
        scratch.clear();
        loop {
            let end = special(self.text, self.pos);
            scratch.extend_from_slice(&self.text[self.pos..end]);
            self.pos = end + 1;
            match self.text.get(end) {
                Some(b'"') => return Ok(()),
                Some(b'\\') => self.escape(scratch)?,
                Some(byte) => {
                    return Err(ParseError::new(
                        format!("control character 0x{byte:02x} in a string"),
                        end,
                    ))
                }
                None => return Err(ParseError::new("string without an end", end)),
            }
        }
    }

    fn escape(&mut self, scratch: &mut Vec<u8>) -> Result<(), ParseError> {
        let start = self.pos - 1;
        let Some(&byte) = self.text.get(self.pos) else {
            return Err(ParseError::new("string without an end", self.pos));
        };
        self.pos += 1;
        scratch.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = self.four_hex_digits()?;
                if (0xd800..0xdc00).contains(&unit) && self.text[self.pos..].starts_with(b"\\u") {
                    self.pos += 2;
                    let low = self.four_hex_digits()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(ParseError::new("unpaired surrogate", start));
                    }
                    unit = 0x1_0000 + ((unit - 0xd800) << 10 | (low - 0xdc00));
                }
                let Some(character) = char::from_u32(unit) else {
                    return Err(ParseError::new("unpaired surrogate", start));
                };
                scratch.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(ParseError::new("invalid escape in a string", start)),
        });
        Ok(())
    }

    fn four_hex_digits(&mut self) -> Result<u32, ParseError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self
                .text
                .get(self.pos)
                .and_then(|&byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(ParseError::new(
                    "expected four hexadecimal digits after \\u",
                    self.pos,
                ));
            };
            unit = unit << 4 | digit;
            self.pos += 1;
        }
        Ok(unit)
    }

    /// The number that begins here.
    #[inline]
    pub fn number(&mut self) -> Result<Number<'a>, ParseError> {
        let start = self.pos;
        let Some((length, integral)) = number_length(&self.text[start..]) else {
            return Err(ParseError::new("invalid number", start));
        };
        self.pos += length;
        Ok(Number {
            digits: &self.text[start..self.pos],
            integral,
        })
    }

    /// Move past any value, checking that it is JSON without duplicate names.
    pub fn skip_value(&mut self, depth: u32, scratch: &mut Vec<u8>) -> Result<(), ParseError> {
        match self.peek() {
            b'"' => self.string("a string", scratch).map(drop),
            b'n' => self.literal("null"),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            b'{' | b'[' if depth == MAX_SKIPPED_DEPTH => Err(ParseError::new(
                format!("nested deeper than {MAX_SKIPPED_DEPTH} levels"),
                self.pos,
            )),
            b'{' => {
                self.bump();
                let mut names = Names::default();
                if self.peek() == b'}' {
                    self.bump();
                    return Ok(());
                }
                loop {
                    self.peek();
                    let at = self.pos;
                    let name = self.string("a name in quotes", scratch)?;
                    names.add(name.bytes(scratch), at)?;
                    self.expect(b':', "':'")?;
                    self.skip_value(depth + 1, scratch)?;
                    if !self.another(b'}', "',' or '}'")? {
                        return Ok(());
                    }
                }
            }
            b'[' => {
                self.bump();
                if self.peek() == b']' {
                    self.bump();
                    return Ok(());
                }
                loop {
                    self.skip_value(depth + 1, scratch)?;
                    if !self.another(b']', "',' or ']'")? {
                        return Ok(());
                    }
                }
            }
            _ => Err(self.unexpected("a value")),
        }
    }
}

impl<'a> Token<'a> {
    #[inline]
    pub fn bytes<'b>(&self, scratch: &'b [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Token::Plain(part) => part,
            Token::Unescaped => scratch,
        }
    }
}

impl<'a> Number<'a> {
    /// The number that makes up the whole of a string, if it does.
    pub fn whole(text: &'a [u8]) -> Option<Self> {
        let (length, integral) = number_length(text)?;
        (length == text.len()).then_some(Self {
            digits: text,
            integral,
        })
    }

    /// The nearest double; None beyond the largest.
    pub fn to_f64(&self) -> Option<f64> {
        let value: f64 = std::str::from_utf8(self.digits).ok()?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// The whole number; None when there is a fraction or it does not fit in any 64-bit integer.
    ///
    /// With a fraction or an exponent it is read as a double first, as the official library does.
    #[inline]
    pub fn to_integer(&self) -> Option<i128> {
        if !self.integral {
            let value = self.to_f64()?;
            return (value.fract() == 0.0 && value.abs() < 1e20).then_some(value as i128);
        }
        let (negative, digits) = match self.digits {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        if digits.len() > 20 {
            return None;
        }
        let magnitude = if digits.len() < 20 {
            i128::from(
                digits
                    .iter()
                    .fold(0u64, |value, byte| value * 10 + u64::from(byte - b'0')),
            )
        } else {
            digits
                .iter()
                .fold(0i128, |value, byte| value * 10 + i128::from(byte - b'0'))
        };
        Some(if negative { -magnitude } else { magnitude })
    }
}

/// Names met in one object, to refuse a second value for one.
#[derive(Default)]
pub struct Names(Option<HashSet<Vec<u8>>>);

impl Names {
    pub fn add(&mut self, name: &[u8], at: usize) -> Result<(), ParseError> {
        if self.0.get_or_insert_default().insert(name.to_vec()) {
            return Ok(());
        }
        Err(duplicate(name, at))
    }
}

#[cold]
pub fn duplicate(name: &[u8], at: usize) -> ParseError {
    ParseError::new(
        format!("duplicate name {:?}", String::from_utf8_lossy(name)),
        at,
    )
}

/// Length of the JSON number at the beginning of `text`, and whether it has neither fraction nor exponent.
#[inline]
fn number_length(text: &[u8]) -> Option<(usize, bool)> {
    let run = |from: usize| {
        text[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let start = usize::from(text.first() == Some(&b'-'));
    let mut end = start + run(start);
    if end == start || (end > start + 1 && text[start] == b'0') {
        return None;
    }
    let whole = end;
    if text.get(end) == Some(&b'.') {
        let digits = run(end + 1);
        if digits == 0 {
            return None;
        }
        end += 1 + digits;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        let digits = run(end + 1 + sign);
        if digits == 0 {
            return None;
        }
        end += 1 + sign + digits;
    }
    Some((end, end == whole))
}

const ONES: u64 = u64::MAX / 255;
const HIGH_BITS: u64 = ONES << 7;

/// Place of the first quotation mark, backslash or control character from `from` on; the text's length when none.
///
/// Eight bytes at a time. Borrows can set false marks only above a true one, and the lowest is the one wanted.
#[inline]
pub fn special(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5c);
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let found = found & HIGH_BITS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = text.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            break;
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_finds_the_first_of_every_byte_at_every_place() {
        for byte in 0..=255u8 {
            for place in 0..20 {
                let mut text = vec![0xc3u8; 20];
                text[place] = byte;
                text[19] = b'"';
                let stops = byte == b'"' || byte == b'\\' || byte < 0x20;
                assert_eq!(
                    special(&text, 0),
                    if stops || place == 19 && byte == b'"' {
                        place
                    } else {
                        19
                    }
                );
            }
        }
    }

    #[test]
    fn number_grammar_is_that_of_json() {
        for good in ["0", "-0", "10", "1.5", "1e5", "1E-05", "-1.25e+3"] {
            assert!(Number::whole(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x1", "1 ", "NaN", "1_0",
        ] {
            assert!(Number::whole(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
