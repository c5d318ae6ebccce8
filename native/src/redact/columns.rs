//! The walk over a table: each column that can hold text, wherever it lies in lists and structs.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{make_array, Array, ArrayRef, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::transform::MutableArrayData;
use arrow_schema::{DataType, Field, FieldRef, Fields};

use super::edits::{self, Change};
use super::keys::{KeyCache, Verdict};
use super::rules::{Engine, Outcome};
use super::scan::{Match, Offsets};

pub struct Done {
    /// The table anew, or None when nothing changed.
    pub batch: Option<RecordBatch>,
    /// Rows that could not be judged, ascending.
    pub failed: Vec<u32>,
    /// (rule, place, how often)
    pub counts: Vec<(String, String, u64)>,
}

const MAX_PATH_BYTES: usize = 1024;

/// The state of one walk.
pub struct Pass<'a> {
    pub engine: &'a Engine,
    keys: &'a mut KeyCache,
    places: Vec<String>,
    counts: HashMap<(u16, u16), u64>,
    found: Vec<Match>,
}

/// A walked array: what it became if it changed, and which of its rows could not be judged.
pub struct Walked {
    pub array: Option<ArrayRef>,
    pub failed: Vec<u32>,
}

pub const SAME: Walked = Walked {
    array: None,
    failed: Vec::new(),
};

pub fn redact_table(
    engine: &Engine,
    keys: &mut KeyCache,
    table: &str,
    batch: &RecordBatch,
    compact: bool,
) -> Result<Done, String> {
    let mut pass = Pass {
        engine,
        keys,
        places: Vec::new(),
        counts: HashMap::new(),
        found: Vec::new(),
    };
    let mut columns = batch.columns().to_vec();
    let mut changed = compact;
    let mut failed = Vec::new();
    for (column, field) in columns.iter_mut().zip(batch.schema_ref().fields()) {
        if compact {
            *column = copied(column)?;
        }
        let place = format!("{table}.{}", field.name());
        let walked = pass.walk(column, field, &place)?;
        failed.extend(walked.failed);
        if let Some(array) = walked.array {
            *column = array;
            changed = true;
        }
    }
    failed.sort_unstable();
    failed.dedup();
    let batch = if changed {
        let rebuilt = RecordBatch::try_new(batch.schema(), columns);
        Some(rebuilt.map_err(|_| "the redacted columns do not fit the schema".to_owned())?)
    } else {
        None
    };
    let counts = pass.counts.iter();
    let mut counts: Vec<(String, String, u64)> = counts
        .map(|((rule, place), count)| {
            let place = pass.places[usize::from(*place)].clone();
            (engine.name(*rule).to_owned(), place, *count)
        })
        .collect();
    counts.sort();
    Ok(Done {
        batch,
        failed,
        counts,
    })
}

/// A copy that holds the rows of the array and nothing else.
fn copied(array: &ArrayRef) -> Result<ArrayRef, String> {
    let data = array.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())
        .map_err(|_| "a column is too large to copy".to_owned())?;
    Ok(make_array(copy.freeze()))
}

fn as_text(array: &dyn Array) -> Result<&StringArray, String> {
    array
        .as_string_opt::<i32>()
        .ok_or_else(|| "expected a string column".to_owned())
}

impl Pass<'_> {
    pub fn take_scratch(&mut self) -> Vec<Match> {
        std::mem::take(&mut self.found)
    }

    pub fn return_scratch(&mut self, found: Vec<Match>) {
        self.found = found;
    }

    #[inline]
    pub fn verdict(&mut self, key: &[u8]) -> Verdict {
        self.keys.verdict(self.engine, key)
    }

    pub fn place(&mut self, name: &str) -> u16 {
        let known = self.places.iter().position(|p| p == name);
        known.unwrap_or_else(|| {
            self.places.push(name.to_owned());
            self.places.len() - 1
        }) as u16
    }

    pub fn count(&mut self, rule: u16, place: u16) {
        *self.counts.entry((rule, place)).or_insert(0) += 1;
    }

    fn walk(&mut self, array: &ArrayRef, field: &Field, place: &str) -> Result<Walked, String> {
        match field.data_type() {
            DataType::Utf8 => self.texts(as_text(array)?, place),
            DataType::Binary => {
                let ids = array
                    .as_binary_opt::<i32>()
                    .ok_or("expected a binary column")?;
                if field.name() == "irregular_ids" {
                    self.irregular_ids(ids, place)
                } else {
                    self.ids(ids, place)
                }
            }
            DataType::FixedSizeBinary(_) => {
                let ids = array
                    .as_fixed_size_binary_opt()
                    .ok_or("expected a fixed-size column")?;
                self.regular_ids(ids, place)
            }
            DataType::List(item) => {
                let list = array.as_list_opt::<i32>().ok_or("expected a list column")?;
                self.list(list, item, place)
            }
            DataType::Struct(fields) => {
                let parts = array.as_struct_opt().ok_or("expected a struct column")?;
                if is_value(fields) {
                    let place = format!("{place}.value");
                    let (columns, _, failed) = self.values(parts, None, &place)?;
                    let array = columns
                        .map(|c| rebuilt(fields, c, parts.nulls()))
                        .transpose()?;
                    Ok(Walked { array, failed })
                } else {
                    self.parts(parts, fields, place)
                }
            }
            // Numbers and times of a record's own fields are measurements, not places for text.
            kind if kind.is_primitive() || *kind == DataType::Boolean => Ok(SAME),
            kind => Err(format!("{place}: unexpected column type {kind}")),
        }
    }

    fn parts(
        &mut self,
        array: &StructArray,
        fields: &Fields,
        place: &str,
    ) -> Result<Walked, String> {
        let mut columns = array.columns().to_vec();
        let mut changed = false;
        let mut failed = Vec::new();
        for (column, field) in columns.iter_mut().zip(fields) {
            let walked = self.walk(column, field, &format!("{place}.{}", field.name()))?;
            failed.extend(walked.failed);
            if let Some(array) = walked.array {
                *column = array;
                changed = true;
            }
        }
        let array = if changed {
            Some(rebuilt(fields, columns, array.nulls())?)
        } else {
            None
        };
        Ok(Walked { array, failed })
    }

    fn list(&mut self, list: &ListArray, item: &FieldRef, place: &str) -> Result<Walked, String> {
        let offsets = list.value_offsets();
        let (first, last) = (offsets[0], offsets[list.len()]);
        if first == last {
            return Ok(SAME);
        }
        let items = list.values().slice(first as usize, (last - first) as usize);
        let (items, dropped, mut failed) = match item.data_type() {
            DataType::Struct(fields) if is_attribute(fields) => {
                let parts = items.as_struct_opt().ok_or("expected a struct column")?;
                let (columns, dropped, failed) = self.values(
                    parts,
                    Some(&format!("{place}.key")),
                    &format!("{place}.value"),
                )?;
                let array = match columns {
                    Some(_) if parts.nulls().is_some() && !dropped.is_empty() => {
                        return Err(format!("{place}: null attributes"));
                    }
                    Some(columns) => Some(rebuilt(fields, columns, parts.nulls())?),
                    None => None,
                };
                (array, dropped, failed)
            }
            _ => {
                let walked = self.walk(&items, item, place)?;
                (walked.array, Vec::new(), walked.failed)
            }
        };
        // Row numbers of items -> row numbers of lists.
        for row in &mut failed {
            let item = first + *row as i32;
            *row = (offsets.partition_point(|offset| *offset <= item) - 1) as u32;
        }
        let Some(items) = items else {
            return Ok(Walked {
                array: None,
                failed,
            });
        };
        let mut gone = 0;
        let moved = offsets.iter().map(|offset| {
            let at = offset - first;
            while gone < dropped.len() && (dropped[gone] as i32) < at {
                gone += 1;
            }
            at - gone as i32
        });
        let offsets = OffsetBuffer::new(ScalarBuffer::from_iter(moved));
        let list = ListArray::try_new(item.clone(), offsets, items, list.nulls().cloned())
            .map_err(|_| format!("{place}: the redacted items do not fit"))?;
        Ok(Walked {
            array: Some(Arc::new(list)),
            failed,
        })
    }

    /// A column of text: every match replaced, or the text emptied.
    fn texts(&mut self, array: &StringArray, place: &str) -> Result<Walked, String> {
        if self.engine.is_skipped(place) {
            return Ok(SAME);
        }
        let mut found = std::mem::take(&mut self.found);
        let offsets = array.value_offsets();
        self.engine
            .scan(array.value_data(), &Offsets(offsets), &mut found);
        let mut edits: Vec<(usize, Option<Vec<u8>>)> = Vec::new();
        if !found.is_empty() {
            let place = self.place(place);
            for group in found.chunk_by(|a, b| a.segment == b.segment) {
                let row = group[0].segment as usize;
                let value = &array.value_data()[offsets[row] as usize..offsets[row + 1] as usize];
                edits.push((
                    row,
                    array
                        .is_valid(row)
                        .then(|| match self.applied(value, group, place) {
                            Outcome::Removed => Vec::new(),
                            Outcome::Replaced(text) => text,
                        }),
                ));
            }
        }
        self.found = found;
        replaced(array, &edits)
    }

    pub fn applied(&mut self, value: &[u8], matches: &[Match], place: u16) -> Outcome {
        let engine = self.engine;
        engine.apply(value, matches, |rule| self.count(rule, place))
    }

    /// One text by itself.
    pub fn text(&mut self, value: &[u8], place: u16) -> Outcome {
        let mut found = std::mem::take(&mut self.found);
        self.engine.scan_one(value, &mut found);
        let outcome = self.applied(value, &found, place);
        self.found = found;
        outcome
    }

    pub fn int(&self, value: i64) -> Option<(Outcome, u16)> {
        if self.engine.is_plain_int(value) {
            return None;
        }
        self.engine.number(&value.to_string())
    }

    pub fn double(&self, value: f64) -> Option<(Outcome, u16)> {
        if self.engine.is_plain_double(value) || !value.is_finite() {
            return None;
        }
        self.engine.number(&value.to_string())
    }

    pub fn counted_int(&mut self, value: i64, place: u16) -> Option<Outcome> {
        let (outcome, rule) = self.int(value)?;
        self.count(rule, place);
        Some(outcome)
    }

    pub fn counted_double(&mut self, value: f64, place: u16) -> Option<Outcome> {
        let (outcome, rule) = self.double(value)?;
        self.count(rule, place);
        Some(outcome)
    }

    /// What the key, or the path down to it, says; the path is extended by the key.
    pub fn nested_verdict(&mut self, key: &[u8], path: &mut Vec<u8>) -> Verdict {
        let mut verdict = self.keys.verdict(self.engine, key);
        if path.is_empty() {
            path.extend_from_slice(key);
            return verdict;
        }
        path.push(b'.');
        path.extend_from_slice(key);
        // A longer path is not looked up: a long name above many entries would be read again for each.
        let whole = if path.len() <= MAX_PATH_BYTES {
            self.engine.key_rule(path)
        } else {
            None
        };
        verdict.rule = match (verdict.rule, whole) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        verdict
    }
}

fn is_value(fields: &Fields) -> bool {
    let names = ["type", "str", "int", "double", "bool", "bytes"];
    fields.len() == 6
        && fields
            .iter()
            .zip(names)
            .all(|(field, name)| field.name() == name)
}

fn is_attribute(fields: &Fields) -> bool {
    let names = ["key", "type", "str", "int", "double", "bool", "bytes"];
    fields.len() == 7
        && fields
            .iter()
            .zip(names)
            .all(|(field, name)| field.name() == name)
}

fn rebuilt(
    fields: &Fields,
    columns: Vec<ArrayRef>,
    nulls: Option<&NullBuffer>,
) -> Result<ArrayRef, String> {
    let array = StructArray::try_new(fields.clone(), columns, nulls.cloned());
    Ok(Arc::new(array.map_err(|_| {
        "the redacted parts do not fit the schema".to_owned()
    })?))
}

/// A column with some rows replaced; None as content: the row is null.
pub fn replaced<T: arrow_array::types::ByteArrayType<Offset = i32>>(
    array: &arrow_array::GenericByteArray<T>,
    edits: &[(usize, Option<Vec<u8>>)],
) -> Result<Walked, String> {
    if edits.is_empty() {
        return Ok(SAME);
    }
    let (steps, _) = edits::steps(array.len(), edits, |_, text| match text {
        Some(text) => Change::Set(text.as_slice()),
        None => Change::Null,
    });
    Ok(Walked {
        array: Some(edits::bytes(array, &steps)?),
        failed: Vec::new(),
    })
}
