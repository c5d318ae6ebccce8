//! AnyValue as text, for uses that have only text: keys, labels, comparisons.
//!
//! OpenTelemetry specification, "AnyValue representation for non-OTLP protocols": text as it is, numbers and booleans
//! as JSON, bytes as base64, arrays and maps as JSON, with `null` for an empty value inside them.

use crate::error::ParseError;
use crate::wire::{too_deep, Reader, DELIMITED, FIXED64, MAX_DEPTH, VARINT};

/// Append the JSON of an encoded `ArrayValue`.
pub fn write_array(encoded: &[u8], out: &mut Vec<u8>) -> Result<(), ParseError> {
    array(Reader::new(encoded), MAX_DEPTH, out)
}

/// Append the JSON of an encoded `KeyValueList`.
pub fn write_kvlist(encoded: &[u8], out: &mut Vec<u8>) -> Result<(), ParseError> {
    kvlist(Reader::new(encoded), MAX_DEPTH, out)
}

/// Append a double as it stands by itself: a JSON number, or what JSON has no number for by name.
pub fn write_double(value: f64, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 {
            b"Infinity"
        } else {
            b"-Infinity"
        });
    } else {
        out.extend_from_slice(format!("{value:?}").as_bytes());
    }
}

pub fn write_bool(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Append standard base64 with padding.
pub fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            out.push(if place <= chunk.len() {
                ALPHABET[(word >> (18 - 6 * place) & 63) as usize]
            } else {
                b'='
            });
        }
    }
}

fn array(mut reader: Reader<'_>, depth: u32, out: &mut Vec<u8>) -> Result<(), ParseError> {
    let depth = depth.checked_sub(1).ok_or_else(|| too_deep(reader.pos()))?;
    out.push(b'[');
    let first = out.len();
    while !reader.is_done() {
        match reader.tag()? {
            (1, DELIMITED) => {
                if out.len() > first {
                    out.push(b',');
                }
                value(reader.delimited()?, depth, out)?;
            }
            (number, wire_type) => reader.skip(number, wire_type, depth)?,
        }
    }
    out.push(b']');
    Ok(())
}

fn kvlist(mut reader: Reader<'_>, depth: u32, out: &mut Vec<u8>) -> Result<(), ParseError> {
    let depth = depth.checked_sub(1).ok_or_else(|| too_deep(reader.pos()))?;
    out.push(b'{');
    let first = out.len();
    while !reader.is_done() {
        match reader.tag()? {
            (1, DELIMITED) => {
                if out.len() > first {
                    out.push(b',');
                }
                key_value(reader.delimited()?, depth, out)?;
            }
            (number, wire_type) => reader.skip(number, wire_type, depth)?,
        }
    }
    out.push(b'}');
    Ok(())
}

fn key_value(mut reader: Reader<'_>, depth: u32, out: &mut Vec<u8>) -> Result<(), ParseError> {
    let (mut key, mut content): (&[u8], _) = (b"", None);
    while !reader.is_done() {
        match reader.tag()? {
            (1, DELIMITED) => key = reader.delimited()?.rest(),
            (2, DELIMITED) => content = Some(reader.delimited()?),
            (number, wire_type) => reader.skip(number, wire_type, depth)?,
        }
    }
    quote(key, out);
    out.push(b':');
    match content {
        Some(content) => value(content, depth, out),
        None => {
            out.extend_from_slice(b"null");
            Ok(())
        }
    }
}

/// `AnyValue`, a oneof: what was set last counts.
fn value(mut reader: Reader<'_>, depth: u32, out: &mut Vec<u8>) -> Result<(), ParseError> {
    let start = out.len();
    out.extend_from_slice(b"null");
    while !reader.is_done() {
        let (number, wire_type) = reader.tag()?;
        if !(1..=7).contains(&number) {
            reader.skip(number, wire_type, depth)?;
            continue;
        }
        out.truncate(start);
        match (number, wire_type) {
            (1, DELIMITED) => quote(reader.delimited()?.rest(), out),
            (2, VARINT) => write_bool(reader.varint()? != 0, out),
            (3, VARINT) => out.extend_from_slice((reader.varint()? as i64).to_string().as_bytes()),
            (4, FIXED64) => {
                let number = f64::from_bits(reader.fixed64()?);
                let quotes: &[u8] = if number.is_finite() { b"" } else { b"\"" };
                out.extend_from_slice(quotes);
                write_double(number, out);
                out.extend_from_slice(quotes);
            }
            (5, DELIMITED) => array(reader.delimited()?, depth, out)?,
            (6, DELIMITED) => kvlist(reader.delimited()?, depth, out)?,
            (7, DELIMITED) => {
                out.push(b'"');
                write_base64(reader.delimited()?.rest(), out);
                out.push(b'"');
            }
            _ => {
                reader.skip(number, wire_type, depth)?;
                out.extend_from_slice(b"null");
            }
        }
    }
    Ok(())
}

/// A JSON string of UTF-8 `text`.
fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
