//! Protobuf bytes -> OTLP/JSON text.

use std::io::Write;

use super::text::special;
use crate::descriptor::{Field, Kind, Label, Message, Signal};
use crate::error::ParseError;
use crate::normalise::{accepts, normalise, read_number, wire_type_of};
use crate::wire::{self, Reader, DELIMITED, END_GROUP, MAX_DEPTH};

pub fn request(signal: Signal, payload: &[u8]) -> Result<Vec<u8>, ParseError> {
    let mut writer = Writer {
        out: Vec::with_capacity(payload.len() * 3),
        regular: true,
    };
    writer.message(signal.request(), &mut Reader::new(payload), MAX_DEPTH)?;
    if !writer.regular {
        let canonical = normalise(signal, payload)?;
        writer.out.clear();
        writer.message(signal.request(), &mut Reader::new(&canonical), MAX_DEPTH)?;
    }
    Ok(writer.out)
}

struct Writer {
    out: Vec<u8>,
    /// Fields came in ascending order, singular ones once: what was written so far is right. Otherwise it is void,
    /// and reading goes on only to find what must be refused.
    regular: bool,
}

impl Writer {
    fn message(
        &mut self,
        message: &'static Message,
        reader: &mut Reader<'_>,
        depth: u32,
    ) -> Result<(), ParseError> {
        self.out.push(b'{');
        let begin = self.out.len();
        let mut last = None;
        // Elements written of the repeated field `last`, whose array is still open when there are any.
        let mut elements = 0;
        let mut chosen = false;
        while !reader.is_done() {
            let start = reader.pos();
            let (number, wire_type) = reader.tag()?;
            if wire_type == END_GROUP {
                return Err(ParseError::new("end of a group that was not begun", start));
            }
            let row = match message.by_number(number) {
                Some(row) if accepts(&message.fields[row], wire_type) => row,
                _ => {
                    reader.skip(number, wire_type, depth)?;
                    continue;
                }
            };
            let field = &message.fields[row];
            let repeated = field.label == Label::Repeated;
            if field.label == Label::Oneof {
                self.regular &= !chosen;
                chosen = true;
            }
            if last == Some(row) {
                self.regular &= repeated;
            } else {
                self.regular &= last < Some(row);
                if elements > 0 {
                    self.out.push(b']');
                    elements = 0;
                }
                last = Some(row);
            }
            let result = if !repeated {
                self.single(field, begin, reader, depth)
            } else if wire_type == DELIMITED && wire_type_of(field.kind) != DELIMITED {
                self.packed(field, begin, reader, &mut elements)
            } else {
                self.element(field, begin, reader, depth, &mut elements)
            };
            result.map_err(|error| error.inside(field.name, repeated.then_some(elements)))?;
        }
        if elements > 0 {
            self.out.push(b']');
        }
        self.out.push(b'}');
        Ok(())
    }

    fn single(
        &mut self,
        field: &Field,
        begin: usize,
        reader: &mut Reader<'_>,
        depth: u32,
    ) -> Result<(), ParseError> {
        let before = self.out.len();
        self.name(field, begin);
        let is_default = self.value(field.kind, reader, depth)?;
        if is_default && field.label == Label::Implicit {
            self.out.truncate(before);
        }
        Ok(())
    }

    fn element(
        &mut self,
        field: &Field,
        begin: usize,
        reader: &mut Reader<'_>,
        depth: u32,
        elements: &mut usize,
    ) -> Result<(), ParseError> {
        if *elements == 0 {
            self.name(field, begin);
            self.out.push(b'[');
        } else {
            self.out.push(b',');
        }
        self.value(field.kind, reader, depth)?;
        *elements += 1;
        Ok(())
    }

    fn packed(
        &mut self,
        field: &Field,
        begin: usize,
        reader: &mut Reader<'_>,
        elements: &mut usize,
    ) -> Result<(), ParseError> {
        let mut content = reader.delimited()?;
        while !content.is_done() {
            self.element(field, begin, &mut content, 0, elements)?;
        }
        Ok(())
    }

    /// Write a member's name; `begin` is where its object's content begins.
    fn name(&mut self, field: &Field, begin: usize) {
        if self.out.len() > begin {
            self.out.push(b',');
        }
        self.out.extend_from_slice(field.json_key.as_bytes());
    }

    /// Read one value and write it; returns whether it is the default of its type.
    fn value(
        &mut self,
        kind: Kind,
        reader: &mut Reader<'_>,
        depth: u32,
    ) -> Result<bool, ParseError> {
        match kind {
            Kind::Message(message) => {
                let mut content = reader.delimited()?;
                let Some(depth) = depth.checked_sub(1) else {
                    return Err(wire::too_deep(content.pos()));
                };
                self.message(message, &mut content, depth)?;
                Ok(false)
            }
            Kind::String | Kind::Bytes | Kind::Id => {
                let content = reader.delimited()?;
                let text = content.rest();
                match kind {
                    Kind::Id => self.hex(text),
                    Kind::Bytes => self.base64(text),
                    _ => {
                        if let Err(error) = std::str::from_utf8(text) {
                            return Err(ParseError::new(
                                "invalid UTF-8",
                                content.pos() + error.valid_up_to(),
                            ));
                        }
                        self.string(text);
                    }
                }
                Ok(text.is_empty())
            }
            kind => {
                let bits = read_number(kind, reader)?;
                self.number(kind, bits);
                Ok(bits == 0)
            }
        }
    }

    /// 64-bit integers are strings: a JSON number is a double to most readers.
    fn number(&mut self, kind: Kind, bits: u64) {
        match kind {
            Kind::Double => self.double(f64::from_bits(bits)),
            Kind::Bool => self
                .out
                .extend_from_slice(if bits == 0 { b"false" } else { b"true" }),
            Kind::Int32 | Kind::Enum => self.integer(bits as i64 as i128),
            Kind::Sint32 => self.integer(i128::from((bits >> 1) as i64 ^ -((bits & 1) as i64))),
            Kind::Uint32 | Kind::Fixed32 => self.integer(i128::from(bits)),
            kind => {
                self.out.push(b'"');
                self.integer(match kind {
                    Kind::Int64 | Kind::Sfixed64 => i128::from(bits as i64),
                    _ => i128::from(bits),
                });
                self.out.push(b'"');
            }
        }
    }

    fn integer(&mut self, value: i128) {
        if value < 0 {
            self.out.push(b'-');
        }
        let mut rest = value.unsigned_abs() as u64;
        let mut digits = [0; 20];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[first..]);
    }

    /// The shortest text that reads back as the same double.
    fn double(&mut self, value: f64) {
        if value.is_nan() {
            self.out.extend_from_slice(b"\"NaN\"");
        } else if value.is_infinite() {
            let text: &[u8] = if value > 0.0 {
                b"\"Infinity\""
            } else {
                b"\"-Infinity\""
            };
            self.out.extend_from_slice(text);
        } else {
            // A Vec takes everything written to it.
            let _ = write!(self.out, "{value:?}");
        }
    }

    fn string(&mut self, text: &[u8]) {
        self.out.push(b'"');
        let mut from = 0;
        loop {
            let to = special(text, from);
            self.out.extend_from_slice(&text[from..to]);
            let Some(&byte) = text.get(to) else { break };
            match byte {
                b'"' | b'\\' => self.out.extend_from_slice(&[b'\\', byte]),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                _ => {
                    let [high, low] = hex_pair(byte);
                    self.out
                        .extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                }
            }
            from = to + 1;
        }
        self.out.push(b'"');
    }

    fn hex(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        for &byte in bytes {
            self.out.extend_from_slice(&hex_pair(byte));
        }
        self.out.push(b'"');
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        for group in bytes.chunks(3) {
            let bits = group
                .iter()
                .fold(0u32, |bits, &byte| bits << 8 | u32::from(byte))
                << (8 * (3 - group.len()));
            for place in 0..4 {
                let digit = BASE64[(bits >> (18 - 6 * place) & 0x3f) as usize];
                self.out
                    .push(if place > group.len() { b'=' } else { digit });
            }
        }
        self.out.push(b'"');
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn hex_pair(byte: u8) -> [u8; 2] {
    let digits = b"0123456789abcdef";
    [
        digits[usize::from(byte >> 4)],
        digits[usize::from(byte & 15)],
    ]
}
