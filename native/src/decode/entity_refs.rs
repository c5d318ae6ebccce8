//! References from resources to entities.

use arrow_array::{Array, ArrayRef};

use super::columns::{list, structs, Built, Ends};
use super::cursor::{set_text, Cursor, Fast};
use super::pool::Texts;
use super::values::describe_text;
use crate::schema;

/// Lists of EntityRefs.
pub struct EntityRefs {
    schema_url: Texts,
    kind: Texts,
    id_keys: TextLists,
    description_keys: TextLists,
    ends: Ends,
}

impl EntityRefs {
    pub fn new() -> Self {
        let texts = || Texts::with_capacity(0, 0);
        Self {
            schema_url: texts(),
            kind: texts(),
            id_keys: TextLists::new(),
            description_keys: TextLists::new(),
            ends: Ends::with_capacity(0),
        }
    }

    pub fn push(&mut self, body: &[u8], left: u32, unknown: &mut u64) -> Fast<()> {
        let mut cursor = Cursor::new(body);
        let (mut schema_url, mut kind): (&[u8], &[u8]) = (&[], &[]);
        while !cursor.is_empty() {
            match cursor.tag()? {
                0x0a => set_text(&mut schema_url, cursor.bytes()?)?,
                0x12 => set_text(&mut kind, cursor.bytes()?)?,
                0x1a => self.id_keys.texts.push(cursor.bytes()?),
                0x22 => self.description_keys.texts.push(cursor.bytes()?),
                tag => {
                    cursor.skip(tag, left)?;
                    *unknown += 1;
                }
            }
        }
        self.schema_url.push(schema_url);
        self.kind.push(kind);
        self.id_keys.close();
        self.description_keys.close();
        Ok(())
    }

    pub fn close(&mut self) {
        self.ends.push(self.schema_url.len());
    }

    pub fn describe(&self, row: usize, out: &mut Vec<u8>) {
        let range = self.ends.range(row);
        out.extend((range.len() as u32).to_le_bytes());
        for i in range {
            describe_text(self.schema_url.get(i), out);
            describe_text(self.kind.get(i), out);
            self.id_keys.describe(i, out);
            self.description_keys.describe(i, out);
        }
    }

    pub fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        let left = self.ends.last();
        self.schema_url.truncate(left);
        self.kind.truncate(left);
        self.id_keys.truncate(left);
        self.description_keys.truncate(left);
    }

    pub fn check(&mut self) -> bool {
        self.schema_url.check()
            && self.kind.check()
            && self.id_keys.texts.check()
            && self.description_keys.texts.check()
    }

    pub fn finish(self) -> Built<ArrayRef> {
        let children = vec![
            self.schema_url.strings(None)?,
            self.kind.strings(None)?,
            self.id_keys.finish()?,
            self.description_keys.finish()?,
        ];
        let refs = structs(&schema::ENTITY_REF, children, None)?;
        list(
            schema::item(refs.data_type().clone()),
            self.ends,
            refs,
            None,
        )
    }
}

/// Lists of strings.
struct TextLists {
    texts: Texts,
    ends: Ends,
}

impl TextLists {
    fn new() -> Self {
        Self {
            texts: Texts::with_capacity(0, 0),
            ends: Ends::with_capacity(0),
        }
    }

    fn close(&mut self) {
        self.ends.push(self.texts.len());
    }

    fn describe(&self, row: usize, out: &mut Vec<u8>) {
        let range = self.ends.range(row);
        out.extend((range.len() as u32).to_le_bytes());
        range.for_each(|i| describe_text(self.texts.get(i), out));
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.texts.truncate(self.ends.last());
    }

    fn finish(self) -> Built<ArrayRef> {
        let texts = self.texts.strings(None)?;
        list(
            schema::item(texts.data_type().clone()),
            self.ends,
            texts,
            None,
        )
    }
}
