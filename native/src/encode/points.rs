//! The parts of data points that are messages or lists of their own.

use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::RecordBatch;
use arrow_buffer::NullBuffer;

use super::backward::Backward;
use super::input::{structs, Lists, Numbers, Result, Texts};
use super::values::Attributes;

pub fn zigzag(value: i32) -> u32 {
    (value << 1 ^ value >> 31) as u32
}

/// A packed field of doubles, left out when empty.
pub fn write_doubles(tag: u8, values: &[f64], out: &mut Backward) {
    if !values.is_empty() {
        let mark = out.mark();
        values
            .iter()
            .rev()
            .for_each(|value| out.array(value.to_le_bytes()));
        out.close(mark, tag);
    }
}

/// The buckets of one sign.
pub struct Buckets<'a> {
    nulls: Option<&'a NullBuffer>,
    offset: Numbers<'a, Int32Type>,
    counts: (Lists<'a>, Numbers<'a, UInt64Type>),
}

impl<'a> Buckets<'a> {
    pub fn of(batch: &'a RecordBatch, name: &str) -> Result<Self> {
        let (child, nulls) = structs(batch, name)?;
        Ok(Self {
            nulls,
            offset: Numbers::of(child, "offset")?,
            counts: Lists::of_numbers(child, "bucket_counts")?,
        })
    }

    pub fn write(&self, row: usize, tag: u8, out: &mut Backward) {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return;
        }
        let mark = out.mark();
        let counts = self.counts.1.range(self.counts.0.range(row));
        if !counts.is_empty() {
            let mark = out.mark();
            counts.iter().rev().for_each(|count| out.varint(*count));
            out.close(mark, 0x12);
        }
        out.number(0x08, u64::from(zigzag(self.offset.get(row))));
        out.close(mark, tag);
    }
}

pub struct Quantiles<'a> {
    lists: Lists<'a>,
    quantile: Numbers<'a, Float64Type>,
    value: Numbers<'a, Float64Type>,
}

impl<'a> Quantiles<'a> {
    pub fn of(batch: &'a RecordBatch) -> Result<Self> {
        let (lists, child) = Lists::of_structs(batch, "quantile_values")?;
        Ok(Self {
            lists,
            quantile: Numbers::of(child, "quantile")?,
            value: Numbers::of(child, "value")?,
        })
    }

    pub fn write(&self, row: usize, tag: u8, out: &mut Backward) {
        for i in self.lists.range(row).rev() {
            let mark = out.mark();
            out.fixed64(0x11, self.value.get(i).to_bits());
            out.fixed64(0x09, self.quantile.get(i).to_bits());
            out.close(mark, tag);
        }
    }
}

pub struct Exemplars<'a> {
    lists: Lists<'a>,
    attributes: Attributes<'a>,
    time: Numbers<'a, UInt64Type>,
    int: Numbers<'a, Int64Type>,
    double: Numbers<'a, Float64Type>,
    span_id: Texts<'a>,
    trace_id: Texts<'a>,
}

impl<'a> Exemplars<'a> {
    pub fn of(batch: &'a RecordBatch) -> Result<Self> {
        let (lists, child) = Lists::of_structs(batch, "exemplars")?;
        Ok(Self {
            lists,
            attributes: Attributes::of(child, "filtered_attributes")?,
            time: Numbers::of(child, "time_unix_nano")?,
            int: Numbers::of(child, "value_int")?,
            double: Numbers::of(child, "value_double")?,
            span_id: Texts::of(child, "span_id")?,
            trace_id: Texts::of(child, "trace_id")?,
        })
    }

    pub fn write(&self, row: usize, tag: u8, out: &mut Backward) {
        for i in self.lists.range(row).rev() {
            let mark = out.mark();
            self.attributes.write(i, 0x3a, out);
            let int = self.int.optional(i);
            if let Some(value) = int {
                out.eight(0x31, value.to_le_bytes());
            }
            out.text(0x2a, self.trace_id.get(i));
            out.text(0x22, self.span_id.get(i));
            // One member of the oneof: the integer when a batch has both.
            if let (Some(value), None) = (self.double.optional(i), int) {
                out.eight(0x19, value.to_le_bytes());
            }
            out.fixed64(0x11, self.time.get(i));
            out.close(mark, tag);
        }
    }

    pub fn size(&self) -> usize {
        self.attributes.size() + self.trace_id.size() * 3
    }
}
