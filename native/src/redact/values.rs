//! Attribute lists and log bodies: values of every kind, and the keys they stand under.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt8Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, StructArray,
    UInt8Array,
};

use super::columns::Pass;
use super::edits::{self, Change};
use super::nested::{Kind, Texts};
use super::rules::Outcome;
use super::scan::Offsets;

// ValueType of telflow.schema.
const EMPTY: u8 = 0;
const STRING: u8 = 1;
const ARRAY: u8 = 5;
const KVLIST: u8 = 6;
const RAW: u8 = 255;

/// What one attribute becomes. Everything unset stays as it is.
#[derive(Default)]
struct Edit {
    drop: bool,
    key: Option<Vec<u8>>,
    /// The value becomes this string.
    text: Option<Vec<u8>>,
    bytes: Option<Vec<u8>>,
    /// The value becomes an AnyValue with nothing set.
    empty: bool,
    /// Null slots that hold sensitive content all the same.
    scrub: Scrub,
}

#[derive(Default, Clone, Copy)]
struct Scrub {
    text: bool,
    int: bool,
    double: bool,
    bytes: bool,
}

/// Edits by row. Each kind of column is looked through from top to bottom, so rows mostly ascend.
#[derive(Default)]
struct Edits {
    edits: Vec<(usize, Edit)>,
}

impl Edits {
    fn of(&mut self, row: usize) -> &mut Edit {
        if self.edits.last().is_none_or(|(last, _)| *last != row) {
            self.edits.push((row, Edit::default()));
        }
        let last = self.edits.len() - 1;
        &mut self.edits[last].1
    }

    /// One edit for each row, rows ascending.
    fn merged(mut self) -> Vec<(usize, Edit)> {
        self.edits.sort_by_key(|(row, _)| *row);
        self.edits.dedup_by(|(row, later), (earlier_row, earlier)| {
            let same = row == earlier_row;
            if same {
                earlier.merge(std::mem::take(later));
            }
            same
        });
        self.edits
    }
}

impl Edit {
    fn merge(&mut self, later: Self) {
        self.drop |= later.drop;
        self.empty |= later.empty;
        self.key = later.key.or(self.key.take());
        self.text = later.text.or(self.text.take());
        self.bytes = later.bytes.or(self.bytes.take());
        self.scrub.text |= later.scrub.text;
        self.scrub.int |= later.scrub.int;
        self.scrub.double |= later.scrub.double;
        self.scrub.bytes |= later.scrub.bytes;
    }
}

/// The children of an attribute or AnyValue struct.
struct Values<'a> {
    keys: Option<&'a StringArray>,
    kinds: &'a UInt8Array,
    texts: &'a StringArray,
    ints: &'a Int64Array,
    doubles: &'a Float64Array,
    bools: &'a BooleanArray,
    bytes: &'a BinaryArray,
}

impl<'a> Values<'a> {
    fn of(parts: &'a StructArray) -> Option<Self> {
        let part = |name: &str| parts.column_by_name(name);
        Some(Self {
            keys: match part("key") {
                Some(keys) => Some(keys.as_string_opt()?),
                None => None,
            },
            kinds: part("type")?.as_primitive_opt::<UInt8Type>()?,
            texts: part("str")?.as_string_opt()?,
            ints: part("int")?.as_primitive_opt::<Int64Type>()?,
            doubles: part("double")?.as_primitive_opt::<Float64Type>()?,
            bools: part("bool")?.as_boolean_opt()?,
            bytes: part("bytes")?.as_binary_opt()?,
        })
    }

    fn kind(&self, row: usize) -> Option<u8> {
        self.kinds.is_valid(row).then(|| self.kinds.value(row))
    }

    /// What a keyed hash of the value is taken of.
    fn content(&self, row: usize) -> Vec<u8> {
        if self.texts.is_valid(row) {
            self.texts.value_data()[range(self.texts.value_offsets(), row)].to_vec()
        } else if self.ints.is_valid(row) {
            self.ints.value(row).to_string().into_bytes()
        } else if self.doubles.is_valid(row) {
            self.doubles.value(row).to_string().into_bytes()
        } else if self.bools.is_valid(row) {
            self.bools.value(row).to_string().into_bytes()
        } else {
            self.bytes.value_data()[range(self.bytes.value_offsets(), row)].to_vec()
        }
    }

    fn nested_kind(&self, row: usize) -> Option<Kind> {
        match self.kind(row) {
            Some(ARRAY) => Some(Kind::Array),
            Some(KVLIST) => Some(Kind::KeyValueList),
            Some(RAW) => Some(Kind::KeyValue),
            _ => None,
        }
    }

    fn key(&self, row: usize) -> &[u8] {
        match self.keys {
            Some(keys) => &keys.value_data()[range(keys.value_offsets(), row)],
            None => &[],
        }
    }
}

#[inline]
fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

/// The children anew if any changed, the rows (ascending) that are no longer among them, the rows not judged.
pub type Revised = (Option<Vec<ArrayRef>>, Vec<u32>, Vec<u32>);

impl Pass<'_> {
    /// Revise attributes (`key_place` given) or the values of a column.
    pub fn values(
        &mut self,
        parts: &StructArray,
        key_place: Option<&str>,
        value_place: &str,
    ) -> Result<Revised, String> {
        let values = Values::of(parts).ok_or("expected the columns of a value")?;
        let mut edits = Edits::default();
        let mut failed = Vec::new();
        let place = self.place(value_place);
        let judged = !self.engine.is_skipped(value_place);
        let settled = self.keys(&values, key_place, judged.then_some(place), &mut edits);
        if judged {
            let is_settled = |row: usize| settled.as_ref().is_some_and(|rows| rows[row]);
            self.texts_of(&values, place, &is_settled, &mut edits);
            self.numbers_of(&values, place, &is_settled, &mut edits);
            self.bytes_of(&values, place, &is_settled, &mut edits, &mut failed);
        }
        let mut edits = edits.merged();
        if edits.is_empty() {
            return Ok((None, Vec::new(), failed));
        }
        if key_place.is_none() {
            // Not in a list, so nothing to leave out: a deleted body is an empty value.
            for (_, edit) in edits.iter_mut().filter(|(_, edit)| edit.drop) {
                *edit = Edit {
                    empty: true,
                    ..Edit::default()
                };
            }
        }
        let dropped = edits.iter().filter(|(_, edit)| edit.drop);
        let dropped = dropped.map(|(row, _)| *row as u32).collect();
        Ok((Some(revised(parts, &values, &edits)?), dropped, failed))
    }

    /// Judge the keys; returns which rows' values are decided by their keys, None when none is.
    fn keys(
        &mut self,
        values: &Values<'_>,
        key_place: Option<&str>,
        value_place: Option<u16>,
        edits: &mut Edits,
    ) -> Option<Vec<bool>> {
        let (Some(keys), Some(key_place)) = (values.keys, key_place) else {
            return None;
        };
        let judged = !self.engine.is_skipped(key_place);
        if !judged && value_place.is_none() {
            return None;
        }
        let key_place = self.place(key_place);
        let mut settled: Option<Vec<bool>> = None;
        let (offsets, content) = (keys.value_offsets(), keys.value_data());
        for row in 0..keys.len() {
            let key = &content[range(offsets, row)];
            let verdict = self.verdict(key);
            let kind = values.kind(row);
            // A whole KeyValue message brings its own key and is judged with the other messages.
            let rule = verdict.rule.filter(|_| kind != Some(RAW));
            if let (Some(rule), Some(place)) = (rule, value_place) {
                let decided = match self.engine.apply_key_rule(rule, || values.content(row)) {
                    None => true,
                    Some(outcome) => {
                        let hides = !matches!(kind, None | Some(EMPTY));
                        if hides || outcome == Outcome::Removed {
                            self.count(self.engine.rules.len() as u16 + rule, place);
                            settle(edits, row, outcome);
                        }
                        hides
                    }
                };
                if decided {
                    settled.get_or_insert_with(|| vec![false; keys.len()])[row] = true;
                }
            }
            if verdict.sensitive && judged {
                match self.text(key, key_place) {
                    Outcome::Removed => edits.of(row).drop = true,
                    Outcome::Replaced(text) => edits.of(row).key = Some(text),
                }
            }
        }
        settled
    }

    fn texts_of(
        &mut self,
        values: &Values<'_>,
        place: u16,
        is_settled: &impl Fn(usize) -> bool,
        edits: &mut Edits,
    ) {
        let (offsets, content) = (values.texts.value_offsets(), values.texts.value_data());
        let mut found = self.take_scratch();
        self.engine.scan(content, &Offsets(offsets), &mut found);
        for group in found.chunk_by(|a, b| a.segment == b.segment) {
            let row = group[0].segment as usize;
            if values.texts.is_null(row) {
                edits.of(row).scrub.text = true;
            } else if !is_settled(row) {
                let outcome = self.applied(&content[range(offsets, row)], group, place);
                settle(edits, row, outcome);
            }
        }
        self.return_scratch(found);
    }

    fn numbers_of(
        &mut self,
        values: &Values<'_>,
        place: u16,
        is_settled: &impl Fn(usize) -> bool,
        edits: &mut Edits,
    ) {
        for (row, &int) in values.ints.values().iter().enumerate() {
            if self.engine.is_plain_int(int) || self.int(int).is_none() {
                continue;
            }
            if values.ints.is_null(row) {
                edits.of(row).scrub.int = true;
            } else if !is_settled(row) {
                if let Some(outcome) = self.counted_int(int, place) {
                    settle(edits, row, outcome);
                }
            }
        }
        for (row, &double) in values.doubles.values().iter().enumerate() {
            if self.engine.is_plain_double(double) || self.double(double).is_none() {
                continue;
            }
            if values.doubles.is_null(row) {
                edits.of(row).scrub.double = true;
            } else if !is_settled(row) {
                if let Some(outcome) = self.counted_double(double, place) {
                    settle(edits, row, outcome);
                }
            }
        }
    }

    /// Bytes that may hold text, and arrays and maps in their protobuf form.
    fn bytes_of(
        &mut self,
        values: &Values<'_>,
        place: u16,
        is_settled: &impl Fn(usize) -> bool,
        edits: &mut Edits,
        failed: &mut Vec<u32>,
    ) {
        let (offsets, content) = (values.bytes.value_offsets(), values.bytes.value_data());
        if offsets[0] == offsets[values.bytes.len()] {
            return;
        }
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        // The row each range belongs to, and the rows in which something is found without a search.
        let mut owners: Vec<usize> = Vec::new();
        let mut hits: Vec<usize> = Vec::new();
        let mut path = Vec::new();
        for row in 0..values.bytes.len() {
            let bounds = range(offsets, row);
            let settled = is_settled(row) && values.bytes.is_valid(row);
            if bounds.is_empty() || settled {
                continue;
            }
            let message = &content[bounds.clone()];
            let Some(kind) = values.nested_kind(row) else {
                ranges.push((bounds.start, bounds.end));
                owners.push(row);
                continue;
            };
            self.start_path(kind, values.key(row), &mut path);
            let mut texts = Texts {
                ranges: &mut ranges,
                hit: false,
            };
            let judged = self.collect(kind, message, bounds.start, &mut path, &mut texts);
            if judged.is_err() {
                failed.push(row as u32);
                ranges.truncate(owners.len());
                continue;
            }
            if texts.hit {
                hits.push(row);
            }
            owners.resize(ranges.len(), row);
        }
        let mut found = self.take_scratch();
        self.engine.scan(content, ranges.as_slice(), &mut found);
        hits.extend(found.iter().map(|m| owners[m.segment as usize]));
        self.return_scratch(found);
        hits.sort_unstable();
        hits.dedup();
        for row in hits {
            if values.bytes.is_null(row) {
                edits.of(row).scrub.bytes = true;
                continue;
            }
            let message = &content[range(offsets, row)];
            let outcome = match values.nested_kind(row) {
                None => Ok(self.text(message, place)),
                Some(kind) => {
                    self.start_path(kind, values.key(row), &mut path);
                    self.rewrite(kind, message, &mut path, place)
                }
            };
            match outcome {
                Err(_) => failed.push(row as u32),
                Ok(Outcome::Removed) => edits.of(row).drop = true,
                // What was found stands under a key whose rule keeps it.
                Ok(Outcome::Replaced(clean)) if clean == message => {}
                Ok(Outcome::Replaced(clean)) => edits.of(row).bytes = Some(clean),
            }
        }
    }

    /// The path begins with the attribute's key; a whole KeyValue message brings its own.
    fn start_path(&self, kind: Kind, key: &[u8], path: &mut Vec<u8>) {
        path.clear();
        if kind != Kind::KeyValue {
            path.extend_from_slice(key);
        }
    }
}

/// A value is gone or a string.
fn settle(edits: &mut Edits, row: usize, outcome: Outcome) {
    let edit = edits.of(row);
    match outcome {
        Outcome::Removed => edit.drop = true,
        Outcome::Replaced(text) => edit.text = Some(text),
    }
}

fn revised(
    parts: &StructArray,
    values: &Values<'_>,
    edits: &[(usize, Edit)],
) -> Result<Vec<ArrayRef>, String> {
    let rows = parts.len();
    let mut columns = parts.columns().to_vec();
    let mut names = parts.column_names();
    let mut put = |name: &str, column: ArrayRef| {
        if let Some(index) = names.iter_mut().position(|n| *n == name) {
            columns[index] = column;
        }
    };
    if let Some(keys) = values.keys {
        let (steps, changed) = edits::steps(rows, edits, |_, edit| match &edit.key {
            _ if edit.drop => Change::Drop,
            Some(key) => Change::Set(key.as_slice()),
            None => Change::Same,
        });
        if changed {
            put("key", edits::bytes(keys, &steps)?);
        }
    }
    let (steps, changed) = edits::steps(rows, edits, |row, edit| {
        if edit.drop {
            Change::Drop
        } else if edit.empty {
            Change::Set(&EMPTY)
        } else if edit.text.is_some() && values.kind(row) != Some(STRING) {
            Change::Set(&STRING)
        } else {
            Change::Same
        }
    });
    if changed {
        put("type", edits::primitive(values.kinds, &steps));
    }
    let (steps, changed) = edits::steps(rows, edits, |_, edit| match &edit.text {
        _ if edit.drop => Change::Drop,
        _ if edit.empty => Change::Null,
        Some(text) => Change::Set(text.as_slice()),
        None if edit.scrub.text => Change::Null,
        None => Change::Same,
    });
    if changed {
        put("str", edits::bytes(values.texts, &steps)?);
    }
    // A value that became a string has nothing in its other columns; most often there was nothing anyway.
    let cleared = |edit: &Edit, scrub: bool, is_set: bool| {
        scrub || (is_set && (edit.empty || edit.text.is_some()))
    };
    let (steps, changed) = edits::steps(rows, edits, |row, edit| {
        emptied(
            edit,
            cleared(edit, edit.scrub.int, values.ints.is_valid(row)),
        )
    });
    if changed {
        put("int", edits::primitive(values.ints, &steps));
    }
    let (steps, changed) = edits::steps(rows, edits, |row, edit| {
        emptied(
            edit,
            cleared(edit, edit.scrub.double, values.doubles.is_valid(row)),
        )
    });
    if changed {
        put("double", edits::primitive(values.doubles, &steps));
    }
    let (steps, changed) = edits::steps(rows, edits, |row, edit| {
        emptied(edit, cleared(edit, false, values.bools.is_valid(row)))
    });
    if changed {
        put("bool", edits::boolean(values.bools, &steps));
    }
    let (steps, changed) = edits::steps(rows, edits, |row, edit| match &edit.bytes {
        _ if edit.drop => Change::Drop,
        _ if cleared(edit, edit.scrub.bytes, values.bytes.is_valid(row)) => Change::Null,
        Some(bytes) => Change::Set(bytes.as_slice()),
        None => Change::Same,
    });
    if changed {
        put("bytes", edits::bytes(values.bytes, &steps)?);
    }
    Ok(columns)
}

fn emptied<T>(edit: &Edit, cleared: bool) -> Change<'_, T> {
    match (edit.drop, cleared) {
        (true, _) => Change::Drop,
        (_, true) => Change::Null,
        _ => Change::Same,
    }
}
