//! Spans.

use std::sync::Arc;

use arrow_array::types::{Int32Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, RecordBatch};

use super::columns::{list, numbers, structs, Built, Ends, Ids, Irregulars, Optional, Rare};
use super::cursor::{set_message, set_near, set_text, Cursor, Fast, Irregular};
use super::envelope::{Records, Stop};
use super::pool::Texts;
use super::values::Attributes;
use crate::schema;

/// Bytes of payload per span, for a first guess of how many rows there will be.
const BYTES_PER_SPAN: usize = 400;
/// Bytes of columns per span beyond the contents of its strings and lists.
const ROW_BYTES: usize = 140;

pub struct Spans {
    trace_id: Ids<16>,
    span_id: Ids<8>,
    parent_span_id: Ids<8>,
    irregular_ids: Irregulars,
    trace_state: Texts,
    flags: Vec<u32>,
    name: Texts,
    kind: Vec<i32>,
    start: Vec<u64>,
    end: Vec<u64>,
    attributes: Attributes,
    dropped_attributes: Rare<u32>,
    events: Events,
    dropped_events: Rare<u32>,
    links: Links,
    dropped_links: Rare<u32>,
    status_code: Optional<i32>,
    status_message: Texts,
    no_status: Rare<u8>,
}

impl Records for Spans {
    fn with_capacity(bytes: usize) -> Self {
        let rows = bytes / BYTES_PER_SPAN;
        Self {
            trace_id: Ids::with_capacity(rows),
            span_id: Ids::with_capacity(rows),
            parent_span_id: Ids::with_capacity(rows),
            irregular_ids: Irregulars::default(),
            trace_state: Texts::with_capacity(0, 0),
            flags: Vec::with_capacity(rows),
            name: Texts::with_capacity(rows, rows * 20),
            kind: Vec::with_capacity(rows),
            start: Vec::with_capacity(rows),
            end: Vec::with_capacity(rows),
            attributes: Attributes::with_capacity(rows, bytes),
            dropped_attributes: Rare::default(),
            events: Events::with_capacity(rows),
            dropped_events: Rare::default(),
            links: Links::with_capacity(rows),
            dropped_links: Rare::default(),
            status_code: Optional::with_capacity(rows),
            status_message: Texts::with_capacity(0, 0),
            no_status: Rare::default(),
        }
    }

    #[inline]
    fn push(&mut self, mut cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Result<(), Stop> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let (mut trace_id, mut span_id, mut parent_span_id): (&[u8], &[u8], &[u8]) =
            (&[], &[], &[]);
        let mut trace_state: &[u8] = &[];
        let mut name = Cursor::new(&[]);
        let (mut flags, mut kind, mut start, mut end) = (0, 0, 0, 0);
        let (mut dropped_attributes, mut dropped_events, mut dropped_links) = (0, 0, 0);
        let mut status = None;
        // The fields that nearly every span has, in the order in which encoders write them. The loop reads all others, and
        // these where they come otherwise.
        if let Some([0x0a, 16, ids @ ..]) = cursor.ahead::<28>() {
            if let [trace @ .., 0x12, 8, _, _, _, _, _, _, _, _] = ids {
                (trace_id, span_id) = (trace, &ids[18..]);
                cursor.pos += 28;
            }
        }
        if let Some([0x22, 8, id @ ..]) = cursor.ahead::<10>() {
            parent_span_id = id;
            cursor.pos += 10;
        }
        if cursor.take(0x2a) {
            name = cursor.message()?;
        }
        if let Some([0x30, found @ ..=0x7f]) = cursor.ahead() {
            kind = i32::from(*found);
            cursor.pos += 2;
        }
        if let Some([0x39, from @ .., 0x41, _, _, _, _, _, _, _, _]) = cursor.ahead::<18>() {
            start = u64::from_le_bytes(*from);
            cursor.pos += 9;
            if cursor.take(0x41) {
                end = cursor.fixed64()?;
            }
        }
        if cursor.take(0x4a) {
            self.attributes.push(0x4a, &mut cursor, inside, unknown)?;
        }
        while !cursor.is_empty() {
            if let Some([0x85, 0x01, found @ ..]) = cursor.ahead::<6>() {
                flags = u32::from_le_bytes(*found);
                cursor.pos += 6;
                continue;
            }
            match cursor.tag()? {
                0x0a => trace_id = cursor.bytes()?,
                0x12 => span_id = cursor.bytes()?,
                0x1a => set_text(&mut trace_state, cursor.bytes()?)?,
                0x22 => parent_span_id = cursor.bytes()?,
                0x2a => set_near(&mut name, cursor.message()?)?,
                0x30 => kind = cursor.varint32()? as i32,
                0x39 => start = cursor.fixed64()?,
                0x41 => end = cursor.fixed64()?,
                0x4a => self.attributes.push(0x4a, &mut cursor, inside, unknown)?,
                0x50 => dropped_attributes = cursor.varint32()?,
                0x5a => self.events.push(cursor.message()?, inside, unknown)?,
                0x60 => dropped_events = cursor.varint32()?,
                0x6a => self.links.push(cursor.message()?, inside, unknown)?,
                0x70 => dropped_links = cursor.varint32()?,
                0x7a => set_message(&mut status, cursor.bytes()?)?,
                0x85 => flags = cursor.fixed32()?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        let row = self.kind.len();
        // No short cut: every one of the three has to be pushed.
        let irregular = self.trace_id.push(trace_id)
            | self.span_id.push(span_id)
            | self.parent_span_id.push(parent_span_id);
        if irregular {
            self.irregular_ids.push(
                row,
                &[
                    (0x0a, trace_id, 16),
                    (0x12, span_id, 8),
                    (0x22, parent_span_id, 8),
                ],
            );
        }
        self.trace_state.set_rare(row, trace_state);
        self.flags.push(flags);
        self.name.push_near(name);
        self.kind.push(kind);
        self.start.push(start);
        self.end.push(end);
        self.attributes.close();
        self.dropped_attributes.set(row, dropped_attributes);
        self.events.close();
        self.dropped_events.set(row, dropped_events);
        self.links.close();
        self.dropped_links.set(row, dropped_links);
        Ok(self.push_status(status, inside, unknown)?)
    }

    fn rows(&self) -> usize {
        self.kind.len()
    }

    fn expansion(&self) -> usize {
        self.kind.len() * ROW_BYTES
            + self.attributes.expansion()
            + self.events.attributes.expansion()
            + self.links.attributes.expansion()
    }

    fn truncate(&mut self, rows: usize) {
        self.trace_id.truncate(rows);
        self.span_id.truncate(rows);
        self.parent_span_id.truncate(rows);
        self.irregular_ids.truncate(rows);
        self.trace_state.truncate(rows);
        self.flags.truncate(rows);
        self.name.truncate(rows);
        self.kind.truncate(rows);
        self.start.truncate(rows);
        self.end.truncate(rows);
        self.attributes.truncate(rows);
        self.dropped_attributes.truncate(rows);
        self.events.truncate(rows);
        self.dropped_events.truncate(rows);
        self.links.truncate(rows);
        self.dropped_links.truncate(rows);
        self.status_code.truncate(rows);
        self.status_message.truncate(rows);
        self.no_status.truncate(rows);
    }

    fn check(&mut self) -> bool {
        self.trace_state.check()
            && self.name.check()
            && self.attributes.check()
            && self.events.check()
            && self.links.check()
            && self.status_message.check()
    }

    fn finish(self, [resource, scope]: [ArrayRef; 2]) -> Built<RecordBatch> {
        let rows = self.kind.len();
        let columns = vec![
            resource,
            scope,
            self.trace_id.finish()?,
            self.span_id.finish()?,
            self.parent_span_id.finish()?,
            self.irregular_ids.finish(rows)?,
            self.trace_state.strings_of(rows, None)?,
            numbers::<UInt32Type>(self.flags),
            self.name.strings(None)?,
            numbers::<Int32Type>(self.kind),
            numbers::<UInt64Type>(self.start),
            numbers::<UInt64Type>(self.end),
            self.attributes.finish()?,
            self.dropped_attributes.finish::<UInt32Type>(rows)?,
            self.events.finish()?,
            self.dropped_events.finish::<UInt32Type>(rows)?,
            self.links.finish()?,
            self.dropped_links.finish::<UInt32Type>(rows)?,
            self.status_code.finish::<Int32Type>()?,
            self.status_message
                .strings_of(rows, self.no_status.into_nulls(rows))?,
        ];
        RecordBatch::try_new(Arc::clone(&schema::SPANS), columns)
    }
}

impl Spans {
    #[inline(always)]
    fn push_status(&mut self, body: Option<&[u8]>, left: u32, unknown: &mut u64) -> Fast<()> {
        let Some(body) = body else {
            self.status_code.push(None);
            self.no_status.set(self.kind.len() - 1, 1);
            return Ok(());
        };
        let mut cursor = Cursor::new(body);
        let mut message: &[u8] = &[];
        let mut code = 0;
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x12 => set_text(&mut message, cursor.bytes()?)?,
                0x18 => code = cursor.varint32()? as i32,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.status_code.push(Some(code));
        self.status_message.set_rare(self.kind.len() - 1, message);
        Ok(())
    }
}

struct Events {
    time: Vec<u64>,
    name: Texts,
    attributes: Attributes,
    dropped: Vec<u32>,
    ends: Ends,
}

impl Events {
    fn with_capacity(rows: usize) -> Self {
        Self {
            time: Vec::new(),
            name: Texts::with_capacity(0, 0),
            attributes: Attributes::with_capacity(0, 0),
            dropped: Vec::new(),
            ends: Ends::with_capacity(rows),
        }
    }

    fn push(&mut self, mut cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Fast<()> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let mut name: &[u8] = &[];
        let (mut time, mut dropped) = (0, 0);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x09 => time = cursor.fixed64()?,
                0x12 => set_text(&mut name, cursor.bytes()?)?,
                0x1a => self.attributes.push(0x1a, &mut cursor, inside, unknown)?,
                0x20 => dropped = cursor.varint32()?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.time.push(time);
        self.name.push(name);
        self.attributes.close();
        self.dropped.push(dropped);
        Ok(())
    }

    fn close(&mut self) {
        self.ends.push(self.time.len());
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        let left = self.ends.last();
        self.time.truncate(left);
        self.name.truncate(left);
        self.attributes.truncate(left);
        self.dropped.truncate(left);
    }

    fn check(&mut self) -> bool {
        self.name.check() && self.attributes.check()
    }

    fn finish(self) -> Built<ArrayRef> {
        let children = vec![
            numbers::<UInt64Type>(self.time),
            self.name.strings(None)?,
            self.attributes.finish()?,
            numbers::<UInt32Type>(self.dropped),
        ];
        let events = structs(&schema::EVENT, children, None)?;
        list(
            schema::item(events.data_type().clone()),
            self.ends,
            events,
            None,
        )
    }
}

struct Links {
    trace_id: Texts,
    span_id: Texts,
    trace_state: Texts,
    attributes: Attributes,
    dropped: Vec<u32>,
    flags: Vec<u32>,
    ends: Ends,
}

impl Links {
    fn with_capacity(rows: usize) -> Self {
        let texts = || Texts::with_capacity(0, 0);
        Self {
            trace_id: texts(),
            span_id: texts(),
            trace_state: texts(),
            attributes: Attributes::with_capacity(0, 0),
            dropped: Vec::new(),
            flags: Vec::new(),
            ends: Ends::with_capacity(rows),
        }
    }

    fn push(&mut self, mut cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Fast<()> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let (mut trace_id, mut span_id, mut trace_state): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let (mut dropped, mut flags) = (0, 0);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => trace_id = cursor.bytes()?,
                0x12 => span_id = cursor.bytes()?,
                0x1a => set_text(&mut trace_state, cursor.bytes()?)?,
                0x22 => self.attributes.push(0x22, &mut cursor, inside, unknown)?,
                0x28 => dropped = cursor.varint32()?,
                0x35 => flags = cursor.fixed32()?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.trace_id.push(trace_id);
        self.span_id.push(span_id);
        self.trace_state.push(trace_state);
        self.attributes.close();
        self.dropped.push(dropped);
        self.flags.push(flags);
        Ok(())
    }

    fn close(&mut self) {
        self.ends.push(self.flags.len());
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        let left = self.ends.last();
        self.trace_id.truncate(left);
        self.span_id.truncate(left);
        self.trace_state.truncate(left);
        self.attributes.truncate(left);
        self.dropped.truncate(left);
        self.flags.truncate(left);
    }

    fn check(&mut self) -> bool {
        self.trace_state.check() && self.attributes.check()
    }

    fn finish(self) -> Built<ArrayRef> {
        let children = vec![
            self.trace_id.binary(None)?,
            self.span_id.binary(None)?,
            self.trace_state.strings(None)?,
            self.attributes.finish()?,
            numbers::<UInt32Type>(self.dropped),
            numbers::<UInt32Type>(self.flags),
        ];
        let links = structs(&schema::LINK, children, None)?;
        list(
            schema::item(links.data_type().clone()),
            self.ends,
            links,
            None,
        )
    }
}
