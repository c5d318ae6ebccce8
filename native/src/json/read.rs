//! OTLP/JSON text -> protobuf bytes.

use super::text::{duplicate, Names, Number, Scanner, Token};
use crate::descriptor::{Field, Kind, Label, Message, MESSAGES};
use crate::error::ParseError;
use crate::normalise::{put_number, wire_type_of};
use crate::wire::{self, DELIMITED};

/// Read a whole text; `depth` is how many levels of messages may stand below the outermost.
pub fn request(
    message: &'static Message,
    text: &[u8],
    depth: u32,
) -> Result<(Vec<u8>, u64), ParseError> {
    match std::str::from_utf8(text) {
        Ok(_) => whole(message, text, depth),
        Err(error) => {
            // Reading up to the bad byte tells in which field it stands.
            let at = error.valid_up_to();
            Err(match whole(message, &text[..at], depth) {
                Err(found) if found.offset() < at => found,
                Err(found) => found.because("invalid UTF-8", at),
                Ok(_) => ParseError::new("invalid UTF-8", at),
            })
        }
    }
}

fn whole(message: &'static Message, text: &[u8], depth: u32) -> Result<(Vec<u8>, u64), ParseError> {
    let mut reader = Reader {
        scanner: Scanner::new(text),
        out: Vec::with_capacity(text.len() / 2),
        scratch: Vec::new(),
        room: [1; MESSAGES.len()],
        unknown: 0,
    };
    reader.message(message, depth)?;
    if reader.scanner.peek() != 0 || reader.scanner.pos() < text.len() {
        return Err(reader.scanner.unexpected("the end of the text"));
    }
    Ok((reader.out, reader.unknown))
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    out: Vec<u8>,
    /// Holds the last string that had escapes.
    scratch: Vec<u8>,
    /// Bytes the length of the last message of each kind took: room left before the next.
    room: [u8; MESSAGES.len()],
    unknown: u64,
}

impl Reader<'_> {
    /// Read an object as the fields of a message; `depth` is how many levels may still be entered below it.
    fn message(&mut self, message: &'static Message, depth: u32) -> Result<(), ParseError> {
        self.scanner.expect(b'{', "an object")?;
        if self.scanner.peek() == b'}' {
            self.scanner.bump();
            return Ok(());
        }
        let mut seen = 0u32;
        let mut unknown = Names::default();
        let mut choice = None;
        loop {
            self.scanner.peek();
            let at = self.scanner.pos();
            let token = self.scanner.string("a name in quotes", &mut self.scratch)?;
            let name = token.bytes(&self.scratch);
            let known = message.by_json_name(name);
            match known {
                Some(row) if seen & 1 << row != 0 => return Err(duplicate(name, at)),
                Some(row) => seen |= 1 << row,
                None => unknown.add(name, at)?,
            }
            self.scanner.expect(b':', "':'")?;
            let next = self.scanner.peek();
            match known {
                None => {
                    self.unknown += 1;
                    let name = match token {
                        Token::Plain(name) => name.to_vec(),
                        Token::Unescaped => self.scratch.clone(),
                    };
                    self.scanner
                        .skip_value(0, &mut self.scratch)
                        .map_err(|error| {
                            error.inside(String::from_utf8_lossy(&name).into_owned(), None)
                        })?;
                }
                // Null means that the field is not set.
                Some(_) if next == b'n' => self.scanner.literal("null")?,
                Some(row) => {
                    let field = &message.fields[row];
                    if field.label == Label::Oneof {
                        if let Some(other) = choice.replace(field.json_name) {
                            let reason =
                                format!("only one of {other} and {} may be set", field.json_name);
                            return Err(ParseError::new(reason, at));
                        }
                    }
                    if field.label == Label::Repeated {
                        self.repeated(field, depth)?;
                    } else {
                        self.single(field, depth)
                            .map_err(|error| error.inside(field.json_name, None))?;
                    }
                }
            }
            if !self.scanner.another(b'}', "',' or '}'")? {
                return Ok(());
            }
        }
    }

    /// Read an array as the elements of a repeated field.
    fn repeated(&mut self, field: &'static Field, depth: u32) -> Result<(), ParseError> {
        self.scanner
            .expect(b'[', "an array")
            .map_err(|error| error.inside(field.json_name, None))?;
        if self.scanner.peek() == b']' {
            self.scanner.bump();
            return Ok(());
        }
        let packed = wire_type_of(field.kind) != DELIMITED;
        let mut start = 0;
        if packed {
            wire::put_tag(&mut self.out, field.number, DELIMITED);
            start = wire::begin_length(&mut self.out, 1);
        }
        let mut index = 0;
        loop {
            let element = match self.scanner.peek() {
                b'n' => Err(self.scanner.unexpected("an element")),
                _ if packed => self
                    .number(field.kind)
                    .map(|bits| put_number(&mut self.out, field.kind, bits)),
                _ => self.single(field, depth),
            };
            let more = element.and_then(|()| self.scanner.another(b']', "',' or ']'"));
            if !more.map_err(|error| error.inside(field.json_name, Some(index)))? {
                break;
            }
            index += 1;
        }
        if packed {
            wire::end_length(&mut self.out, start, 1);
        }
        Ok(())
    }

    /// Read one value and write it with its tag, unless it is the default of a field without presence.
    fn single(&mut self, field: &'static Field, depth: u32) -> Result<(), ParseError> {
        let implicit = field.label == Label::Implicit;
        match field.kind {
            Kind::Message(message) => {
                let Some(depth) = depth.checked_sub(1) else {
                    return Err(wire::too_deep(self.scanner.pos()));
                };
                wire::put_tag(&mut self.out, field.number, DELIMITED);
                let room = usize::from(self.room[message.id]);
                let start = wire::begin_length(&mut self.out, room);
                self.message(message, depth)?;
                self.room[message.id] = wire::end_length(&mut self.out, start, room) as u8;
            }
            Kind::String | Kind::Bytes | Kind::Id => {
                let at = self.scanner.pos();
                let token = self.scanner.string("a string", &mut self.scratch)?;
                let content = token.bytes(&self.scratch);
                if content.is_empty() && implicit {
                    return Ok(());
                }
                wire::put_tag(&mut self.out, field.number, DELIMITED);
                match field.kind {
                    Kind::Id => put_hex(&mut self.out, content)
                        .ok_or("expected pairs of hexadecimal digits"),
                    Kind::Bytes => put_base64(&mut self.out, content).ok_or("expected base64"),
                    _ => {
                        wire::put_varint(&mut self.out, content.len() as u64);
                        self.out.extend_from_slice(content);
                        Ok(())
                    }
                }
                .map_err(|reason| ParseError::new(reason, at))?;
            }
            kind => {
                let bits = self.number(kind)?;
                if bits != 0 || !implicit {
                    wire::put_tag(&mut self.out, field.number, wire_type_of(kind));
                    put_number(&mut self.out, kind, bits);
                }
            }
        }
        Ok(())
    }

    /// Read a number, boolean or enum as the bits `put_number` takes.
    fn number(&mut self, kind: Kind) -> Result<u64, ParseError> {
        let (low, high) = match kind {
            Kind::Double => return self.double().map(f64::to_bits),
            Kind::Bool => return self.boolean().map(u64::from),
            Kind::Int32 | Kind::Sint32 | Kind::Enum => (i128::from(i32::MIN), i128::from(i32::MAX)),
            Kind::Int64 | Kind::Sfixed64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
            Kind::Uint32 | Kind::Fixed32 => (0, i128::from(u32::MAX)),
            _ => (0, i128::from(u64::MAX)),
        };
        let at = self.scanner.pos();
        let value = match self.scanner.peek() {
            b'"' if matches!(kind, Kind::Enum) => {
                return Err(self
                    .scanner
                    .unexpected("the number of an enum value (OTLP/JSON knows no names)"));
            }
            b'"' => {
                let token = self.scanner.string("a number", &mut self.scratch)?;
                Number::whole(token.bytes(&self.scratch)).and_then(|number| number.to_integer())
            }
            b'-' | b'0'..=b'9' => self.scanner.number()?.to_integer(),
            _ => return Err(self.scanner.unexpected("a whole number")),
        };
        match value {
            Some(value) if (low..=high).contains(&value) => Ok(match kind {
                Kind::Sint32 => u64::from(((value as i32) << 1 ^ (value as i32) >> 31) as u32),
                _ => value as u64,
            }),
            _ => Err(ParseError::new(
                format!("expected a whole number from {low} to {high}"),
                at,
            )),
        }
    }

    fn double(&mut self) -> Result<f64, ParseError> {
        let at = self.scanner.pos();
        let value = match self.scanner.peek() {
            b'"' => {
                let token = self.scanner.string("a number", &mut self.scratch)?;
                match token.bytes(&self.scratch) {
                    b"NaN" => Some(f64::NAN),
                    b"Infinity" => Some(f64::INFINITY),
                    b"-Infinity" => Some(f64::NEG_INFINITY),
                    text => Number::whole(text).and_then(|number| number.to_f64()),
                }
            }
            b'-' | b'0'..=b'9' => self.scanner.number()?.to_f64(),
            _ => return Err(self.scanner.unexpected("a number")),
        };
        value.ok_or_else(|| ParseError::new("expected a number within the range of a double", at))
    }

    fn boolean(&mut self) -> Result<bool, ParseError> {
        match self.scanner.peek() {
            b't' => self.scanner.literal("true").map(|()| true),
            b'f' => self.scanner.literal("false").map(|()| false),
            _ => Err(self.scanner.unexpected("true or false")),
        }
    }
}

/// Write what hexadecimal text of either case means, length first; None when it is not hexadecimal.
fn put_hex(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    wire::put_varint(out, text.len() as u64 / 2);
    let mut pairs = text.chunks_exact(2);
    for pair in &mut pairs {
        let (high, low) = (HEX[usize::from(pair[0])], HEX[usize::from(pair[1])]);
        if high | low == NOT_A_DIGIT {
            return None;
        }
        out.push(high << 4 | low);
    }
    pairs.remainder().is_empty().then_some(())
}

/// Write what base64 text means, length first: standard or URL-safe alphabet, padded or not.
fn put_base64(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let text = match text {
        [rest @ .., b'=', b'='] | [rest @ .., b'='] if text.len().is_multiple_of(4) => rest,
        _ => text,
    };
    if text.len() % 4 == 1 {
        return None;
    }
    wire::put_varint(out, (text.len() * 3 / 4) as u64);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for &byte in group {
            let digit = BASE64[usize::from(byte)];
            if digit == NOT_A_DIGIT {
                return None;
            }
            bits = bits << 6 | u32::from(digit);
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(())
}

const NOT_A_DIGIT: u8 = u8::MAX;
const HEX: [u8; 256] = digits([b"0123456789abcdef", b"0123456789ABCDEF"]);
const BASE64: [u8; 256] = digits([
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
]);

/// Value of each byte as a digit of either alphabet.
const fn digits(alphabets: [&[u8]; 2]) -> [u8; 256] {
    let mut table = [NOT_A_DIGIT; 256];
    let mut i = 0;
    while i < alphabets[0].len() {
        table[alphabets[0][i] as usize] = i as u8;
        table[alphabets[1][i] as usize] = i as u8;
        i += 1;
    }
    table
}
