//! Strings and byte strings, one after another.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::ArrowError;

use super::columns::{trimmed, Built, Ends};
use super::cursor::Cursor;

/// Bytes one after another. The buffer is filled with zeros ahead of `end`, so that short pieces can be copied in chunks
/// of a fixed size, which takes a fraction of the time of a copy of any size.
pub struct Pool {
    buf: Vec<u8>,
    end: usize,
    /// What is before it is known to be text.
    checked: usize,
}

/// Zeros that are written ahead at a time: few enough to be still in the cache when they are overwritten.
const AHEAD: usize = 8 << 10;
const CHUNK: usize = 32;
/// A piece of a payload in which an attribute of less than 128 bytes stands, and two chunks beyond.
pub const WINDOW: usize = 208;

impl Pool {
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buf: Vec::with_capacity(bytes),
            end: 0,
            checked: 0,
        }
    }

    pub fn end(&self) -> usize {
        self.end
    }

    /// Add `size` bytes of a window.
    #[inline(always)]
    pub fn push_short(&mut self, window: &[u8; WINDOW], begin: usize, size: usize) {
        if let Some(room) = self.buf[self.end..].first_chunk_mut::<{ 2 * CHUNK }>() {
            if let Some(chunk) = window[begin..].first_chunk::<{ 2 * CHUNK }>() {
                if size <= 2 * CHUNK {
                    room[..CHUNK].copy_from_slice(&chunk[..CHUNK]);
                    if size > CHUNK {
                        room[CHUNK..].copy_from_slice(&chunk[CHUNK..]);
                    }
                    self.end += size;
                    return;
                }
            }
        }
        self.push(&window[begin..begin + size]);
    }

    #[inline(never)]
    pub fn push(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        if self.buf.len() < end + 2 * CHUNK {
            self.buf
                .resize(end + 2 * CHUNK + AHEAD.min(self.end / 4), 0);
        }
        self.buf[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// Add the content that `text` stands before, a chunk at once when it is short.
    #[inline(always)]
    pub fn push_near(&mut self, text: Cursor<'_>) {
        let size = text.end - text.pos;
        let near = text
            .buf
            .get(text.pos..)
            .and_then(|rest| rest.first_chunk::<CHUNK>());
        if let (Some(chunk), Some(room)) = (near, self.buf[self.end..].first_chunk_mut::<CHUNK>()) {
            if size <= CHUNK {
                *room = *chunk;
                self.end += size;
                return;
            }
        }
        self.push(text.rest().unwrap_or_default());
    }

    /// Let `write` append to the bytes.
    pub fn append<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.buf.truncate(self.end);
        let result = write(&mut self.buf);
        self.end = self.buf.len();
        result
    }

    pub fn truncate(&mut self, end: usize) {
        self.end = end;
        self.checked = self.checked.min(end);
    }

    /// Whether the pieces added since the last check, of which the last ones end at the last of `ends`, are UTF-8.
    pub fn check(&mut self, ends: &Ends) -> bool {
        let begin = std::mem::replace(&mut self.checked, self.end);
        let new = &self.buf[begin..self.end];
        new.is_ascii()
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
        &self.buf[..self.end]
    }

    /// Strings that end at `ends`. Fails on invalid UTF-8.
    ///
    /// Inside this crate strings travel as byte strings (see `schema::TEXT`), for Arrow's own check takes several times
    /// as long as this one.
    pub fn strings(mut self, ends: Ends, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        if !self.check(&ends) {
            return Err(ArrowError::InvalidArgumentError("invalid UTF-8".to_owned()));
        }
        self.binary(ends, nulls)
    }

    pub fn binary(mut self, ends: Ends, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        self.buf.truncate(self.end);
        let data = Buffer::from_vec(trimmed(self.buf));
        Ok(Arc::new(BinaryArray::try_new(ends.finish(), data, nulls)?))
    }
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
        self.ends.push(self.pool.end);
    }

    /// The content that `text` stands before.
    #[inline(always)]
    pub fn push_near(&mut self, text: Cursor<'_>) {
        self.pool.push_near(text);
        self.ends.push(self.pool.end);
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
        self.ends.push(self.pool.end);
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

    /// For `rows` rows, of which the last ones may not have been reached.
    pub fn strings_of(mut self, rows: usize, nulls: Option<NullBuffer>) -> Built<ArrayRef> {
        self.ends.pad(rows);
        self.strings(nulls)
    }

    /// Like `strings_of`.
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
