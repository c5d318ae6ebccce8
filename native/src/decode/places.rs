//! Tenants, resources and scopes: each distinct one once, by content, over all payloads of a batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::UInt32Type;
use arrow_array::RecordBatch;
use arrow_buffer::{BooleanBuffer, NullBuffer};

use super::columns::{numbers, Built};
use super::cursor::{set_text, Cursor, Fast, Irregular};
use super::entity_refs::EntityRefs;
use super::pool::Texts;
use super::values::{describe_text, Attributes};
use crate::schema;

/// Tenant, message (if any) and schema URL.
type Identity<'a> = (u32, Option<&'a [u8]>, &'a [u8]);

/// Row numbers by raw bytes (quick, most envelopes repeat) and by content (the same resource may be written in two ways).
#[derive(Default)]
struct Known {
    /// The identity that is being looked up, in one piece.
    identity: Vec<u8>,
    by_bytes: HashMap<Box<[u8]>, (u32, u64)>,
    by_content: HashMap<Vec<u8>, u32>,
}

impl Known {
    fn len(&self) -> usize {
        self.by_content.len()
    }

    /// Forget the rows from `rows` on.
    fn truncate(&mut self, rows: usize) {
        if self.len() > rows {
            self.by_bytes.retain(|_, (row, _)| (*row as usize) < rows);
            self.by_content.retain(|_, row| (*row as usize) < rows);
        }
    }

    /// Row of the place that `key` stands for. `add` reads it into a new last row and returns its description and how many
    /// unknown fields it had; `drop_last` takes that row back when an equal one is there.
    fn row<S>(
        &mut self,
        (tenant, message, schema_url): Identity<'_>,
        unknown: &mut u64,
        table: &mut S,
        add: impl FnOnce(&mut S, &mut u64) -> Fast<Vec<u8>>,
        drop_last: impl FnOnce(&mut S),
    ) -> Fast<u32> {
        self.identity.clear();
        self.identity.extend(tenant.to_le_bytes());
        self.identity.push(u8::from(message.is_some()));
        describe_text(message.unwrap_or_default(), &mut self.identity);
        self.identity.extend_from_slice(schema_url);
        if let Some(&(row, unknown_inside)) = self.by_bytes.get(self.identity.as_slice()) {
            *unknown += unknown_inside;
            return Ok(row);
        }
        let mut unknown_inside = 0;
        let content = add(table, &mut unknown_inside)?;
        let next = self.by_content.len() as u32;
        let row = *self.by_content.entry(content).or_insert(next);
        if row != next {
            drop_last(table);
        }
        self.by_bytes
            .insert(self.identity.as_slice().into(), (row, unknown_inside));
        *unknown += unknown_inside;
        Ok(row)
    }
}

#[derive(Default)]
pub struct Tenants {
    names: Vec<Option<String>>,
    numbers: HashMap<Option<String>, u32>,
}

impl Tenants {
    /// The number under which `Resources::row` is told a tenant.
    pub fn number(&mut self, name: Option<&str>) -> u32 {
        // Most payloads of a batch have the tenant of the one before.
        let last = self.names.len().wrapping_sub(1);
        if self.names.last().is_some_and(|n| n.as_deref() == name) {
            return last as u32;
        }
        let name = name.map(str::to_owned);
        let next = self.names.len() as u32;
        *self.numbers.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            next
        })
    }
}

pub struct Resources {
    known: Known,
    table: ResourceTable,
}

struct ResourceTable {
    tenant: Vec<u32>,
    present: Vec<bool>,
    attributes: Attributes,
    dropped: Vec<u32>,
    refs: EntityRefs,
    schema_url: Texts,
}

impl Resources {
    pub fn new() -> Self {
        let table = ResourceTable {
            tenant: Vec::new(),
            present: Vec::new(),
            attributes: Attributes::with_capacity(0, 0),
            dropped: Vec::new(),
            refs: EntityRefs::new(),
            schema_url: Texts::with_capacity(0, 0),
        };
        Self {
            known: Known::default(),
            table,
        }
    }

    pub fn rows(&self) -> usize {
        self.known.len()
    }

    pub fn truncate(&mut self, rows: usize) {
        self.known.truncate(rows);
        self.table.truncate(rows);
    }

    /// See `Records::check`.
    pub fn check(&mut self) -> bool {
        self.table.attributes.check() && self.table.refs.check() && self.table.schema_url.check()
    }

    /// Row of a resource; `left` is how many levels may still be entered below the Resource message.
    pub fn row(
        &mut self,
        tenant: u32,
        resource: Option<&[u8]>,
        schema_url: &[u8],
        left: u32,
        unknown: &mut u64,
    ) -> Fast<u32> {
        let add = |table: &mut ResourceTable, unknown: &mut u64| {
            table.add(tenant, resource, schema_url, left, unknown)?;
            Ok(table.describe())
        };
        self.known.row(
            (tenant, resource, schema_url),
            unknown,
            &mut self.table,
            add,
            ResourceTable::drop_last,
        )
    }

    pub fn finish(self, tenants: &Tenants) -> Built<RecordBatch> {
        let ResourceTable {
            tenant,
            present,
            attributes,
            dropped,
            refs,
            schema_url,
        } = self.table;
        let mut names = Texts::with_capacity(tenant.len(), 0);
        tenant.iter().for_each(|&t| {
            names.push(
                tenants.names[t as usize]
                    .as_deref()
                    .unwrap_or_default()
                    .as_bytes(),
            )
        });
        let known = tenant
            .iter()
            .map(|&t| tenants.names[t as usize].is_some())
            .collect::<BooleanBuffer>();
        let columns = vec![
            names.strings(Some(NullBuffer::new(known)))?,
            attributes.finish_with(Some(NullBuffer::from(present)))?,
            numbers::<UInt32Type>(dropped),
            refs.finish()?,
            schema_url.strings(None)?,
        ];
        RecordBatch::try_new(Arc::clone(&schema::RESOURCES), columns)
    }
}

impl ResourceTable {
    fn add(
        &mut self,
        tenant: u32,
        resource: Option<&[u8]>,
        schema_url: &[u8],
        left: u32,
        unknown: &mut u64,
    ) -> Fast<()> {
        let mut cursor = Cursor::new(resource.unwrap_or_default());
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let mut dropped = 0;
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => self.attributes.push(0x0a, &mut cursor, inside, unknown)?,
                0x10 => dropped = cursor.varint32()?,
                0x1a => self.refs.push(cursor.bytes()?, inside, unknown)?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.tenant.push(tenant);
        self.present.push(resource.is_some());
        self.attributes.close();
        self.dropped.push(dropped);
        self.refs.close();
        self.schema_url.push(schema_url);
        Ok(())
    }

    fn describe(&mut self) -> Vec<u8> {
        let last = self.tenant.len() - 1;
        let mut out = Vec::with_capacity(256);
        out.extend(self.tenant[last].to_le_bytes());
        out.push(u8::from(self.present[last]));
        self.attributes.describe(last, &mut out);
        out.extend(self.dropped[last].to_le_bytes());
        self.refs.describe(last, &mut out);
        describe_text(self.schema_url.get(last), &mut out);
        out
    }

    fn drop_last(&mut self) {
        self.truncate(self.tenant.len() - 1);
    }

    fn truncate(&mut self, rows: usize) {
        self.tenant.truncate(rows);
        self.present.truncate(rows);
        self.attributes.truncate(rows);
        self.dropped.truncate(rows);
        self.refs.truncate(rows);
        self.schema_url.truncate(rows);
    }
}

pub struct Scopes {
    known: Known,
    table: ScopeTable,
}

struct ScopeTable {
    present: Vec<bool>,
    name: Texts,
    version: Texts,
    attributes: Attributes,
    dropped: Vec<u32>,
    schema_url: Texts,
}

impl Scopes {
    pub fn new() -> Self {
        let texts = || Texts::with_capacity(0, 0);
        let table = ScopeTable {
            present: Vec::new(),
            name: texts(),
            version: texts(),
            attributes: Attributes::with_capacity(0, 0),
            dropped: Vec::new(),
            schema_url: texts(),
        };
        Self {
            known: Known::default(),
            table,
        }
    }

    pub fn rows(&self) -> usize {
        self.known.len()
    }

    pub fn truncate(&mut self, rows: usize) {
        self.known.truncate(rows);
        self.table.truncate(rows);
    }

    /// See `Records::check`.
    pub fn check(&mut self) -> bool {
        self.table.name.check()
            && self.table.version.check()
            && self.table.attributes.check()
            && self.table.schema_url.check()
    }

    /// Row of a scope; `left` is how many levels may still be entered below the InstrumentationScope message.
    pub fn row(
        &mut self,
        scope: Option<&[u8]>,
        schema_url: &[u8],
        left: u32,
        unknown: &mut u64,
    ) -> Fast<u32> {
        let add = |table: &mut ScopeTable, unknown: &mut u64| {
            table.add(scope, schema_url, left, unknown)?;
            Ok(table.describe())
        };
        self.known.row(
            (0, scope, schema_url),
            unknown,
            &mut self.table,
            add,
            ScopeTable::drop_last,
        )
    }

    pub fn finish(self) -> Built<RecordBatch> {
        let ScopeTable {
            present,
            name,
            version,
            attributes,
            dropped,
            schema_url,
        } = self.table;
        let columns = vec![
            name.strings(Some(NullBuffer::from(present)))?,
            version.strings(None)?,
            attributes.finish()?,
            numbers::<UInt32Type>(dropped),
            schema_url.strings(None)?,
        ];
        RecordBatch::try_new(Arc::clone(&schema::SCOPES), columns)
    }
}

impl ScopeTable {
    fn add(
        &mut self,
        scope: Option<&[u8]>,
        schema_url: &[u8],
        left: u32,
        unknown: &mut u64,
    ) -> Fast<()> {
        let mut cursor = Cursor::new(scope.unwrap_or_default());
        let inside = left.checked_sub(1).ok_or(Irregular)?;
        let (mut name, mut version): (&[u8], &[u8]) = (&[], &[]);
        let mut dropped = 0;
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => set_text(&mut name, cursor.bytes()?)?,
                0x12 => set_text(&mut version, cursor.bytes()?)?,
                0x1a => self.attributes.push(0x1a, &mut cursor, inside, unknown)?,
                0x20 => dropped = cursor.varint32()?,
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.present.push(scope.is_some());
        self.name.push(name);
        self.version.push(version);
        self.attributes.close();
        self.dropped.push(dropped);
        self.schema_url.push(schema_url);
        Ok(())
    }

    fn describe(&mut self) -> Vec<u8> {
        let last = self.present.len() - 1;
        let mut out = Vec::with_capacity(128);
        out.push(u8::from(self.present[last]));
        describe_text(self.name.get(last), &mut out);
        describe_text(self.version.get(last), &mut out);
        self.attributes.describe(last, &mut out);
        out.extend(self.dropped[last].to_le_bytes());
        describe_text(self.schema_url.get(last), &mut out);
        out
    }

    fn drop_last(&mut self) {
        self.truncate(self.present.len() - 1);
    }

    fn truncate(&mut self, rows: usize) {
        self.present.truncate(rows);
        self.name.truncate(rows);
        self.version.truncate(rows);
        self.attributes.truncate(rows);
        self.dropped.truncate(rows);
        self.schema_url.truncate(rows);
    }
}
