//! Arrays and maps inside attribute values and bodies: protobuf bytes (`opentelemetry.proto.common.v1`).
//!
//! Two walks. The first collects where texts lie, so that those of all rows are searched in one pass; it also notices
//! what needs no search. The second rewrites one message that something was found in.

use super::columns::Pass;
use super::rules::Outcome;

const STRING: u64 = 1;
const BOOL: u64 = 2;
const INT: u64 = 3;
const DOUBLE: u64 = 4;
const ARRAY: u64 = 5;
const KVLIST: u64 = 6;
const BYTES: u64 = 7;
const STRINDEX: u64 = 8;

/// Deeper than the decoder admits messages to be.
const MAX_DEPTH: usize = 200;

/// The message cannot be judged.
#[derive(Debug)]
pub struct Undecodable;

type Judged<T> = Result<T, Undecodable>;

/// Which message the bytes of a value are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Array,
    KeyValueList,
    KeyValue,
}

enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    /// The content, and where it starts in the message.
    Bytes(&'a [u8], usize),
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    fn varint(&mut self) -> Judged<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.message.get(self.at).ok_or(Undecodable)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Undecodable);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Undecodable)
    }

    fn next(&mut self) -> Judged<Option<(u64, Field<'a>)>> {
        if self.at == self.message.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                let chunk = self
                    .message
                    .get(self.at..)
                    .and_then(|rest| rest.first_chunk());
                self.at += 8;
                Field::Fixed64(u64::from_le_bytes(*chunk.ok_or(Undecodable)?))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Undecodable)?;
                let start = self.at;
                let end = start.checked_add(length).ok_or(Undecodable)?;
                self.at = end;
                Field::Bytes(self.message.get(start..end).ok_or(Undecodable)?, start)
            }
            _ => return Err(Undecodable),
        };
        Ok(Some((tag >> 3, field)))
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(number: u64, content: &[u8], out: &mut Vec<u8>) {
    put_varint(number << 3 | 2, out);
    put_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// Where the texts of a message lie: ranges of the buffer the message lies in at `base`.
pub struct Texts<'a> {
    pub ranges: &'a mut Vec<(usize, usize)>,
    /// Something needs no search to be found: a number, or an attribute key.
    pub hit: bool,
}

impl Pass<'_> {
    pub fn collect(
        &mut self,
        kind: Kind,
        message: &[u8],
        base: usize,
        path: &mut Vec<u8>,
        texts: &mut Texts<'_>,
    ) -> Judged<()> {
        match kind {
            Kind::KeyValue => self.collect_key_value(message, base, path, 0, texts),
            _ => self.collect_list(kind, message, base, path, 0, texts),
        }
    }

    fn collect_list(
        &mut self,
        kind: Kind,
        message: &[u8],
        base: usize,
        path: &mut Vec<u8>,
        depth: usize,
        texts: &mut Texts<'_>,
    ) -> Judged<()> {
        if depth > MAX_DEPTH {
            return Err(Undecodable);
        }
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            let (1, Field::Bytes(item, at)) = (number, field) else {
                return Err(Undecodable);
            };
            if kind == Kind::Array {
                self.collect_value(item, base + at, path, depth + 1, texts)?;
            } else {
                self.collect_key_value(item, base + at, path, depth + 1, texts)?;
            }
        }
        Ok(())
    }

    fn collect_value(
        &mut self,
        message: &[u8],
        base: usize,
        path: &mut Vec<u8>,
        depth: usize,
        texts: &mut Texts<'_>,
    ) -> Judged<()> {
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match (number, field) {
                (STRING | BYTES, Field::Bytes(text, at)) => {
                    texts.ranges.push((base + at, base + at + text.len()));
                }
                (INT, Field::Varint(value)) => {
                    texts.hit |= self.int(value as i64).is_some();
                }
                (DOUBLE, Field::Fixed64(bits)) => {
                    texts.hit |= self.double(f64::from_bits(bits)).is_some();
                }
                (ARRAY, Field::Bytes(inner, at)) => {
                    self.collect_list(Kind::Array, inner, base + at, path, depth + 1, texts)?;
                }
                (KVLIST, Field::Bytes(inner, at)) => {
                    self.collect_list(
                        Kind::KeyValueList,
                        inner,
                        base + at,
                        path,
                        depth + 1,
                        texts,
                    )?;
                }
                (BOOL | STRINDEX, Field::Varint(_)) => {}
                _ => return Err(Undecodable),
            }
        }
        Ok(())
    }

    fn collect_key_value(
        &mut self,
        message: &[u8],
        base: usize,
        path: &mut Vec<u8>,
        depth: usize,
        texts: &mut Texts<'_>,
    ) -> Judged<()> {
        let parent = path.len();
        let key = key_of(message)?;
        let verdict = self.nested_verdict(key, path);
        texts.hit |= verdict.sensitive || verdict.rule.is_some();
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match (number, field) {
                (1, Field::Bytes(..)) | (3, Field::Varint(_)) => {}
                (2, Field::Bytes(value, at)) => {
                    self.collect_value(value, base + at, path, depth + 1, texts)?;
                }
                _ => return Err(Undecodable),
            }
        }
        path.truncate(parent);
        Ok(())
    }

    /// The message with everything found in it replaced; Removed when its rule deletes the whole of a KeyValue.
    pub fn rewrite(
        &mut self,
        kind: Kind,
        message: &[u8],
        path: &mut Vec<u8>,
        place: u16,
    ) -> Judged<Outcome> {
        match kind {
            Kind::KeyValue => self.rewrite_key_value(message, path, place),
            _ => self
                .rewrite_list(kind, message, path, place)
                .map(Outcome::Replaced),
        }
    }

    fn rewrite_list(
        &mut self,
        kind: Kind,
        message: &[u8],
        path: &mut Vec<u8>,
        place: u16,
    ) -> Judged<Vec<u8>> {
        let mut out = Vec::with_capacity(message.len());
        let mut reader = Reader::new(message);
        while let Some((_, field)) = reader.next()? {
            let Field::Bytes(item, _) = field else {
                return Err(Undecodable);
            };
            if kind == Kind::Array {
                // A deleted element leaves an empty value: the others keep their positions.
                match self.rewrite_value(item, path, place)? {
                    Outcome::Replaced(clean) => put_bytes(1, &clean, &mut out),
                    Outcome::Removed => put_bytes(1, &[], &mut out),
                }
            } else if let Outcome::Replaced(clean) = self.rewrite_key_value(item, path, place)? {
                put_bytes(1, &clean, &mut out);
            }
        }
        Ok(out)
    }

    fn rewrite_value(&mut self, message: &[u8], path: &mut Vec<u8>, place: u16) -> Judged<Outcome> {
        let mut out = Vec::with_capacity(message.len());
        let mut reader = Reader::new(message);
        let mut copied = 0;
        while let Some((number, field)) = reader.next()? {
            let from = copied;
            copied = reader.at;
            match (number, field) {
                (STRING | BYTES, Field::Bytes(text, _)) => match self.text(text, place) {
                    Outcome::Replaced(clean) => put_bytes(number, &clean, &mut out),
                    Outcome::Removed => return Ok(Outcome::Removed),
                },
                (INT, Field::Varint(value)) if self.int(value as i64).is_some() => {
                    match self.counted_int(value as i64, place) {
                        Some(Outcome::Replaced(text)) => put_bytes(STRING, &text, &mut out),
                        _ => return Ok(Outcome::Removed),
                    }
                }
                (DOUBLE, Field::Fixed64(bits)) if self.double(f64::from_bits(bits)).is_some() => {
                    match self.counted_double(f64::from_bits(bits), place) {
                        Some(Outcome::Replaced(text)) => put_bytes(STRING, &text, &mut out),
                        _ => return Ok(Outcome::Removed),
                    }
                }
                (ARRAY, Field::Bytes(inner, _)) => {
                    let clean = self.rewrite_list(Kind::Array, inner, path, place)?;
                    put_bytes(ARRAY, &clean, &mut out);
                }
                (KVLIST, Field::Bytes(inner, _)) => {
                    let clean = self.rewrite_list(Kind::KeyValueList, inner, path, place)?;
                    put_bytes(KVLIST, &clean, &mut out);
                }
                _ => out.extend_from_slice(&message[from..copied]),
            }
        }
        Ok(Outcome::Replaced(out))
    }

    fn rewrite_key_value(
        &mut self,
        message: &[u8],
        path: &mut Vec<u8>,
        place: u16,
    ) -> Judged<Outcome> {
        let parent = path.len();
        let key = key_of(message)?;
        let verdict = self.nested_verdict(key, path);
        if let Some(rule) = verdict.rule.filter(|rule| self.engine.deletes(*rule)) {
            self.count(self.engine.rules.len() as u16 + rule, place);
            path.truncate(parent);
            return Ok(Outcome::Removed);
        }
        let mut out = Vec::with_capacity(message.len());
        let mut reader = Reader::new(message);
        let mut copied = 0;
        while let Some((number, field)) = reader.next()? {
            let from = copied;
            copied = reader.at;
            match (number, field) {
                (1, Field::Bytes(text, _)) if verdict.sensitive => match self.text(text, place) {
                    Outcome::Replaced(clean) => put_bytes(1, &clean, &mut out),
                    Outcome::Removed => {
                        path.truncate(parent);
                        return Ok(Outcome::Removed);
                    }
                },
                (2, Field::Bytes(value, _)) => {
                    let outcome = match verdict.rule {
                        Some(rule) => self.by_key_rule(rule, value, place)?,
                        None => self.rewrite_value(value, path, place)?,
                    };
                    let Outcome::Replaced(clean) = outcome else {
                        path.truncate(parent);
                        return Ok(Outcome::Removed);
                    };
                    put_bytes(2, &clean, &mut out);
                }
                _ => out.extend_from_slice(&message[from..copied]),
            }
        }
        path.truncate(parent);
        Ok(Outcome::Replaced(out))
    }

    fn by_key_rule(&mut self, rule: u16, value: &[u8], place: u16) -> Judged<Outcome> {
        let content = content_of(value)?;
        let outcome = self.engine.apply_key_rule(rule, || content);
        Ok(match outcome {
            None => Outcome::Replaced(value.to_vec()),
            Some(outcome) => {
                self.count(self.engine.rules.len() as u16 + rule, place);
                match outcome {
                    Outcome::Removed => Outcome::Removed,
                    // An AnyValue with nothing set has nothing to hide.
                    Outcome::Replaced(_) if value.is_empty() => Outcome::Replaced(Vec::new()),
                    Outcome::Replaced(text) => {
                        let mut message = Vec::with_capacity(text.len() + 4);
                        put_bytes(STRING, &text, &mut message);
                        Outcome::Replaced(message)
                    }
                }
            }
        })
    }
}

fn key_of(message: &[u8]) -> Judged<&[u8]> {
    let mut key: &[u8] = &[];
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        if let (1, Field::Bytes(text, _)) = (number, field) {
            key = text;
        }
    }
    Ok(key)
}

/// What a keyed hash of a value is taken of: the text, or the text of a number, else the bytes.
fn content_of(value: &[u8]) -> Judged<Vec<u8>> {
    let mut content = Vec::new();
    let mut reader = Reader::new(value);
    while let Some((number, field)) = reader.next()? {
        content = match (number, field) {
            (_, Field::Bytes(text, _)) => text.to_vec(),
            (BOOL, Field::Varint(flag)) => (flag != 0).to_string().into_bytes(),
            (_, Field::Varint(int)) => (int as i64).to_string().into_bytes(),
            (_, Field::Fixed64(bits)) => f64::from_bits(bits).to_string().into_bytes(),
        };
    }
    Ok(content)
}

/// The contents of the identifiers in `irregular_ids`, as (field number, start, end).
pub fn identifiers(message: &[u8]) -> Judged<Vec<(u64, usize, usize)>> {
    let mut found = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        let Field::Bytes(content, at) = field else {
            return Err(Undecodable);
        };
        found.push((number, at, at + content.len()));
    }
    Ok(found)
}

/// `irregular_ids` without those at the given indices.
pub fn without_identifiers(
    message: &[u8],
    all: &[(u64, usize, usize)],
    dropped: &[usize],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    for (index, (number, start, end)) in all.iter().enumerate() {
        if !dropped.contains(&index) {
            put_bytes(*number, &message[*start..*end], &mut out);
        }
    }
    out
}
