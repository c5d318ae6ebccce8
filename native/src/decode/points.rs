//! Columns of data points that only some kinds of metric fill: lists of numbers, buckets, quantiles, exemplars. And what
//! is left of a metric that has no points.

use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, PrimitiveArray};
use arrow_buffer::NullBufferBuilder;

use super::columns::{list, numbers, structs, trimmed, Built, Ends, Optional};
use super::cursor::{Cursor, Fast, Irregular};
use super::nested;
use super::pool::Texts;
use super::values::Attributes;
use crate::schema;

/// Lists of numbers, null in points of other kinds.
pub struct NumberLists<A: ArrowPrimitiveType> {
    pub values: Vec<A::Native>,
    ends: Ends,
    nulls: NullBufferBuilder,
}

impl<A: ArrowPrimitiveType> NumberLists<A> {
    pub fn new() -> Self {
        Self {
            values: Vec::new(),
            ends: Ends::with_capacity(0),
            nulls: NullBufferBuilder::new(0),
        }
    }

    pub fn close(&mut self) {
        self.ends.push(self.values.len());
        self.nulls.append_non_null();
    }

    pub fn push_nulls(&mut self, rows: usize) {
        self.ends.pad(self.ends.len() + rows);
        self.nulls.append_n_nulls(rows);
    }

    pub fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.values.truncate(self.ends.last());
        self.nulls.truncate(rows);
    }

    pub fn finish(mut self) -> Built<ArrayRef> {
        let nulls = self.nulls.finish();
        let values = Arc::new(PrimitiveArray::<A>::new(trimmed(self.values).into(), None));
        list(schema::item(A::DATA_TYPE), self.ends, values, nulls)
    }
}

/// Append the numbers of a packed field of eight bytes each.
pub fn packed<T>(out: &mut Vec<T>, content: &[u8], number: fn([u8; 8]) -> T) -> Fast<()> {
    let (chunks, rest) = content.as_chunks::<8>();
    out.extend(chunks.iter().map(|c| number(*c)));
    if rest.is_empty() {
        Ok(())
    } else {
        Err(Irregular)
    }
}

/// A metric without points leaves no row, yet what it says must be valid.
pub fn check_identity(
    texts: [&[u8]; 3],
    metadata: &[&[u8]],
    left: u32,
    unknown: &mut u64,
) -> Fast<()> {
    if texts.iter().any(|text| std::str::from_utf8(text).is_err()) {
        return Err(Irregular);
    }
    let mut scratch = Vec::new();
    metadata
        .iter()
        .try_for_each(|body| nested::key_value(body, left, unknown, &mut scratch))
}

pub fn zigzag(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

/// The buckets of one sign of exponential histograms.
pub struct Buckets {
    offset: Vec<i32>,
    counts: Vec<u64>,
    ends: Ends,
    nulls: NullBufferBuilder,
}

impl Buckets {
    pub fn new() -> Self {
        Self {
            offset: Vec::new(),
            counts: Vec::new(),
            ends: Ends::with_capacity(0),
            nulls: NullBufferBuilder::new(0),
        }
    }

    pub fn push(&mut self, body: Option<&[u8]>, left: u32, unknown: &mut u64) -> Fast<()> {
        let mut cursor = Cursor::new(body.unwrap_or_default());
        let mut offset = 0;
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x08 => offset = zigzag(cursor.varint32()?),
                0x10 => self.counts.push(cursor.varint()?),
                0x12 => {
                    let mut counts = Cursor::new(cursor.bytes()?);
                    while !counts.is_empty() {
                        self.counts.push(counts.varint()?);
                    }
                }
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.offset.push(offset);
        self.ends.push(self.counts.len());
        self.nulls.append(body.is_some());
        Ok(())
    }

    pub fn push_nulls(&mut self, rows: usize) {
        self.offset.resize(self.offset.len() + rows, 0);
        self.ends.pad(self.ends.len() + rows);
        self.nulls.append_n_nulls(rows);
    }

    pub fn truncate(&mut self, rows: usize) {
        self.offset.truncate(rows);
        self.ends.truncate(rows);
        self.counts.truncate(self.ends.last());
        self.nulls.truncate(rows);
    }

    pub fn finish(mut self) -> Built<ArrayRef> {
        let nulls = self.nulls.finish();
        let counts = numbers::<UInt64Type>(self.counts);
        let counts = list(
            schema::item(counts.data_type().clone()),
            self.ends,
            counts,
            None,
        )?;
        structs(
            &schema::BUCKETS,
            vec![numbers::<Int32Type>(self.offset), counts],
            nulls,
        )
    }
}

/// Lists of a summary's quantiles, null in points of other kinds.
pub struct Quantiles {
    quantile: Vec<f64>,
    value: Vec<f64>,
    ends: Ends,
    nulls: NullBufferBuilder,
}

impl Quantiles {
    pub fn new() -> Self {
        Self {
            quantile: Vec::new(),
            value: Vec::new(),
            ends: Ends::with_capacity(0),
            nulls: NullBufferBuilder::new(0),
        }
    }

    pub fn push(&mut self, body: &[u8], left: u32, unknown: &mut u64) -> Fast<()> {
        let mut cursor = Cursor::new(body);
        let (mut quantile, mut value) = (0.0, 0.0);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x09 => quantile = cursor.double()?,
                0x11 => value = cursor.double()?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.quantile.push(quantile);
        self.value.push(value);
        Ok(())
    }

    pub fn close(&mut self) {
        self.ends.push(self.value.len());
        self.nulls.append_non_null();
    }

    pub fn push_nulls(&mut self, rows: usize) {
        self.ends.pad(self.ends.len() + rows);
        self.nulls.append_n_nulls(rows);
    }

    pub fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.quantile.truncate(self.ends.last());
        self.value.truncate(self.ends.last());
        self.nulls.truncate(rows);
    }

    pub fn finish(mut self) -> Built<ArrayRef> {
        let nulls = self.nulls.finish();
        let children = vec![
            numbers::<Float64Type>(self.quantile),
            numbers::<Float64Type>(self.value),
        ];
        let quantiles = structs(&schema::QUANTILE, children, None)?;
        list(
            schema::item(quantiles.data_type().clone()),
            self.ends,
            quantiles,
            nulls,
        )
    }
}

/// The value of a number data point or an exemplar: a oneof of two numbers, of which the last one set counts.
#[derive(Clone, Copy, Default)]
pub struct Number {
    pub int: Option<i64>,
    pub double: Option<f64>,
}

impl Number {
    pub fn set_int(&mut self, value: u64) {
        *self = Self {
            int: Some(value as i64),
            double: None,
        };
    }

    pub fn set_double(&mut self, value: f64) {
        *self = Self {
            int: None,
            double: Some(value),
        };
    }
}

pub struct Exemplars {
    attributes: Attributes,
    time: Vec<u64>,
    int: Optional<i64>,
    double: Optional<f64>,
    span_id: Texts,
    trace_id: Texts,
    ends: Ends,
}

impl Exemplars {
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            attributes: Attributes::with_capacity(0, 0),
            time: Vec::new(),
            int: Optional::with_capacity(0),
            double: Optional::with_capacity(0),
            span_id: Texts::with_capacity(0, 0),
            trace_id: Texts::with_capacity(0, 0),
            ends: Ends::with_capacity(rows),
        }
    }

    pub fn push(&mut self, mut cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Fast<()> {
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let mut time = 0;
        let mut number = Number::default();
        let (mut span_id, mut trace_id): (&[u8], &[u8]) = (&[], &[]);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x11 => time = cursor.fixed64()?,
                0x19 => number.set_double(cursor.double()?),
                0x22 => span_id = cursor.bytes()?,
                0x2a => trace_id = cursor.bytes()?,
                0x31 => number.set_int(cursor.fixed64()?),
                0x3a => self.attributes.push(0x3a, &mut cursor, inside, unknown)?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.attributes.close();
        self.time.push(time);
        self.int.push(number.int);
        self.double.push(number.double);
        self.span_id.push(span_id);
        self.trace_id.push(trace_id);
        Ok(())
    }

    pub fn close(&mut self) {
        self.ends.push(self.time.len());
    }

    pub fn expansion(&self) -> usize {
        self.attributes.expansion()
    }

    pub fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        let left = self.ends.last();
        self.attributes.truncate(left);
        self.time.truncate(left);
        self.int.truncate(left);
        self.double.truncate(left);
        self.span_id.truncate(left);
        self.trace_id.truncate(left);
    }

    pub fn check(&mut self) -> bool {
        self.attributes.check()
    }

    pub fn finish(self) -> Built<ArrayRef> {
        let children = vec![
            self.attributes.finish()?,
            numbers::<UInt64Type>(self.time),
            self.int.finish::<Int64Type>()?,
            self.double.finish::<Float64Type>()?,
            self.span_id.binary(None)?,
            self.trace_id.binary(None)?,
        ];
        let exemplars = structs(&schema::EXEMPLAR, children, None)?;
        list(
            schema::item(exemplars.data_type().clone()),
            self.ends,
            exemplars,
            None,
        )
    }
}
