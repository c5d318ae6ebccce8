//! Request, Resource* and Scope*: the envelopes, which look the same in all three signals.

use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, RecordBatch};

use super::columns::{numbers, Built};
use super::cursor::{set_message, set_text, Cursor, Fast, Irregular};
use super::places::{Resources, Scopes};

/// The records of one signal in columns.
pub trait Records {
    /// Levels of messages below the request at which a record stands.
    const DEPTH: u32 = 3;

    /// For payloads of so many bytes in all; `limit` is that of `expansion`.
    fn with_capacity(bytes: usize, limit: usize) -> Self;

    /// Read a Span, LogRecord or Metric from `cursor`; `left` is how many levels may still be entered below it.
    fn push(&mut self, cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Result<(), Stop>;

    fn rows(&self) -> usize;

    /// Bytes of columns beyond what the payload itself accounts for.
    fn expansion(&self) -> usize;

    /// All columns after `resource` and `scope`, which are given.
    fn finish(self, place: [ArrayRef; 2]) -> Built<RecordBatch>;
}

pub struct Limits {
    /// Levels of messages and groups below the request.
    pub depth: u32,
    /// Bytes that the columns of a batch may take beyond the payload's own.
    pub expansion: usize,
}

/// Why the quick way ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    Irregular,
    TooLarge,
}

impl From<Irregular> for Stop {
    fn from(_: Irregular) -> Self {
        Stop::Irregular
    }
}

pub struct Decoder<'a, R> {
    limits: Limits,
    records: R,
    resource: Vec<u32>,
    scope: Vec<u32>,
    resources: Resources<'a>,
    scopes: Scopes<'a>,
    pub unknown: u64,
}

impl<'a, R: Records> Decoder<'a, R> {
    pub fn new(bytes: usize, tenants: Vec<Option<&'a str>>, limits: Limits) -> Self {
        Self {
            records: R::with_capacity(bytes, limits.expansion),
            resource: Vec::new(),
            scope: Vec::new(),
            resources: Resources::new(tenants),
            scopes: Scopes::new(),
            unknown: 0,
            limits,
        }
    }

    /// Read an Export*ServiceRequest.
    pub fn request(&mut self, payload: &'a [u8], tenant: u32) -> Result<(), Stop> {
        let mut cursor = Cursor::new(payload);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => self.in_resource(cursor.message()?, tenant)?,
                tag => self.skip(&mut cursor, tag, 0)?,
            }
        }
        Ok(())
    }

    fn skip(&mut self, cursor: &mut Cursor<'a>, tag: u32, depth: u32) -> Fast<()> {
        self.unknown += 1;
        cursor.skip(tag, self.limits.depth - depth)
    }

    fn in_resource(&mut self, mut cursor: Cursor<'a>, tenant: u32) -> Result<(), Stop> {
        let (mut resource, mut schema_url): (_, &[u8]) = (None, &[]);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => set_message(&mut resource, cursor.bytes()?)?,
                0x12 => self.in_scope(cursor.message()?)?,
                0x1a => set_text(&mut schema_url, cursor.bytes()?)?,
                tag => self.skip(&mut cursor, tag, 1)?,
            }
        }
        // Only now, because the schema URL, a part of the resource's identity, is written after the records.
        let row = self.resources.row(
            tenant,
            resource,
            schema_url,
            self.limits.depth - 2,
            &mut self.unknown,
        )?;
        self.resource.resize(self.records.rows(), row);
        Ok(())
    }

    fn in_scope(&mut self, mut cursor: Cursor<'a>) -> Result<(), Stop> {
        let (mut scope, mut schema_url): (_, &[u8]) = (None, &[]);
        let left = self.limits.depth - R::DEPTH;
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => set_message(&mut scope, cursor.bytes()?)?,
                0x12 => {
                    self.records
                        .push(cursor.message()?, left, &mut self.unknown)?;
                    if self.records.expansion() > self.limits.expansion {
                        return Err(Stop::TooLarge);
                    }
                }
                0x1a => set_text(&mut schema_url, cursor.bytes()?)?,
                tag => self.skip(&mut cursor, tag, 2)?,
            }
        }
        let row = self
            .scopes
            .row(scope, schema_url, self.limits.depth - 3, &mut self.unknown)?;
        self.scope.resize(self.records.rows(), row);
        Ok(())
    }

    /// Records, resources, scopes. Fails on invalid UTF-8.
    pub fn finish(self) -> Built<[RecordBatch; 3]> {
        let place = [
            numbers::<UInt32Type>(self.resource),
            numbers::<UInt32Type>(self.scope),
        ];
        Ok([
            self.records.finish(place)?,
            self.resources.finish()?,
            self.scopes.finish()?,
        ])
    }
}
