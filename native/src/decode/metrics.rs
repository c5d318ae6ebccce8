//! Metrics: one row per data point, on which the metric's identity is repeated.

use std::sync::Arc;

use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type, UInt8Type};
use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_buffer::BooleanBuffer;

use super::columns::{numbers, Built, Optional};
use super::cursor::{set_message, set_text, Cursor, Fast, Irregular};
use super::envelope::{Records, Stop};
use super::points::{
    check_identity, packed, zigzag, Buckets, Exemplars, Number, NumberLists, Quantiles,
};
use super::pool::Texts;
use super::values::Attributes;
use crate::schema::{self, metric_type};

/// Bytes of payload per data point, for a first guess of how many rows there will be.
const BYTES_PER_POINT: usize = 300;
/// Bytes of columns per data point beyond the contents of its strings and lists.
const ROW_BYTES: usize = 190;

pub struct DataPoints {
    /// Bytes of the metrics' identities, repeated on each point as they are.
    identity_bytes: usize,
    /// What it was when the payload began, and how much more the payload may make it.
    identity_before: usize,
    room: usize,
    name: Texts,
    description: Texts,
    unit: Texts,
    metadata: Attributes,
    kind: Vec<u8>,
    temporality: Vec<i32>,
    monotonic: Vec<bool>,
    attributes: Attributes,
    start: Vec<u64>,
    time: Vec<u64>,
    flags: Vec<u32>,
    exemplars: Exemplars,
    int: Optional<i64>,
    double: Optional<f64>,
    count: Optional<u64>,
    sum: Optional<f64>,
    min: Optional<f64>,
    max: Optional<f64>,
    bucket_counts: NumberLists<UInt64Type>,
    explicit_bounds: NumberLists<Float64Type>,
    scale: Optional<i32>,
    zero_count: Optional<u64>,
    zero_threshold: Optional<f64>,
    positive: Buckets,
    negative: Buckets,
    quantiles: Quantiles,
}

/// What every kind of point has.
#[derive(Default)]
struct Common {
    start: u64,
    time: u64,
    flags: u32,
}

impl Records for DataPoints {
    fn with_capacity(bytes: usize) -> Self {
        let rows = bytes / BYTES_PER_POINT;
        Self {
            identity_bytes: 0,
            identity_before: 0,
            room: usize::MAX,
            name: Texts::with_capacity(rows, rows * 20),
            description: Texts::with_capacity(rows, rows * 20),
            unit: Texts::with_capacity(rows, rows * 2),
            metadata: Attributes::with_capacity(rows, 0),
            kind: Vec::with_capacity(rows),
            temporality: Vec::with_capacity(rows),
            monotonic: Vec::with_capacity(rows),
            attributes: Attributes::with_capacity(rows, bytes),
            start: Vec::with_capacity(rows),
            time: Vec::with_capacity(rows),
            flags: Vec::with_capacity(rows),
            exemplars: Exemplars::with_capacity(rows),
            int: Optional::with_capacity(rows),
            double: Optional::with_capacity(rows),
            count: Optional::with_capacity(rows),
            sum: Optional::with_capacity(rows),
            min: Optional::with_capacity(rows),
            max: Optional::with_capacity(rows),
            bucket_counts: NumberLists::new(),
            explicit_bounds: NumberLists::new(),
            scale: Optional::with_capacity(rows),
            zero_count: Optional::with_capacity(rows),
            zero_threshold: Optional::with_capacity(rows),
            positive: Buckets::new(),
            negative: Buckets::new(),
            quantiles: Quantiles::new(),
        }
    }

    fn begin(&mut self, room: usize) {
        self.identity_before = self.identity_bytes;
        self.room = room;
    }

    fn push(&mut self, mut cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Result<(), Stop> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let (mut name, mut description, mut unit): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let mut data = None;
        let mut kind = 0;
        let mut metadata = Vec::new();
        while !cursor.is_empty() {
            let tag = cursor.tag()?;
            match tag {
                0x0a => set_text(&mut name, cursor.bytes()?)?,
                0x12 => set_text(&mut description, cursor.bytes()?)?,
                0x1a => set_text(&mut unit, cursor.bytes()?)?,
                0x2a | 0x3a | 0x4a | 0x52 | 0x5a => {
                    set_message(&mut data, cursor.message()?)?;
                    kind = (tag >> 3) as u8;
                }
                0x62 => metadata.push(cursor.bytes()?),
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        let before = self.kind.len();
        if let Some(data) = data {
            self.push_data(kind, data, inside, unknown)?;
        }
        let points = self.kind.len() - before;
        if points == 0 {
            return Ok(check_identity(
                [name, description, unit],
                &metadata,
                inside,
                unknown,
            )?);
        }
        let identity = [name, description, unit]
            .iter()
            .chain(&metadata)
            .map(|text| text.len())
            .sum::<usize>();
        self.identity_bytes = self
            .identity_bytes
            .saturating_add(identity.saturating_mul(points));
        if self.identity_bytes - self.identity_before > self.room {
            return Err(Stop::TooLarge);
        }
        self.push_identity(
            [name, description, unit],
            &metadata,
            points,
            inside,
            unknown,
        )?;
        Ok(())
    }

    fn rows(&self) -> usize {
        self.kind.len()
    }

    fn expansion(&self) -> usize {
        self.kind.len() * ROW_BYTES
            + self.identity_bytes
            + self.attributes.expansion()
            + self.exemplars.expansion()
    }

    fn truncate(&mut self, rows: usize) {
        self.identity_bytes = self.identity_before;
        self.name.truncate(rows);
        self.description.truncate(rows);
        self.unit.truncate(rows);
        self.metadata.truncate(rows);
        self.kind.truncate(rows);
        self.temporality.truncate(rows);
        self.monotonic.truncate(rows);
        self.attributes.truncate(rows);
        self.start.truncate(rows);
        self.time.truncate(rows);
        self.flags.truncate(rows);
        self.exemplars.truncate(rows);
        self.int.truncate(rows);
        self.double.truncate(rows);
        self.count.truncate(rows);
        self.sum.truncate(rows);
        self.min.truncate(rows);
        self.max.truncate(rows);
        self.bucket_counts.truncate(rows);
        self.explicit_bounds.truncate(rows);
        self.scale.truncate(rows);
        self.zero_count.truncate(rows);
        self.zero_threshold.truncate(rows);
        self.positive.truncate(rows);
        self.negative.truncate(rows);
        self.quantiles.truncate(rows);
    }

    fn check(&mut self) -> bool {
        self.name.check()
            && self.description.check()
            && self.unit.check()
            && self.metadata.check()
            && self.attributes.check()
            && self.exemplars.check()
    }

    fn finish(self, [resource, scope]: [ArrayRef; 2]) -> Built<RecordBatch> {
        let columns = vec![
            resource,
            scope,
            self.name.strings(None)?,
            self.description.strings(None)?,
            self.unit.strings(None)?,
            self.metadata.finish()?,
            numbers::<UInt8Type>(self.kind),
            numbers::<Int32Type>(self.temporality),
            Arc::new(BooleanArray::new(BooleanBuffer::from(self.monotonic), None)),
            self.attributes.finish()?,
            numbers::<UInt64Type>(self.start),
            numbers::<UInt64Type>(self.time),
            numbers::<UInt32Type>(self.flags),
            self.exemplars.finish()?,
            self.int.finish::<Int64Type>()?,
            self.double.finish::<Float64Type>()?,
            self.count.finish::<UInt64Type>()?,
            self.sum.finish::<Float64Type>()?,
            self.min.finish::<Float64Type>()?,
            self.max.finish::<Float64Type>()?,
            self.bucket_counts.finish()?,
            self.explicit_bounds.finish()?,
            self.scale.finish::<Int32Type>()?,
            self.zero_count.finish::<UInt64Type>()?,
            self.zero_threshold.finish::<Float64Type>()?,
            self.positive.finish()?,
            self.negative.finish()?,
            self.quantiles.finish()?,
        ];
        RecordBatch::try_new(Arc::clone(&schema::DATA_POINTS), columns)
    }
}

impl DataPoints {
    fn push_identity(
        &mut self,
        [name, description, unit]: [&[u8]; 3],
        metadata: &[&[u8]],
        points: usize,
        left: u32,
        unknown: &mut u64,
    ) -> Fast<()> {
        let mut again = 0;
        for point in 0..points {
            self.name.push(name);
            self.description.push(description);
            self.unit.push(unit);
            for body in metadata {
                // Counted once, not for every point.
                self.metadata.push_one(
                    body,
                    left,
                    if point == 0 { unknown } else { &mut again },
                )?;
            }
            self.metadata.close();
        }
        Ok(())
    }

    /// Read Gauge, Sum, Histogram, ExponentialHistogram or Summary: they number their fields alike.
    fn push_data(
        &mut self,
        kind: u8,
        mut cursor: Cursor<'_>,
        left: u32,
        unknown: &mut u64,
    ) -> Fast<()> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let has_temporality = !matches!(kind, metric_type::GAUGE | metric_type::SUMMARY);
        let (mut temporality, mut monotonic) = (0, false);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => {
                    let point = cursor.message()?;
                    match kind {
                        metric_type::HISTOGRAM => self.push_histogram(point, inside, unknown)?,
                        metric_type::EXPONENTIAL_HISTOGRAM => {
                            self.push_exponential(point, inside, unknown)?
                        }
                        metric_type::SUMMARY => self.push_summary(point, inside, unknown)?,
                        _ => self.push_number(point, inside, unknown)?,
                    }
                    self.attributes.close();
                    self.exemplars.close();
                }
                0x10 if has_temporality => temporality = cursor.varint32()? as i32,
                0x18 if kind == metric_type::SUM => monotonic = cursor.varint()? != 0,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        let rows = self.time.len();
        let points = rows - self.kind.len();
        self.kind.resize(rows, kind);
        self.temporality.resize(rows, temporality);
        self.monotonic.resize(rows, monotonic);
        self.push_absent(kind, points);
        Ok(())
    }

    /// Nulls for the last `points` rows in the columns that are not of their kind.
    fn push_absent(&mut self, kind: u8, points: usize) {
        if matches!(kind, metric_type::GAUGE | metric_type::SUM) {
            self.count.push_nulls(points);
            self.sum.push_nulls(points);
        } else {
            self.int.push_nulls(points);
            self.double.push_nulls(points);
        }
        if !matches!(
            kind,
            metric_type::HISTOGRAM | metric_type::EXPONENTIAL_HISTOGRAM
        ) {
            self.min.push_nulls(points);
            self.max.push_nulls(points);
        }
        if kind != metric_type::HISTOGRAM {
            self.bucket_counts.push_nulls(points);
            self.explicit_bounds.push_nulls(points);
        }
        if kind != metric_type::EXPONENTIAL_HISTOGRAM {
            self.scale.push_nulls(points);
            self.zero_count.push_nulls(points);
            self.zero_threshold.push_nulls(points);
            self.positive.push_nulls(points);
            self.negative.push_nulls(points);
        }
        if kind != metric_type::SUMMARY {
            self.quantiles.push_nulls(points);
        }
    }

    #[inline]
    fn push_common(&mut self, common: Common) {
        self.start.push(common.start);
        self.time.push(common.time);
        self.flags.push(common.flags);
    }

    fn push_number(&mut self, mut cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Fast<()> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let mut common = Common::default();
        let mut number = Number::default();
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x11 => common.start = cursor.fixed64()?,
                0x19 => common.time = cursor.fixed64()?,
                0x21 => number.set_double(cursor.double()?),
                0x2a => self.exemplars.push(cursor.message()?, inside, unknown)?,
                0x31 => number.set_int(cursor.fixed64()?),
                0x3a => self.attributes.push(0x3a, &mut cursor, inside, unknown)?,
                0x40 => common.flags = cursor.varint32()?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.push_common(common);
        self.int.push(number.int);
        self.double.push(number.double);
        Ok(())
    }

    fn push_histogram(&mut self, mut cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Fast<()> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let mut common = Common::default();
        let mut count = 0;
        let (mut sum, mut min, mut max) = (None, None, None);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x11 => common.start = cursor.fixed64()?,
                0x19 => common.time = cursor.fixed64()?,
                0x21 => count = cursor.fixed64()?,
                0x29 => sum = Some(cursor.double()?),
                0x31 => self.bucket_counts.values.push(cursor.fixed64()?),
                0x32 => packed(
                    &mut self.bucket_counts.values,
                    cursor.bytes()?,
                    u64::from_le_bytes,
                )?,
                0x39 => self.explicit_bounds.values.push(cursor.double()?),
                0x3a => packed(
                    &mut self.explicit_bounds.values,
                    cursor.bytes()?,
                    f64::from_le_bytes,
                )?,
                0x42 => self.exemplars.push(cursor.message()?, inside, unknown)?,
                0x4a => self.attributes.push(0x4a, &mut cursor, inside, unknown)?,
                0x50 => common.flags = cursor.varint32()?,
                0x59 => min = Some(cursor.double()?),
                0x61 => max = Some(cursor.double()?),
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.push_common(common);
        self.count.push(Some(count));
        self.sum.push(sum);
        self.min.push(min);
        self.max.push(max);
        self.bucket_counts.close();
        self.explicit_bounds.close();
        Ok(())
    }

    fn push_exponential(
        &mut self,
        mut cursor: Cursor<'_>,
        left: u32,
        unknown: &mut u64,
    ) -> Fast<()> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let mut common = Common::default();
        let (mut count, mut scale, mut zero_count, mut zero_threshold) = (0, 0, 0, 0.0);
        let (mut sum, mut min, mut max) = (None, None, None);
        let (mut positive, mut negative) = (None, None);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => self.attributes.push(0x0a, &mut cursor, inside, unknown)?,
                0x11 => common.start = cursor.fixed64()?,
                0x19 => common.time = cursor.fixed64()?,
                0x21 => count = cursor.fixed64()?,
                0x29 => sum = Some(cursor.double()?),
                0x30 => scale = zigzag(cursor.varint32()?),
                0x39 => zero_count = cursor.fixed64()?,
                0x42 => set_message(&mut positive, cursor.bytes()?)?,
                0x4a => set_message(&mut negative, cursor.bytes()?)?,
                0x50 => common.flags = cursor.varint32()?,
                0x5a => self.exemplars.push(cursor.message()?, inside, unknown)?,
                0x61 => min = Some(cursor.double()?),
                0x69 => max = Some(cursor.double()?),
                0x71 => zero_threshold = cursor.double()?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.push_common(common);
        self.count.push(Some(count));
        self.sum.push(sum);
        self.min.push(min);
        self.max.push(max);
        self.scale.push(Some(scale));
        self.zero_count.push(Some(zero_count));
        self.zero_threshold.push(Some(zero_threshold));
        self.positive.push(positive, inside, unknown)?;
        self.negative.push(negative, inside, unknown)
    }

    fn push_summary(&mut self, mut cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Fast<()> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let mut common = Common::default();
        let (mut count, mut sum) = (0, 0.0);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x11 => common.start = cursor.fixed64()?,
                0x19 => common.time = cursor.fixed64()?,
                0x21 => count = cursor.fixed64()?,
                0x29 => sum = cursor.double()?,
                0x32 => self.quantiles.push(cursor.bytes()?, inside, unknown)?,
                0x3a => self.attributes.push(0x3a, &mut cursor, inside, unknown)?,
                0x40 => common.flags = cursor.varint32()?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.push_common(common);
        self.count.push(Some(count));
        self.sum.push(Some(sum));
        self.quantiles.close();
        Ok(())
    }
}
