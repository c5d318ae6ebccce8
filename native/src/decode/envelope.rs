//! Request, Resource* and Scope*: the envelopes, which look the same in all three signals.

use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, RecordBatch};

use super::columns::{numbers, Built};
use super::cursor::{set_message, set_text, Cursor, Fast, Irregular};
use super::places::{Resources, Scopes, Tenants};

/// The records of one signal in columns.
pub trait Records {
    /// Levels of messages below the request at which a record stands.
    const DEPTH: u32 = 3;

    /// For payloads of so many bytes in all, as a guess.
    fn with_capacity(bytes: usize) -> Self;

    /// A payload begins, whose records may take `room` bytes beyond what the payload itself accounts for.
    fn begin(&mut self, _room: usize) {}

    /// Read a Span, LogRecord or Metric from `cursor`; `left` is how many levels may still be entered below it.
    fn push(&mut self, cursor: Cursor<'_>, left: u32, unknown: &mut u64) -> Result<(), Stop>;

    fn rows(&self) -> usize;

    /// Bytes of columns beyond what the payloads themselves account for.
    fn expansion(&self) -> usize;

    /// Forget the rows from `rows` on, and what was read of an unfinished one; none that was there at the last `begin`.
    fn truncate(&mut self, rows: usize);

    /// Whether all strings added since the last check are UTF-8.
    fn check(&mut self) -> bool;

    /// All columns after `resource` and `scope`, which are given.
    fn finish(self, place: [ArrayRef; 2]) -> Built<RecordBatch>;
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

/// What one payload may cost.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Levels of messages and groups below the request.
    pub depth: u32,
    /// Bytes that the payload's columns may take beyond its own.
    pub room: usize,
}

/// Reads payloads one after another into the columns of one batch. A payload that cannot be read leaves no trace.
pub struct Decoder<R> {
    records: R,
    resource: Vec<u32>,
    scope: Vec<u32>,
    tenants: Tenants,
    resources: Resources,
    scopes: Scopes,
    unknown: u64,
}

impl<R: Records> Decoder<R> {
    /// For payloads of so many bytes in all, as a guess.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            records: R::with_capacity(bytes),
            resource: Vec::new(),
            scope: Vec::new(),
            tenants: Tenants::default(),
            resources: Resources::new(),
            scopes: Scopes::new(),
            unknown: 0,
        }
    }

    pub fn rows(&self) -> usize {
        self.records.rows()
    }

    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// See `Records::expansion`.
    pub fn expansion(&self) -> usize {
        self.records.expansion()
    }

    /// Read an Export*ServiceRequest.
    pub fn add(
        &mut self,
        payload: &[u8],
        tenant: Option<&str>,
        limits: Limits,
    ) -> Result<(), Stop> {
        let (rows, resources, scopes) = (
            self.records.rows(),
            self.resources.rows(),
            self.scopes.rows(),
        );
        let unknown = self.unknown;
        let tenant = self.tenants.number(tenant);
        self.records.begin(limits.room);
        let mut reading = Reading {
            tenant,
            depth: limits.depth,
            most: self.expansion().saturating_add(limits.room),
            to: self,
        };
        let mut result = reading.request(payload);
        if result.is_ok()
            && !(self.records.check() && self.resources.check() && self.scopes.check())
        {
            result = Err(Stop::Irregular);
        }
        if result.is_err() {
            self.records.truncate(rows);
            self.resource.truncate(rows);
            self.scope.truncate(rows);
            self.resources.truncate(resources);
            self.scopes.truncate(scopes);
            self.unknown = unknown;
        }
        result
    }

    /// Records, resources, scopes.
    pub fn finish(self) -> Built<[RecordBatch; 3]> {
        let place = [
            numbers::<UInt32Type>(self.resource),
            numbers::<UInt32Type>(self.scope),
        ];
        Ok([
            self.records.finish(place)?,
            self.resources.finish(&self.tenants)?,
            self.scopes.finish()?,
        ])
    }
}

/// One payload on its way into a decoder.
struct Reading<'d, R> {
    to: &'d mut Decoder<R>,
    tenant: u32,
    depth: u32,
    /// The most that `Records::expansion` may come to.
    most: usize,
}

impl<R: Records> Reading<'_, R> {
    fn request(&mut self, payload: &[u8]) -> Result<(), Stop> {
        let mut cursor = Cursor::new(payload);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => self.in_resource(cursor.message()?)?,
                tag => self.skip(&mut cursor, tag, 0)?,
            }
        }
        Ok(())
    }

    fn skip(&mut self, cursor: &mut Cursor<'_>, tag: u32, depth: u32) -> Fast<()> {
        self.to.unknown += 1;
        cursor.skip(tag, self.depth - depth)
    }

    fn in_resource(&mut self, mut cursor: Cursor<'_>) -> Result<(), Stop> {
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
        let left = self.depth - 2;
        let to = &mut *self.to;
        let row = to
            .resources
            .row(self.tenant, resource, schema_url, left, &mut to.unknown)?;
        to.resource.resize(to.records.rows(), row);
        Ok(())
    }

    fn in_scope(&mut self, mut cursor: Cursor<'_>) -> Result<(), Stop> {
        let (mut scope, mut schema_url): (_, &[u8]) = (None, &[]);
        let left = self.depth - R::DEPTH;
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => set_message(&mut scope, cursor.bytes()?)?,
                0x12 => {
                    let to = &mut *self.to;
                    to.records.push(cursor.message()?, left, &mut to.unknown)?;
                    if to.records.expansion() > self.most {
                        return Err(Stop::TooLarge);
                    }
                }
                0x1a => set_text(&mut schema_url, cursor.bytes()?)?,
                tag => self.skip(&mut cursor, tag, 2)?,
            }
        }
        let left = self.depth - 3;
        let to = &mut *self.to;
        let row = to.scopes.row(scope, schema_url, left, &mut to.unknown)?;
        to.scope.resize(to.records.rows(), row);
        Ok(())
    }
}
