//! Records of a request that are refused while the others are taken: those larger than a limit.
//!
//! A request smaller than the limit cannot hold one, so this runs only on large requests, and rewrites only those that
//! do hold one.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::descriptor::Signal;
use crate::error::ParseError;
use crate::json::json_to_protobuf;
use crate::normalise::normalise;
use crate::wire::{self, Reader, DELIMITED, MAX_DEPTH};

/// Which fields of a message lead to its records, and whether each record takes the rest of it along.
struct Level {
    fields: &'static [u32],
    /// A metric: its name, unit and the like belong to each of its points.
    shared: bool,
}

const fn level(fields: &'static [u32]) -> Level {
    Level {
        fields,
        shared: false,
    }
}

/// From the request through Resource* and Scope* to the records.
static FLAT: [Level; 3] = [level(&[1]), level(&[2]), level(&[2])];

/// The same to a metric, through its gauge, sum, ..., to the points.
static METRICS: [Level; 5] = [
    level(&[1]),
    level(&[2]),
    Level {
        fields: &[2],
        shared: true,
    },
    level(&[5, 7, 9, 10, 11]),
    level(&[1]),
];

fn levels(signal: Signal) -> &'static [Level] {
    match signal {
        Signal::Metrics => &METRICS,
        Signal::Traces | Signal::Logs => &FLAT,
    }
}

/// A request without its records larger than `most` bytes, in canonical protobuf, and how many these were; None when
/// there are none, or when the request is malformed in a way that decoding it will explain.
pub fn screen(
    signal: Signal,
    payload: &[u8],
    most: usize,
) -> Result<Option<(Vec<u8>, u64)>, ParseError> {
    let levels = levels(signal);
    if !any_too_large(Reader::new(payload), levels, most).unwrap_or(false) {
        return Ok(None);
    }
    // Checked as a whole before anything is left out: a malformed request is refused for that, at the right place.
    let normal = normalise(signal, payload)?;
    let mut out = Vec::with_capacity(normal.len());
    let mut refused = 0;
    copy(Reader::new(&normal), levels, most, &mut out, &mut refused)?;
    Ok((refused > 0).then_some((out, refused)))
}

/// The next field that leads to records, with its content; fields that do not are handed to `other`.
fn next<'a>(
    reader: &mut Reader<'a>,
    level: &Level,
    mut other: impl FnMut(&'a [u8]),
) -> Result<Option<(u32, Reader<'a>)>, ParseError> {
    while !reader.is_done() {
        let field = *reader;
        let (number, wire_type) = reader.tag()?;
        if wire_type == DELIMITED && level.fields.contains(&number) {
            return Ok(Some((number, reader.delimited()?)));
        }
        reader.skip(number, wire_type, MAX_DEPTH)?;
        other(&field.rest()[..reader.pos() - field.pos()]);
    }
    Ok(None)
}

fn any_too_large(
    mut reader: Reader<'_>,
    levels: &[Level],
    most: usize,
) -> Result<bool, ParseError> {
    let Some((level, below)) = levels.split_first() else {
        return Ok(false);
    };
    while let Some((_, inner)) = next(&mut reader, level, |_| ())? {
        if inner.rest().len() > most
            && (below.is_empty()
                || (level.shared && shared_len(inner, below)? > most)
                || any_too_large(inner, below, most)?)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Records below a message, and the bytes of these fields.
fn records(mut reader: Reader<'_>, levels: &[Level]) -> Result<(u64, usize), ParseError> {
    let Some((level, below)) = levels.split_first() else {
        return Ok((0, 0));
    };
    let (mut count, mut bytes) = (0, 0);
    while let Some((_, inner)) = next(&mut reader, level, |_| ())? {
        let (more, longer) = if below.is_empty() {
            let size = inner.rest().len();
            (1, 1 + wire::varint_len(size as u64) + size)
        } else {
            records(inner, below)?
        };
        count += more;
        bytes += longer;
    }
    Ok((count, bytes))
}

/// How many records a request in protobuf bytes has, found by its lengths alone; 0 when these do not add up.
pub fn count(signal: Signal, payload: &[u8]) -> u64 {
    records(Reader::new(payload), levels(signal)).map_or(0, |(count, _)| count)
}

/// Bytes of a message besides its records.
fn shared_len(message: Reader<'_>, below: &[Level]) -> Result<usize, ParseError> {
    Ok(message.rest().len() - records(message, below)?.1)
}

fn copy(
    mut reader: Reader<'_>,
    levels: &[Level],
    most: usize,
    out: &mut Vec<u8>,
    refused: &mut u64,
) -> Result<(), ParseError> {
    let Some((level, below)) = levels.split_first() else {
        return Ok(());
    };
    while let Some((number, inner)) = next(&mut reader, level, |rest| out.extend_from_slice(rest))?
    {
        let content = inner.rest();
        if content.len() <= most {
            wire::put_delimited(out, number, content);
        } else if below.is_empty() {
            *refused += 1;
        } else if level.shared && shared_len(inner, below)? > most {
            *refused += records(inner, below)?.0;
        } else {
            wire::put_tag(out, number, DELIMITED);
            let room = wire::varint_len(content.len() as u64);
            let start = wire::begin_length(out, room);
            copy(inner, below, most, out, refused)?;
            wire::end_length(out, start, room);
        }
    }
    Ok(())
}

/// `screen` for protobuf bytes or a JSON text; what it returns is protobuf in any case.
#[pyfunction]
#[pyo3(name = "screen")]
fn py_screen<'py>(
    py: Python<'py>,
    signal: &str,
    payload: &[u8],
    json: bool,
    most: usize,
) -> PyResult<Option<(Bound<'py, PyBytes>, u64)>> {
    let signal = Signal::parse(signal)?;
    let screened = py.detach(|| {
        if !json {
            return screen(signal, payload, most);
        }
        let (converted, _) = json_to_protobuf(signal, payload, MAX_DEPTH)?;
        screen(signal, &converted, most)
    })?;
    Ok(screened.map(|(kept, refused)| (PyBytes::new(py, &kept), refused)))
}

#[pyfunction]
fn count_records(py: Python<'_>, signal: &str, payload: &[u8]) -> PyResult<u64> {
    let signal = Signal::parse(signal)?;
    Ok(py.detach(|| count(signal, payload)))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(count_records, m)?)?;
    m.add_function(wrap_pyfunction!(py_screen, m)?)
}
