//! Log records.

use std::sync::Arc;

use arrow_array::types::{Int32Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, RecordBatch};

use super::columns::{numbers, Built, Ids, Irregulars, Rare};
use super::cursor::{set_message, set_near, set_text, Cursor, Irregular};
use super::envelope::{Records, Stop};
use super::pool::Texts;
use super::values::{AnyValues, Attributes};
use crate::schema;

/// Bytes of payload per log record, for a first guess of how many rows there will be.
const BYTES_PER_LOG: usize = 300;
/// Bytes of columns per log record beyond the contents of its strings and lists.
const ROW_BYTES: usize = 125;

pub struct LogRecords {
    time: Vec<u64>,
    observed_time: Vec<u64>,
    severity_number: Vec<i32>,
    severity_text: Texts,
    body: AnyValues,
    attributes: Attributes,
    dropped_attributes: Rare<u32>,
    flags: Vec<u32>,
    trace_id: Ids<16>,
    span_id: Ids<8>,
    irregular_ids: Irregulars,
    event_name: Texts,
}

impl Records for LogRecords {
    fn with_capacity(bytes: usize) -> Self {
        let rows = bytes / BYTES_PER_LOG;
        Self {
            time: Vec::with_capacity(rows),
            observed_time: Vec::with_capacity(rows),
            severity_number: Vec::with_capacity(rows),
            severity_text: Texts::with_capacity(rows, rows * 5),
            body: AnyValues::with_capacity(rows),
            attributes: Attributes::with_capacity(rows, bytes),
            dropped_attributes: Rare::default(),
            flags: Vec::with_capacity(rows),
            trace_id: Ids::with_capacity(rows),
            span_id: Ids::with_capacity(rows),
            irregular_ids: Irregulars::default(),
            event_name: Texts::with_capacity(0, 0),
        }
    }

    #[inline]
    fn push(&mut self, mut cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Result<(), Stop> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
        let mut severity_text = Cursor::new(&[]);
        let mut event_name: &[u8] = &[];
        let (mut time, mut observed_time, mut severity_number) = (0, 0, 0);
        let (mut dropped_attributes, mut flags) = (0, 0);
        let mut content = None;
        // The fields that nearly every record has, in the order in which encoders write them. The loop reads all others,
        // and these where they come otherwise.
        if cursor.take(0x09) {
            time = cursor.fixed64()?;
        }
        if let Some([0x10, found @ ..=0x7f]) = cursor.ahead() {
            severity_number = i32::from(*found);
            cursor.pos += 2;
        }
        if cursor.take(0x1a) {
            severity_text = cursor.message()?;
        }
        if cursor.take(0x2a) {
            content = Some(cursor.bytes()?);
        }
        if cursor.take(0x32) {
            self.attributes.push(0x32, &mut cursor, inside, unknown)?;
        }
        if cursor.take(0x45) {
            flags = cursor.fixed32()?;
        }
        if let Some([0x4a, 16, ids @ ..]) = cursor.ahead::<28>() {
            if let [trace @ .., 0x52, 8, _, _, _, _, _, _, _, _] = ids {
                (trace_id, span_id) = (trace, &ids[18..]);
                cursor.pos += 28;
            }
        }
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x09 => time = cursor.fixed64()?,
                0x10 => severity_number = cursor.varint32()? as i32,
                0x1a => set_near(&mut severity_text, cursor.message()?)?,
                0x2a => set_message(&mut content, cursor.bytes()?)?,
                0x32 => self.attributes.push(0x32, &mut cursor, inside, unknown)?,
                0x38 => dropped_attributes = cursor.varint32()?,
                0x45 => flags = cursor.fixed32()?,
                0x4a => trace_id = cursor.bytes()?,
                0x52 => span_id = cursor.bytes()?,
                0x59 => observed_time = cursor.fixed64()?,
                0x62 => set_text(&mut event_name, cursor.bytes()?)?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        let row = self.time.len();
        // No short cut: both have to be pushed.
        if self.trace_id.push(trace_id) | self.span_id.push(span_id) {
            self.irregular_ids
                .push(row, &[(0x4a, trace_id, 16), (0x52, span_id, 8)]);
        }
        self.time.push(time);
        self.observed_time.push(observed_time);
        self.severity_number.push(severity_number);
        self.severity_text.push_near(severity_text);
        self.attributes.close();
        self.dropped_attributes.set(row, dropped_attributes);
        self.flags.push(flags);
        self.event_name.set_rare(row, event_name);
        Ok(self.body.push(content, inside, unknown)?)
    }

    fn rows(&self) -> usize {
        self.time.len()
    }

    fn expansion(&self) -> usize {
        self.time.len() * ROW_BYTES + self.attributes.expansion()
    }

    fn truncate(&mut self, rows: usize) {
        self.time.truncate(rows);
        self.observed_time.truncate(rows);
        self.severity_number.truncate(rows);
        self.severity_text.truncate(rows);
        self.body.truncate(rows);
        self.attributes.truncate(rows);
        self.dropped_attributes.truncate(rows);
        self.flags.truncate(rows);
        self.trace_id.truncate(rows);
        self.span_id.truncate(rows);
        self.irregular_ids.truncate(rows);
        self.event_name.truncate(rows);
    }

    fn check(&mut self) -> bool {
        self.severity_text.check()
            && self.body.check()
            && self.attributes.check()
            && self.event_name.check()
    }

    fn finish(self, [resource, scope]: [ArrayRef; 2]) -> Built<RecordBatch> {
        let rows = self.time.len();
        let columns = vec![
            resource,
            scope,
            numbers::<UInt64Type>(self.time),
            numbers::<UInt64Type>(self.observed_time),
            numbers::<Int32Type>(self.severity_number),
            self.severity_text.strings(None)?,
            self.body.finish()?,
            self.attributes.finish()?,
            self.dropped_attributes.finish::<UInt32Type>(rows)?,
            numbers::<UInt32Type>(self.flags),
            self.trace_id.finish()?,
            self.span_id.finish()?,
            self.irregular_ids.finish(rows)?,
            self.event_name.strings_of(rows, None)?,
        ];
        RecordBatch::try_new(Arc::clone(&schema::LOG_RECORDS), columns)
    }
}
