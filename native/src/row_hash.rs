//! A hash of 128 bits for each row of a table, the same in every process and on every machine.
//!
//! Not for secrets, nor against a sender who looks for two rows with one hash: the constants are known. A row is read as
//! a sequence of words of 64 bits, and each goes into two lanes by a multiplication to 128 bits, folded:
//!
//! * a row: its columns, of which each that is not null has a number, from 1 on;
//! * a number: its column's number, then the value in 64 bits; -0.0 as 0.0. Fixed bytes likewise, as bytes;
//! * a boolean: the number in the upper 32 bits, the value in the lower;
//! * text and bytes: the number above the length, then the bytes: words, the last of which ends where they end, so that
//!   it may overlap the one before; of less than 8, the first four and the last four; of less than 4, the bytes;
//! * a struct: the number, then as a row. A list of structs, which all stand for maps here: the number, then the sum of
//!   its items' hashes, so that their order does not matter. An empty list is as none;
//! * a list of anything else: the number above the length, then the items: of a number the value alone, of something
//!   else as of a column with number 1; null as a word of ones.

use arrow_array::RecordBatch;
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType};
use pyo3::prelude::*;

use crate::column::{broken, columns, part, Column, Values};
use crate::interchange::{array_to_python, batch_from_python, refused};
use crate::rows::span;

const SEEDS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xD1B5_4A32_D192_ED03];
const FACTORS: [u64; 2] = [0xBF58_476D_1CE4_E5B9, 0xAEF1_7502_108E_F2D9];

/// Both halves of a hash on its way.
#[derive(Clone, Copy)]
struct Lanes([u64; 2]);

impl Lanes {
    #[inline]
    fn word(&mut self, word: u64) {
        for (state, factor) in self.0.iter_mut().zip(FACTORS) {
            let product = u128::from(*state ^ word) * u128::from(factor);
            *state = (product as u64) ^ ((product >> 64) as u64).rotate_left(23);
        }
    }

    /// The last word overlaps the one before, or is shorter; the length says which.
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk::<8>() {
            let (words, _) = bytes[..bytes.len() - 1].as_chunks::<8>();
            for word in words {
                self.word(u64::from_le_bytes(*word));
            }
            self.word(u64::from_le_bytes(*last));
        } else if !bytes.is_empty() {
            let word = match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
                (Some(head), Some(tail)) => {
                    u64::from(u32::from_le_bytes(*head))
                        | u64::from(u32::from_le_bytes(*tail)) << 32
                }
                _ => bytes
                    .iter()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte)),
            };
            self.word(word);
        }
    }

    /// What is not null in a row; `number` is the child's.
    #[inline]
    fn node(&mut self, number: u64, node: &Node<'_>, row: usize) -> Result<(), ArrowError> {
        match node {
            Node::Bits(bits) => {
                if row >= bits.len() {
                    return Err(broken("a row beyond the end of its column"));
                }
                self.word(number << 32 | u64::from(bits.value(row)));
            }
            Node::Words { words, is_float } => {
                self.word(number);
                self.word(word_at(words, *is_float, row)?);
            }
            Node::Fixed { width, bytes } => {
                self.word(number);
                self.bytes(part(bytes, row * width, (row + 1) * width)?);
            }
            Node::Bytes { offsets, bytes } => {
                let (start, end) = span(offsets, row)?;
                self.word(number << 32 | (end - start) as u64);
                self.bytes(part(bytes, start, end)?);
            }
            Node::Map { offsets, children } => {
                let (start, end) = span(offsets, row)?;
                let mut sum = [0u64; 2];
                for item in start..end {
                    for (sum, half) in sum.iter_mut().zip(hash(children, item)?) {
                        *sum = sum.wrapping_add(half);
                    }
                }
                if start < end {
                    self.word(number);
                    sum.iter().for_each(|half| self.word(*half));
                }
            }
            Node::List { offsets, item } => {
                let (start, end) = span(offsets, row)?;
                if start < end {
                    self.word(number << 32 | (end - start) as u64);
                    for place in start..end {
                        self.item(item, place)?;
                    }
                }
            }
            Node::Struct(children) => {
                self.word(number);
                self.children(children, row)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn child(&mut self, child: &Child<'_>, row: usize) -> Result<(), ArrowError> {
        if is_null(child, row) {
            return Ok(());
        }
        self.node(child.number, &child.node, row)
    }

    /// Of a list in which order matters.
    #[inline]
    fn item(&mut self, item: &Child<'_>, place: usize) -> Result<(), ArrowError> {
        match (&item.node, is_null(item, place)) {
            (_, true) => self.word(u64::MAX),
            (Node::Words { words, is_float }, false) => {
                self.word(word_at(words, *is_float, place)?);
            }
            (node, false) => self.node(item.number, node, place)?,
        }
        Ok(())
    }

    #[inline]
    fn children(&mut self, children: &[Child<'_>], row: usize) -> Result<(), ArrowError> {
        children.iter().try_for_each(|child| self.child(child, row))
    }
}

/// A column of a table or a struct; those that are null in every row are left out.
struct Child<'a> {
    number: u64,
    nulls: Option<&'a NullBuffer>,
    node: Node<'a>,
}

enum Node<'a> {
    Bits(&'a BooleanBuffer),
    Words {
        words: &'a [[u8; 8]],
        is_float: bool,
    },
    Fixed {
        width: usize,
        bytes: &'a [u8],
    },
    Bytes {
        offsets: &'a [i32],
        bytes: &'a [u8],
    },
    Map {
        offsets: &'a [i32],
        children: Vec<Child<'a>>,
    },
    List {
        offsets: &'a [i32],
        item: Box<Child<'a>>,
    },
    Struct(Vec<Child<'a>>),
}

fn children(columns: Vec<Column<'_>>) -> Vec<Child<'_>> {
    (1..)
        .zip(columns)
        .filter(|(_, column)| column.nulls.map(NullBuffer::null_count) != Some(column.len))
        .map(|(number, column)| child(number, column))
        .collect()
}

fn child(number: u64, column: Column<'_>) -> Child<'_> {
    let node = match column.values {
        Values::Bits(bits) => Node::Bits(bits),
        Values::Fixed {
            width: 8,
            bytes,
            data_type,
        } => Node::Words {
            words: bytes.as_chunks::<8>().0,
            is_float: data_type == DataType::Float64,
        },
        Values::Fixed { width, bytes, .. } => Node::Fixed { width, bytes },
        Values::Bytes { offsets, bytes } => Node::Bytes { offsets, bytes },
        Values::List { offsets, items } => match *items {
            Column {
                values: Values::Struct { columns, .. },
                ..
            } => Node::Map {
                offsets,
                children: children(columns),
            },
            items => Node::List {
                offsets,
                item: Box::new(child(1, items)),
            },
        },
        Values::Struct { columns, .. } => Node::Struct(children(columns)),
    };
    Child {
        number,
        nulls: column.nulls,
        node,
    }
}

#[inline]
fn is_null(child: &Child<'_>, row: usize) -> bool {
    child
        .nulls
        .is_some_and(|nulls| row < nulls.len() && nulls.is_null(row))
}

#[inline]
fn word_at(words: &[[u8; 8]], is_float: bool, row: usize) -> Result<u64, ArrowError> {
    let word = words.get(row).map(|word| u64::from_le_bytes(*word));
    let word = word.ok_or_else(|| broken("a row beyond the end of its column"))?;
    Ok(if is_float && f64::from_bits(word) == 0.0 {
        0
    } else {
        word
    })
}

/// Spread over all bits (the finaliser of SplitMix64; G. Steele, D. Lea, C. Flood, 2014).
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[inline]
fn hash(columns: &[Child<'_>], row: usize) -> Result<[u64; 2], ArrowError> {
    let mut lanes = Lanes(SEEDS);
    lanes.children(columns, row)?;
    Ok(lanes.0.map(mix))
}

fn hashes(batch: &RecordBatch) -> Result<[Vec<u64>; 2], ArrowError> {
    let columns = children(columns(batch.columns())?);
    let rows = batch.num_rows();
    let mut found = [Vec::with_capacity(rows), Vec::with_capacity(rows)];
    for row in 0..rows {
        for (column, half) in found.iter_mut().zip(hash(&columns, row)?) {
            column.push(half);
        }
    }
    Ok(found)
}

/// Both halves of the hash of each row.
#[pyfunction]
fn hash_rows<'py>(
    batch: &Bound<'py, PyAny>,
    uint64: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let batch = batch_from_python(batch)?;
    let [high, low] = uint64.py().detach(|| hashes(&batch)).map_err(refused)?;
    Ok((to_python(high, uint64)?, to_python(low, uint64)?))
}

fn to_python<'py>(words: Vec<u64>, uint64: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let rows = words.len();
    let data = ArrayData::try_new(
        DataType::UInt64,
        rows,
        None,
        0,
        vec![Buffer::from_vec(words)],
        vec![],
    );
    array_to_python(&data.map_err(refused)?, uint64)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(hash_rows, m)?)
}
