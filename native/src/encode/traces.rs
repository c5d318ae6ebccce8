//! Spans.

use arrow_array::types::{Int32Type, UInt32Type, UInt64Type};
use arrow_array::RecordBatch;

use super::backward::Backward;
use super::input::{Ids, Lists, Numbers, Result, Texts};
use super::request::Source;
use super::values::Attributes;

pub struct Spans<'a> {
    rows: usize,
    trace_id: Ids<'a, 16>,
    span_id: Ids<'a, 8>,
    parent_span_id: Ids<'a, 8>,
    irregular_ids: Option<Texts<'a>>,
    trace_state: Option<Texts<'a>>,
    flags: Numbers<'a, UInt32Type>,
    name: Texts<'a>,
    kind: Numbers<'a, Int32Type>,
    start: Numbers<'a, UInt64Type>,
    end: Numbers<'a, UInt64Type>,
    attributes: Attributes<'a>,
    dropped_attributes: Option<Numbers<'a, UInt32Type>>,
    events: Events<'a>,
    dropped_events: Option<Numbers<'a, UInt32Type>>,
    links: Links<'a>,
    dropped_links: Option<Numbers<'a, UInt32Type>>,
    status_code: Numbers<'a, Int32Type>,
    status_message: Option<Texts<'a>>,
}

impl<'a> Spans<'a> {
    pub fn of(batch: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            rows: batch.num_rows(),
            trace_id: Ids::of(batch, "trace_id")?,
            span_id: Ids::of(batch, "span_id")?,
            parent_span_id: Ids::of(batch, "parent_span_id")?,
            irregular_ids: Texts::of(batch, "irregular_ids")?.unless_empty(),
            trace_state: Texts::of(batch, "trace_state")?.unless_empty(),
            flags: Numbers::of(batch, "flags")?,
            name: Texts::of(batch, "name")?,
            kind: Numbers::of(batch, "kind")?,
            start: Numbers::of(batch, "start_time_unix_nano")?,
            end: Numbers::of(batch, "end_time_unix_nano")?,
            attributes: Attributes::of(batch, "attributes")?,
            dropped_attributes: Numbers::of(batch, "dropped_attributes_count")?.unless_zero(),
            events: Events::of(batch)?,
            dropped_events: Numbers::of(batch, "dropped_events_count")?.unless_zero(),
            links: Links::of(batch)?,
            dropped_links: Numbers::of(batch, "dropped_links_count")?.unless_zero(),
            status_code: Numbers::of(batch, "status_code")?,
            status_message: Texts::of(batch, "status_message")?.unless_empty(),
        })
    }
}

impl Source for Spans<'_> {
    #[inline]
    fn write(&self, row: usize, out: &mut Backward) {
        let mark = out.mark();
        let flags = self.flags.get(row);
        if flags != 0 {
            let [a, b, c, d] = flags.to_le_bytes();
            out.array([0x85, 0x01, a, b, c, d]);
        }
        if let Some(code) = self.status_code.optional(row) {
            let mark = out.mark();
            out.number(0x18, code as i64 as u64);
            out.rare_text(0x12, &self.status_message, row);
            out.close(mark, 0x7a);
        }
        out.rare_number(0x70, &self.dropped_links, row);
        self.links.write(row, out);
        out.rare_number(0x60, &self.dropped_events, row);
        self.events.write(row, out);
        out.rare_number(0x50, &self.dropped_attributes, row);
        self.attributes.write(row, 0x4a, out);
        let (start, end, kind) = (self.start.get(row), self.end.get(row), self.kind.get(row));
        if start != 0 && end != 0 && (1..0x80).contains(&kind) {
            // As the fields one by one, but with one look at how much room there is.
            let mut fields = [0; 20];
            fields[..3].copy_from_slice(&[0x30, kind as u8, 0x39]);
            fields[3..11].copy_from_slice(&start.to_le_bytes());
            fields[11] = 0x41;
            fields[12..].copy_from_slice(&end.to_le_bytes());
            out.array(fields);
        } else {
            out.fixed64(0x41, end);
            out.fixed64(0x39, start);
            out.number(0x30, kind as i64 as u64);
        }
        out.text_tail(0x2a, self.name.tail(row));
        out.id(0x22, self.parent_span_id.get(row));
        out.rare_text(0x1a, &self.trace_state, row);
        out.id(0x12, self.span_id.get(row));
        out.id(0x0a, self.trace_id.get(row));
        if let Some(ids) = &self.irregular_ids {
            out.bytes(ids.get(row));
        }
        out.close(mark, 0x12);
    }

    fn name(&self, row: usize) -> String {
        format!(
            "span {row} ({:?})",
            String::from_utf8_lossy(self.name.get(row))
        )
    }

    fn size(&self) -> usize {
        self.rows * 100 + self.name.size() + self.attributes.size() + self.events.attributes.size()
    }
}

struct Events<'a> {
    lists: Lists<'a>,
    time: Numbers<'a, UInt64Type>,
    name: Texts<'a>,
    attributes: Attributes<'a>,
    dropped: Numbers<'a, UInt32Type>,
}

impl<'a> Events<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let (lists, child) = Lists::of_structs(batch, "events")?;
        Ok(Self {
            lists,
            time: Numbers::of(child, "time_unix_nano")?,
            name: Texts::of(child, "name")?,
            attributes: Attributes::of(child, "attributes")?,
            dropped: Numbers::of(child, "dropped_attributes_count")?,
        })
    }

    #[inline]
    fn write(&self, row: usize, out: &mut Backward) {
        for i in self.lists.range(row).rev() {
            let mark = out.mark();
            out.number(0x20, u64::from(self.dropped.get(i)));
            self.attributes.write(i, 0x1a, out);
            out.text(0x12, self.name.get(i));
            out.fixed64(0x09, self.time.get(i));
            out.close(mark, 0x5a);
        }
    }
}

struct Links<'a> {
    lists: Lists<'a>,
    trace_id: Texts<'a>,
    span_id: Texts<'a>,
    trace_state: Texts<'a>,
    attributes: Attributes<'a>,
    dropped: Numbers<'a, UInt32Type>,
    flags: Numbers<'a, UInt32Type>,
}

impl<'a> Links<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let (lists, child) = Lists::of_structs(batch, "links")?;
        Ok(Self {
            lists,
            trace_id: Texts::of(child, "trace_id")?,
            span_id: Texts::of(child, "span_id")?,
            trace_state: Texts::of(child, "trace_state")?,
            attributes: Attributes::of(child, "attributes")?,
            dropped: Numbers::of(child, "dropped_attributes_count")?,
            flags: Numbers::of(child, "flags")?,
        })
    }

    #[inline]
    fn write(&self, row: usize, out: &mut Backward) {
        for i in self.lists.range(row).rev() {
            let mark = out.mark();
            let flags = self.flags.get(i);
            if flags != 0 {
                let [a, b, c, d] = flags.to_le_bytes();
                out.array([0x35, a, b, c, d]);
            }
            out.number(0x28, u64::from(self.dropped.get(i)));
            self.attributes.write(i, 0x22, out);
            out.text(0x1a, self.trace_state.get(i));
            out.text(0x12, self.span_id.get(i));
            out.text(0x0a, self.trace_id.get(i));
            out.close(mark, 0x6a);
        }
    }
}
