//! One batch -> OTLP/JSON texts, none longer than a limit.
//!
//! How long a text becomes is known when it is written, so parts are tried: a text of about the right number of records
//! is written, and written again when it came out too long or much too short.

use std::ops::Range;

use super::backward::Backward;
use super::groups::Groups;
use super::input::{Failure, Result};
use super::places::Places;
use super::request::{write, Source};
use crate::descriptor::Signal;
use crate::json::protobuf_to_json;

/// A part at least this full is good enough.
const FULL: f64 = 0.75;
/// Records planned for a part fill this share of it if they are as long as the last ones were.
const AIM: f64 = 0.95;
/// Times a part that came out short is written again.
const MOST_GROWTHS: u32 = 2;

/// The text of a request in protobuf bytes.
pub fn text(signal: Signal, payload: &[u8]) -> Result<Vec<u8>> {
    protobuf_to_json(signal, payload)
        .map_err(|error| Failure::new(format!("a column holds what is not OTLP: {error}")))
}

/// Encode into texts of at most `limit` bytes, in the order of the records; at least one.
pub fn split(
    signal: Signal,
    order: &Groups,
    records: usize,
    places: &Places<'_>,
    source: &impl Source,
    limit: usize,
) -> Result<Vec<Vec<u8>>> {
    let mut buffer = Vec::new();
    let mut write = |part: Range<usize>| -> Result<Vec<u8>> {
        let mut out = Backward::new(std::mem::take(&mut buffer), 4096);
        write(&order.part(part), order, places, source, &mut out);
        let written = out.check().and_then(|()| text(signal, out.written()));
        buffer = out.into_buffer();
        written
    };
    if records == 0 {
        return Ok(vec![write(0..0)?]);
    }
    let mut parts = Vec::new();
    // A text is two to three times as long as its bytes.
    let mut record_bytes = 2.5 * source.size() as f64 / records as f64;
    let mut begin = 0;
    while begin < records {
        let left = records - begin;
        let planned = |of_record: f64| ((AIM * limit as f64 / of_record) as usize).clamp(1, left);
        let mut count = planned(record_bytes);
        let mut fitting: Option<(usize, Vec<u8>)> = None;
        let mut growths = 0;
        loop {
            let text = write(begin..begin + count)?;
            let size = text.len();
            record_bytes = size as f64 / count as f64;
            if size <= limit {
                let full = count == left || size as f64 >= FULL * limit as f64;
                fitting = Some((count, text));
                let more = planned(record_bytes);
                if full || growths == MOST_GROWTHS || more <= count {
                    break;
                }
                growths += 1;
                count = more;
            } else if fitting.is_some() {
                break;
            } else if count == 1 {
                let name = source.name(order.row(begin));
                return Err(Failure::new(format!(
                    "{name} needs {size} bytes alone, the limit is {limit}"
                )));
            } else {
                count = planned(record_bytes).min(count - 1);
            }
        }
        if let Some((count, text)) = fitting {
            begin += count;
            parts.push(text);
        }
    }
    Ok(parts)
}
