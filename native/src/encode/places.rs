//! The envelopes' own fields: Resource, InstrumentationScope, schema URLs.

use arrow_array::types::UInt32Type;
use arrow_array::RecordBatch;

use super::backward::Backward;
use super::input::{Lists, Numbers, Result, Texts};
use super::values::Attributes;

pub struct Places<'a> {
    pub resources: Resources<'a>,
    pub scopes: Scopes<'a>,
}

impl<'a> Places<'a> {
    pub fn of(resources: &'a RecordBatch, scopes: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            resources: Resources::of(resources)?,
            scopes: Scopes::of(scopes)?,
        })
    }
}

pub struct Resources<'a> {
    pub rows: usize,
    attributes: Attributes<'a>,
    dropped: Numbers<'a, UInt32Type>,
    refs: EntityRefs<'a>,
    schema_url: Texts<'a>,
}

impl<'a> Resources<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            rows: batch.num_rows(),
            attributes: Attributes::of(batch, "attributes")?,
            dropped: Numbers::of(batch, "dropped_attributes_count")?,
            refs: EntityRefs::of(batch)?,
            schema_url: Texts::of(batch, "schema_url")?,
        })
    }

    /// What follows the scopes in a Resource* message.
    pub fn write_tail(&self, row: usize, out: &mut Backward) {
        out.text(0x1a, self.schema_url.get(row));
    }

    /// What stands before the scopes in a Resource* message.
    pub fn write_head(&self, row: usize, out: &mut Backward) {
        if self.attributes.is_null(row) {
            return; // no Resource message
        }
        let mark = out.mark();
        self.refs.write(row, out);
        out.number(0x10, u64::from(self.dropped.get(row)));
        self.attributes.write(row, 0x0a, out);
        out.close(mark, 0x0a);
    }
}

struct EntityRefs<'a> {
    lists: Lists<'a>,
    schema_url: Texts<'a>,
    kind: Texts<'a>,
    id_keys: (Lists<'a>, Texts<'a>),
    description_keys: (Lists<'a>, Texts<'a>),
}

impl<'a> EntityRefs<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let (lists, child) = Lists::of_structs(batch, "entity_refs")?;
        Ok(Self {
            lists,
            schema_url: Texts::of(child, "schema_url")?,
            kind: Texts::of(child, "type")?,
            id_keys: Lists::of_texts(child, "id_keys")?,
            description_keys: Lists::of_texts(child, "description_keys")?,
        })
    }

    fn write(&self, row: usize, out: &mut Backward) {
        for i in self.lists.range(row).rev() {
            let mark = out.mark();
            for (tag, (lists, texts)) in [(0x22, &self.description_keys), (0x1a, &self.id_keys)] {
                lists
                    .range(i)
                    .rev()
                    .for_each(|k| out.delimited(tag, texts.get(k)));
            }
            out.text(0x12, self.kind.get(i));
            out.text(0x0a, self.schema_url.get(i));
            out.close(mark, 0x1a);
        }
    }
}

pub struct Scopes<'a> {
    pub rows: usize,
    name: Texts<'a>,
    version: Texts<'a>,
    attributes: Attributes<'a>,
    dropped: Numbers<'a, UInt32Type>,
    schema_url: Texts<'a>,
}

impl<'a> Scopes<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            rows: batch.num_rows(),
            name: Texts::of(batch, "name")?,
            version: Texts::of(batch, "version")?,
            attributes: Attributes::of(batch, "attributes")?,
            dropped: Numbers::of(batch, "dropped_attributes_count")?,
            schema_url: Texts::of(batch, "schema_url")?,
        })
    }

    /// What follows the records in a Scope* message.
    pub fn write_tail(&self, row: usize, out: &mut Backward) {
        out.text(0x1a, self.schema_url.get(row));
    }

    /// What stands before the records in a Scope* message.
    pub fn write_head(&self, row: usize, out: &mut Backward) {
        if self.name.is_null(row) {
            return; // no InstrumentationScope message
        }
        let mark = out.mark();
        out.number(0x20, u64::from(self.dropped.get(row)));
        self.attributes.write(row, 0x1a, out);
        out.text(0x12, self.version.get(row));
        out.text(0x0a, self.name.get(row));
        out.close(mark, 0x0a);
    }
}
