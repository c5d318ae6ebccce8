//! Data points, gathered into metrics.

use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type, UInt8Type};
use arrow_array::RecordBatch;

use super::backward::Backward;
use super::input::{Bools, Failure, Lists, Numbers, Result, Texts};
use super::points::{write_doubles, zigzag, Buckets, Exemplars, Quantiles};
use super::request::Source;
use super::values::Attributes;
use crate::schema::metric_type;

pub struct DataPoints<'a> {
    rows: usize,
    name: Texts<'a>,
    description: Texts<'a>,
    unit: Texts<'a>,
    metadata: Attributes<'a>,
    kind: Numbers<'a, UInt8Type>,
    temporality: Numbers<'a, Int32Type>,
    monotonic: Bools<'a>,
    attributes: Attributes<'a>,
    start: Numbers<'a, UInt64Type>,
    time: Numbers<'a, UInt64Type>,
    flags: Numbers<'a, UInt32Type>,
    exemplars: Exemplars<'a>,
    int: Numbers<'a, Int64Type>,
    double: Numbers<'a, Float64Type>,
    count: Numbers<'a, UInt64Type>,
    sum: Numbers<'a, Float64Type>,
    min: Numbers<'a, Float64Type>,
    max: Numbers<'a, Float64Type>,
    bucket_counts: (Lists<'a>, Numbers<'a, UInt64Type>),
    explicit_bounds: (Lists<'a>, Numbers<'a, Float64Type>),
    scale: Numbers<'a, Int32Type>,
    zero_count: Numbers<'a, UInt64Type>,
    zero_threshold: Numbers<'a, Float64Type>,
    positive: Buckets<'a>,
    negative: Buckets<'a>,
    quantiles: Quantiles<'a>,
}

impl<'a> DataPoints<'a> {
    pub fn of(batch: &'a RecordBatch) -> Result<Self> {
        let this = Self {
            rows: batch.num_rows(),
            name: Texts::of(batch, "name")?,
            description: Texts::of(batch, "description")?,
            unit: Texts::of(batch, "unit")?,
            metadata: Attributes::of(batch, "metadata")?,
            kind: Numbers::of(batch, "type")?,
            temporality: Numbers::of(batch, "aggregation_temporality")?,
            monotonic: Bools::of(batch, "is_monotonic")?,
            attributes: Attributes::of(batch, "attributes")?,
            start: Numbers::of(batch, "start_time_unix_nano")?,
            time: Numbers::of(batch, "time_unix_nano")?,
            flags: Numbers::of(batch, "flags")?,
            exemplars: Exemplars::of(batch)?,
            int: Numbers::of(batch, "value_int")?,
            double: Numbers::of(batch, "value_double")?,
            count: Numbers::of(batch, "count")?,
            sum: Numbers::of(batch, "sum")?,
            min: Numbers::of(batch, "min")?,
            max: Numbers::of(batch, "max")?,
            bucket_counts: Lists::of_numbers(batch, "bucket_counts")?,
            explicit_bounds: Lists::of_numbers(batch, "explicit_bounds")?,
            scale: Numbers::of(batch, "scale")?,
            zero_count: Numbers::of(batch, "zero_count")?,
            zero_threshold: Numbers::of(batch, "zero_threshold")?,
            positive: Buckets::of(batch, "positive")?,
            negative: Buckets::of(batch, "negative")?,
            quantiles: Quantiles::of(batch)?,
        };
        this.check_kinds()?;
        Ok(this)
    }

    fn check_kinds(&self) -> Result<()> {
        use metric_type::{EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, SUM, SUMMARY};
        let known = [GAUGE, SUM, HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY];
        match (0..self.rows).find(|&row| !known.contains(&self.kind.get(row))) {
            Some(row) => Err(Failure::new(format!(
                "{}: type {} is no kind of metric",
                self.name(row),
                self.kind.get(row)
            ))),
            None => Ok(()),
        }
    }

    fn write_number(&self, row: usize, out: &mut Backward) {
        out.number(0x40, u64::from(self.flags.get(row)));
        self.attributes.write(row, 0x3a, out);
        if let Some(value) = self.int.optional(row) {
            out.eight(0x31, value.to_le_bytes());
        }
        self.exemplars.write(row, 0x2a, out);
        // One member of the oneof: the integer when a batch has both.
        if let (Some(value), None) = (self.double.optional(row), self.int.optional(row)) {
            out.eight(0x21, value.to_le_bytes());
        }
        out.fixed64(0x19, self.time.get(row));
        out.fixed64(0x11, self.start.get(row));
    }

    fn write_histogram(&self, row: usize, out: &mut Backward) {
        self.write_optional(0x61, &self.max, row, out);
        self.write_optional(0x59, &self.min, row, out);
        out.number(0x50, u64::from(self.flags.get(row)));
        self.attributes.write(row, 0x4a, out);
        self.exemplars.write(row, 0x42, out);
        write_doubles(
            0x3a,
            self.explicit_bounds
                .1
                .range(self.explicit_bounds.0.range(row)),
            out,
        );
        let counts = self.bucket_counts.1.range(self.bucket_counts.0.range(row));
        if !counts.is_empty() {
            let mark = out.mark();
            counts
                .iter()
                .rev()
                .for_each(|count| out.array(count.to_le_bytes()));
            out.close(mark, 0x32);
        }
        self.write_optional(0x29, &self.sum, row, out);
        out.fixed64(0x21, self.count.get(row));
        out.fixed64(0x19, self.time.get(row));
        out.fixed64(0x11, self.start.get(row));
    }

    fn write_exponential(&self, row: usize, out: &mut Backward) {
        out.fixed64(0x71, self.zero_threshold.get(row).to_bits());
        self.write_optional(0x69, &self.max, row, out);
        self.write_optional(0x61, &self.min, row, out);
        self.exemplars.write(row, 0x5a, out);
        out.number(0x50, u64::from(self.flags.get(row)));
        self.negative.write(row, 0x4a, out);
        self.positive.write(row, 0x42, out);
        out.fixed64(0x39, self.zero_count.get(row));
        out.number(0x30, u64::from(zigzag(self.scale.get(row))));
        self.write_optional(0x29, &self.sum, row, out);
        out.fixed64(0x21, self.count.get(row));
        out.fixed64(0x19, self.time.get(row));
        out.fixed64(0x11, self.start.get(row));
        self.attributes.write(row, 0x0a, out);
    }

    fn write_summary(&self, row: usize, out: &mut Backward) {
        out.number(0x40, u64::from(self.flags.get(row)));
        self.attributes.write(row, 0x3a, out);
        self.quantiles.write(row, 0x32, out);
        out.fixed64(0x29, self.sum.get(row).to_bits());
        out.fixed64(0x21, self.count.get(row));
        out.fixed64(0x19, self.time.get(row));
        out.fixed64(0x11, self.start.get(row));
    }

    fn write_optional(
        &self,
        tag: u8,
        column: &Numbers<'_, Float64Type>,
        row: usize,
        out: &mut Backward,
    ) {
        if let Some(value) = column.optional(row) {
            out.eight(tag, value.to_le_bytes());
        }
    }
}

impl Source for DataPoints<'_> {
    #[inline]
    fn write(&self, row: usize, out: &mut Backward) {
        let mark = out.mark();
        match self.kind.get(row) {
            metric_type::HISTOGRAM => self.write_histogram(row, out),
            metric_type::EXPONENTIAL_HISTOGRAM => self.write_exponential(row, out),
            metric_type::SUMMARY => self.write_summary(row, out),
            _ => self.write_number(row, out),
        }
        out.close(mark, 0x0a);
    }

    fn same(&self, a: usize, b: usize) -> bool {
        self.kind.get(a) == self.kind.get(b)
            && self.temporality.get(a) == self.temporality.get(b)
            && self.monotonic.get(a) == self.monotonic.get(b)
            && self.name.get(a) == self.name.get(b)
            && self.unit.get(a) == self.unit.get(b)
            && self.description.get(a) == self.description.get(b)
            // Metadata is rare: comparing it is left to `describe`.
            && self.metadata.is_empty(a)
            && self.metadata.is_empty(b)
    }

    fn describe(&self, row: usize, out: &mut Vec<u8>) {
        out.push(self.kind.get(row));
        out.extend(self.temporality.get(row).to_le_bytes());
        out.push(u8::from(self.monotonic.get(row)));
        for text in [
            self.name.get(row),
            self.description.get(row),
            self.unit.get(row),
        ] {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend_from_slice(text);
        }
        if !self.metadata.is_empty(row) {
            let mut metadata = Backward::new(Vec::new(), 256);
            self.metadata.write(row, 0x62, &mut metadata);
            out.extend_from_slice(metadata.written());
        }
    }

    fn write_tail(&self, row: usize, out: &mut Backward) -> [usize; 2] {
        let metric = out.mark();
        self.metadata.write(row, 0x62, out);
        let data = out.mark();
        let kind = self.kind.get(row);
        if kind == metric_type::SUM {
            out.number(0x18, u64::from(self.monotonic.get(row)));
        }
        if kind != metric_type::GAUGE && kind != metric_type::SUMMARY {
            out.number(0x10, self.temporality.get(row) as i64 as u64);
        }
        [metric, data]
    }

    fn write_head(&self, row: usize, [metric, data]: [usize; 2], out: &mut Backward) {
        out.close(data, self.kind.get(row) << 3 | 2);
        out.text(0x1a, self.unit.get(row));
        out.text(0x12, self.description.get(row));
        out.text(0x0a, self.name.get(row));
        out.close(metric, 0x12);
    }

    fn name(&self, row: usize) -> String {
        format!(
            "data point {row} of metric {:?}",
            String::from_utf8_lossy(self.name.get(row))
        )
    }

    fn size(&self) -> usize {
        self.rows * 80
            + self.attributes.size()
            + self.exemplars.size()
            + self.bucket_counts.1.len() * 16
    }
}
