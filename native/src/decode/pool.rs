//! Strings and byte strings, one after another.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::ArrowError;

use super::columns::{trimmed, Built, Ends};
use super::cursor::Cursor;

/// Bytes one after another. Short pieces are added in chunks of a fixed size, of which only the beginning is kept: that
/// takes a fraction of the time of a copy of any size.
pub struct Pool {
    buf: Vec<u8>,
    /// What is before it is known to be text.
    checked: usize,
    /// What is between `checked` and it is known to be ASCII.
    ascii: usize,
}

const CHUNK: usize = 32;
/// A piece of a payload in which an attribute of less than 128 bytes stands, and two chunks beyond.
pub const WINDOW: usize = 208;

impl Pool {
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buf: Vec::with_capacity(bytes),
            checked: 0,
            ascii: 0,
        }
    }

    #[inline(always)]
    pub fn end(&self) -> usize {
        self.buf.len()
    }

    /// Add `size` bytes of a window.
    #[inline(always)]
    pub fn push_short(&mut self, window: &[u8; WINDOW], begin: usize, size: usize) {
        if let Some(chunk) = window[begin..].first_chunk::<{ 2 * CHUNK }>() {
            if size <= 2 * CHUNK {
                let end = self.buf.len() + size;
                self.buf.extend_from_slice(&chunk[..CHUNK]);
                if size > CHUNK {
                    self.buf.extend_from_slice(&chunk[CHUNK..]);
                }
                self.buf.truncate(end);
                return;
            }
        }
        self.push(&window[begin..begin + size]);
    }

    #[inline(never)]
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Add the content that `text` stands before, a chunk at once when it is short.
    #[inline(always)]
    pub fn push_near(&mut self, text: Cursor<'_>) {
        let size = text.end - text.pos;
        let near = text
            .buf
            .get(text.pos..)
            .and_then(|rest| rest.first_chunk::<CHUNK>());
        if let Some(chunk) = near {
            if size <= CHUNK {
                let end = self.buf.len() + size;
                self.buf.extend_from_slice(chunk);
                self.buf.truncate(end);
                return;
            }
        }
        self.push(text.rest().unwrap_or_default());
    }

    /// Let `write` append to the bytes.
    pub fn append<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        write(&mut self.buf)
    }

    /// See whether what was added lately is ASCII, while it is still in the cache.
    pub fn glance(&mut self) {
        if self.buf[self.ascii..].is_ascii() {
            self.ascii = self.buf.len();
        }
    }

    pub fn truncate(&mut self, end: usize) {
        self.buf.truncate(end);
        self.checked = self.checked.min(end);
        self.ascii = self.ascii.min(end);
    }

    /// Whether the pieces added since the last check, of which the last ones end at the last of `ends`, are UTF-8.
    pub fn check(&mut self, ends: &Ends) -> bool {
        let begin = std::mem::replace(&mut self.checked, self.buf.len());
        let ascii = std::mem::replace(&mut self.ascii, self.buf.len());
        let new = &self.buf[begin..];
        self.buf[ascii..].is_ascii()
            || match std::str::from_utf8(new) {
                Ok(text) => ends
                    .all()
                    .iter()
                    .rev()
                    .map(|end| *end as usize)
                    .take_while(|end| *end > begin)
                    .all(|end| text.is_char_boundary(end - begin)),
                Err(_) => false,
            }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Strings that end at `ends`. Fails on invalid UTF-8.
    ///
    /// Inside this crate strings travel as byte strings (see `schema::TEXT`), for Arrow's own check takes several times
    /// as long as this one.
    pub fn strings(mut self, ends: Ends, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        if !self.check(&ends) {
            return Err(not_text());
        }
        self.binary(ends, nulls)
    }

    pub fn binary(self, ends: Ends, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        let data = Buffer::from_vec(trimmed(self.buf));
        Ok(Arc::new(BinaryArray::try_new(ends.finish(), data, nulls)?))
    }
}

fn not_text() -> ArrowError {
    ArrowError::InvalidArgumentError("invalid UTF-8".to_owned())
}

/// Strings or byte strings.
pub struct Texts {
    pool: Pool,
    ends: Ends,
}

impl Texts {
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self {
            pool: Pool::with_capacity(bytes),
            ends: Ends::with_capacity(rows),
        }
    }

    #[inline]
    pub fn push(&mut self, text: &[u8]) {
        self.pool.push(text);
        self.ends.push(self.pool.end());
    }

    /// The content that `text` stands before.
    #[inline(always)]
    pub fn push_near(&mut self, text: Cursor<'_>) {
        self.pool.push_near(text);
        self.ends.push(self.pool.end());
    }

    /// Set row `row` of a column that is empty in nearly every record.
    #[inline(always)]
    pub fn set_rare(&mut self, row: usize, text: &[u8]) {
        if !text.is_empty() {
            self.push_at(row, text);
        }
    }

    /// Set row `row`, after letting the missing ones before it be empty.
    pub fn push_at(&mut self, row: usize, text: &[u8]) {
        self.ends.pad(row);
        self.push(text);
    }

    /// Let `write` append row `row`, after letting the missing ones before it be empty.
    #[inline]
    pub fn write_at<T>(&mut self, row: usize, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.ends.pad(row);
        let result = self.pool.append(write);
        self.ends.push(self.pool.end());
        result
    }

    pub fn pad(&mut self, rows: usize) {
        self.ends.pad(rows);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A row; one that was not reached yet is empty.
    pub fn get(&self, row: usize) -> &[u8] {
        if row < self.ends.len() {
            &self.pool.buf[self.ends.range(row)]
        } else {
            &[]
        }
    }

    pub fn truncate(&mut self, rows: usize) {
        if rows < self.ends.len() {
            self.ends.truncate(rows);
            self.pool.truncate(self.ends.last());
        }
    }

    /// See `Pool::check`.
    pub fn check(&mut self) -> bool {
        self.pool.check(&self.ends)
    }

    /// For `rows` rows, of which the last ones may not have been reached. Fails on invalid UTF-8.
    pub fn strings_of(mut self, rows: usize, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        if self.check() {
            self.binary_of(rows, nulls)
        } else {
            Err(not_text())
        }
    }

    /// For `rows` rows, of which the last ones may not have been reached.
    pub fn binary_of(mut self, rows: usize, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        if self.ends.len() == 0 {
            // Without a look at each: in most batches a column of AnyValues has none.
            let offsets = OffsetBuffer::new_zeroed(rows);
            return Ok(Arc::new(BinaryArray::try_new(
                offsets,
                Buffer::from_vec(Vec::<u8>::new()),
                nulls,
            )?));
        }
        self.ends.pad(rows);
        self.binary(nulls)
    }

    /// Fails on invalid UTF-8.
    pub fn strings(self, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        self.pool.strings(self.ends, nulls)
    }

    pub fn binary(self, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        self.pool.binary(self.ends, nulls)
    }
}
