//! Log records.

use arrow_array::types::{Int32Type, UInt32Type, UInt64Type};
use arrow_array::RecordBatch;

use super::backward::Backward;
use super::input::{Ids, Numbers, Result, Texts};
use super::request::Source;
use super::values::{AnyValues, Attributes};

pub struct LogRecords<'a> {
    rows: usize,
    time: Numbers<'a, UInt64Type>,
    observed_time: Numbers<'a, UInt64Type>,
    severity_number: Numbers<'a, Int32Type>,
    severity_text: Texts<'a>,
    body: AnyValues<'a>,
    attributes: Attributes<'a>,
    dropped_attributes: Option<Numbers<'a, UInt32Type>>,
    flags: Numbers<'a, UInt32Type>,
    trace_id: Ids<'a, 16>,
    span_id: Ids<'a, 8>,
    irregular_ids: Option<Texts<'a>>,
    event_name: Option<Texts<'a>>,
}

impl<'a> LogRecords<'a> {
    pub fn of(batch: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            rows: batch.num_rows(),
            time: Numbers::of(batch, "time_unix_nano")?,
            observed_time: Numbers::of(batch, "observed_time_unix_nano")?,
            severity_number: Numbers::of(batch, "severity_number")?,
            severity_text: Texts::of(batch, "severity_text")?,
            body: AnyValues::of(batch, "body")?,
            attributes: Attributes::of(batch, "attributes")?,
            dropped_attributes: Numbers::of(batch, "dropped_attributes_count")?.unless_zero(),
            flags: Numbers::of(batch, "flags")?,
            trace_id: Ids::of(batch, "trace_id")?,
            span_id: Ids::of(batch, "span_id")?,
            irregular_ids: Texts::of(batch, "irregular_ids")?.unless_empty(),
            event_name: Texts::of(batch, "event_name")?.unless_empty(),
        })
    }
}

impl Source for LogRecords<'_> {
    #[inline]
    fn write(&self, row: usize, out: &mut Backward) {
        let mark = out.mark();
        out.rare_text(0x62, &self.event_name, row);
        out.fixed64(0x59, self.observed_time.get(row));
        out.id(0x52, self.span_id.get(row));
        out.id(0x4a, self.trace_id.get(row));
        let flags = self.flags.get(row);
        if flags != 0 {
            let [a, b, c, d] = flags.to_le_bytes();
            out.array([0x45, a, b, c, d]);
        }
        out.rare_number(0x38, &self.dropped_attributes, row);
        self.attributes.write(row, 0x32, out);
        self.body.write(row, 0x2a, out);
        out.text_tail(0x1a, self.severity_text.tail(row));
        out.number(0x10, self.severity_number.get(row) as i64 as u64);
        out.fixed64(0x09, self.time.get(row));
        if let Some(ids) = &self.irregular_ids {
            out.bytes(ids.get(row));
        }
        out.close(mark, 0x12);
    }

    fn name(&self, row: usize) -> String {
        format!("log record {row}")
    }

    fn size(&self) -> usize {
        self.rows * 90 + self.body.size() + self.attributes.size()
    }
}
