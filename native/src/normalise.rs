//! Any protobuf bytes of an OTLP message -> its canonical bytes, with the official library's semantics.
//!
//! The slow path for irregular wire forms (fields repeated, split, out of order, of a foreign wire type): table-driven,
//! message by message. Canonical bytes are what the official library writes deterministically after discarding unknown
//! fields: ascending field numbers, packed numbers, minimal varints, no implicit defaults.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::descriptor::{Field, Kind, Label, Message, Signal};
use crate::error::ParseError;
use crate::wire::{self, Reader, DELIMITED, END_GROUP, FIXED32, FIXED64, MAX_DEPTH, VARINT};

/// Canonical bytes of a request, or why the official library refuses it.
pub fn normalise(signal: Signal, payload: &[u8]) -> Result<Vec<u8>, ParseError> {
    normalise_message(signal.request(), Reader::new(payload), MAX_DEPTH).map(|(bytes, _)| bytes)
}

/// The same for any message, with the number of unknown fields dropped.
///
/// `depth` is how many levels may still be entered below this message: `MAX_DEPTH` for an outermost one.
pub fn normalise_message(
    message: &'static Message,
    mut reader: Reader<'_>,
    depth: u32,
) -> Result<(Vec<u8>, u64), ParseError> {
    let mut out = Vec::with_capacity(reader.rest().len());
    let mut node = Node::default();
    let mut unknown = 0;
    node.merge(message, &mut reader, depth, &mut unknown)?;
    node.write(message, &mut out);
    Ok((out, unknown))
}

/// A message read so far: its set fields by their row in the descriptor, in order of appearance.
///
/// Sparse, so that a payload of empty messages does not take many times its size.
#[derive(Default)]
struct Node<'a> {
    fields: Vec<(usize, Value<'a>)>,
}

enum Value<'a> {
    /// Any number in the bits in which its wire form holds it, cut to the width of its type.
    Number(u64),
    Text(&'a [u8]),
    Message(Node<'a>),
    Numbers(Vec<u64>),
    Texts(Vec<&'a [u8]>),
    Messages(Vec<Node<'a>>),
}

impl<'a> Node<'a> {
    /// Read fields until the end, on top of what is already there.
    fn merge(
        &mut self,
        message: &'static Message,
        reader: &mut Reader<'a>,
        depth: u32,
        unknown: &mut u64,
    ) -> Result<(), ParseError> {
        while !reader.is_done() {
            let start = reader.pos();
            let (number, wire_type) = reader.tag()?;
            if wire_type == END_GROUP {
                return Err(ParseError::new("end of a group that was not begun", start));
            }
            match message.by_number(number) {
                Some(row) if accepts(&message.fields[row], wire_type) => {
                    self.read(message, row, wire_type, reader, depth, unknown)
                        .map_err(|error| {
                            let field = &message.fields[row];
                            error.inside(
                                field.name,
                                (field.label == Label::Repeated).then(|| self.count(row)),
                            )
                        })?;
                }
                _ => {
                    *unknown += 1;
                    reader.skip(number, wire_type, depth)?;
                }
            }
        }
        Ok(())
    }

    /// Read one value of a known field.
    fn read(
        &mut self,
        message: &'static Message,
        row: usize,
        wire_type: u8,
        reader: &mut Reader<'a>,
        depth: u32,
        unknown: &mut u64,
    ) -> Result<(), ParseError> {
        let Field { kind, label, .. } = message.fields[row];
        let repeated = label == Label::Repeated;
        match kind {
            Kind::Message(inner) => {
                let mut content = reader.delimited()?;
                let Some(depth) = depth.checked_sub(1) else {
                    return Err(wire::too_deep(content.pos()));
                };
                if repeated {
                    // Pushed after reading, so that an error inside names this element and not the next.
                    let mut element = Node::default();
                    element.merge(inner, &mut content, depth, unknown)?;
                    if let Value::Messages(list) =
                        self.slot(message, row, || Value::Messages(Vec::new()))
                    {
                        list.push(element);
                    }
                } else if let Value::Message(node) =
                    self.slot(message, row, || Value::Message(Node::default()))
                {
                    node.merge(inner, &mut content, depth, unknown)?;
                }
            }
            Kind::String | Kind::Bytes | Kind::Id => {
                let content = reader.delimited()?;
                let text = content.rest();
                if let (Kind::String, Err(error)) = (kind, std::str::from_utf8(text)) {
                    return Err(ParseError::new(
                        "invalid UTF-8",
                        content.pos() + error.valid_up_to(),
                    ));
                }
                if !repeated {
                    *self.slot(message, row, || Value::Text(text)) = Value::Text(text);
                } else if let Value::Texts(list) =
                    self.slot(message, row, || Value::Texts(Vec::new()))
                {
                    list.push(text);
                }
            }
            _ if !repeated => {
                let number = read_number(kind, reader)?;
                *self.slot(message, row, || Value::Number(number)) = Value::Number(number);
            }
            _ => {
                let mut content = if wire_type == DELIMITED {
                    reader.delimited()?
                } else {
                    *reader
                };
                if let Value::Numbers(list) = self.slot(message, row, || Value::Numbers(Vec::new()))
                {
                    if wire_type == DELIMITED {
                        while !content.is_done() {
                            list.push(read_number(kind, &mut content)?);
                        }
                    } else {
                        list.push(read_number(kind, reader)?);
                    }
                }
            }
        }
        Ok(())
    }

    /// The value of a field, made when absent. Setting a member of the oneof unsets the others.
    fn slot(
        &mut self,
        message: &Message,
        row: usize,
        make: impl FnOnce() -> Value<'a>,
    ) -> &mut Value<'a> {
        if message.fields[row].label == Label::Oneof {
            self.fields
                .retain(|(at, _)| *at == row || message.fields[*at].label != Label::Oneof);
        }
        let place = self
            .fields
            .iter()
            .position(|(at, _)| *at == row)
            .unwrap_or_else(|| {
                self.fields.push((row, make()));
                self.fields.len() - 1
            });
        &mut self.fields[place].1
    }

    /// How many elements a repeated field has.
    fn count(&self, row: usize) -> usize {
        match self.fields.iter().find(|(at, _)| *at == row) {
            Some((_, Value::Numbers(list))) => list.len(),
            Some((_, Value::Texts(list))) => list.len(),
            Some((_, Value::Messages(list))) => list.len(),
            _ => 0,
        }
    }

    fn write(&mut self, message: &'static Message, out: &mut Vec<u8>) {
        self.fields.sort_unstable_by_key(|(row, _)| *row);
        for (row, value) in &mut self.fields {
            let field = &message.fields[*row];
            match value {
                Value::Number(0) | Value::Text([]) if field.label == Label::Implicit => {}
                Value::Number(number) => {
                    wire::put_tag(out, field.number, wire_type_of(field.kind));
                    put_number(out, field.kind, *number);
                }
                Value::Text(text) => wire::put_delimited(out, field.number, text),
                Value::Texts(list) => list
                    .iter()
                    .for_each(|text| wire::put_delimited(out, field.number, text)),
                Value::Numbers(list) if list.is_empty() => {}
                Value::Numbers(list) => {
                    let start = begin(out, field.number);
                    list.iter()
                        .for_each(|number| put_number(out, field.kind, *number));
                    wire::end_length(out, start, 1);
                }
                Value::Message(node) => node.write_inside(field, out),
                Value::Messages(list) => list
                    .iter_mut()
                    .for_each(|node| node.write_inside(field, out)),
            }
        }
    }

    fn write_inside(&mut self, field: &Field, out: &mut Vec<u8>) {
        let start = begin(out, field.number);
        if let Kind::Message(message) = field.kind {
            self.write(message, out);
        }
        wire::end_length(out, start, 1);
    }
}

fn begin(out: &mut Vec<u8>, number: u32) -> usize {
    wire::put_tag(out, number, DELIMITED);
    wire::begin_length(out, 1)
}

/// Whether a value of this wire type is one of the field's; the official library takes any other for an unknown field.
pub fn accepts(field: &Field, wire_type: u8) -> bool {
    let own = wire_type_of(field.kind);
    wire_type == own || (wire_type == DELIMITED && field.label == Label::Repeated)
}

/// Wire type of one value.
pub fn wire_type_of(kind: Kind) -> u8 {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => FIXED64,
        Kind::Fixed32 => FIXED32,
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Bool
        | Kind::Enum => VARINT,
        Kind::String | Kind::Bytes | Kind::Id | Kind::Message(_) => DELIMITED,
    }
}

/// A number as its canonical varint or fixed bits, which cuts what is wider than its type.
pub fn read_number(kind: Kind, reader: &mut Reader<'_>) -> Result<u64, ParseError> {
    Ok(match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => reader.fixed64()?,
        Kind::Fixed32 => u64::from(reader.fixed32()?),
        Kind::Int32 | Kind::Enum => reader.varint()? as i32 as i64 as u64,
        Kind::Uint32 | Kind::Sint32 => u64::from(reader.varint()? as u32),
        Kind::Bool => u64::from(reader.varint()? != 0),
        _ => reader.varint()?,
    })
}

/// Write what `read_number` returned.
pub fn put_number(out: &mut Vec<u8>, kind: Kind, number: u64) {
    match wire_type_of(kind) {
        FIXED64 => out.extend_from_slice(&number.to_le_bytes()),
        FIXED32 => out.extend_from_slice(&(number as u32).to_le_bytes()),
        _ => wire::put_varint(out, number),
    }
}

/// Canonical bytes of a request and the number of unknown fields dropped.
#[pyfunction]
#[pyo3(name = "normalise")]
fn py_normalise<'py>(
    py: Python<'py>,
    signal: &str,
    payload: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, u64)> {
    let message = Signal::parse(signal)?.request();
    let (bytes, unknown) =
        py.detach(|| normalise_message(message, Reader::new(payload), MAX_DEPTH))?;
    Ok((PyBytes::new(py, &bytes), unknown))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(py_normalise, m)?)
}
