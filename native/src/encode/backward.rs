//! Writing protobuf from the end to the beginning: a message's length is known when its turn comes, in one pass.
//!
//! Whoever writes a message therefore writes its fields in descending order, elements of a list last one first.

use arrow_array::types::UInt32Type;

use super::input::{Failure, Numbers, Texts};

const CHUNK: usize = 32;

/// What is written stands at the end of `buf`, from `start` on.
pub struct Backward {
    buf: Vec<u8>,
    start: usize,
}

impl Backward {
    /// With a buffer to reuse; its content counts for nothing.
    pub fn new(mut buf: Vec<u8>, capacity: usize) -> Self {
        if buf.len() < capacity {
            buf.resize(capacity, 0);
        }
        let start = buf.len();
        Self { buf, start }
    }

    pub fn into_buffer(self) -> Vec<u8> {
        self.buf
    }

    pub fn written(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// How many bytes are written; give it to `close` when what follows it is complete.
    #[inline(always)]
    pub fn mark(&self) -> usize {
        self.buf.len() - self.start
    }

    /// Make everything before it, that is everything written from now on, go in front of what is there.
    #[inline(always)]
    fn room(&mut self, size: usize) -> &mut [u8] {
        if self.start < size {
            self.grow(size);
        }
        let end = self.start;
        self.start -= size;
        &mut self.buf[self.start..end]
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, size: usize) {
        let kept = self.mark();
        let old = self.buf.len();
        let new = (old * 2).max(kept + size).max(1024);
        self.buf.resize(new, 0);
        self.buf.copy_within(old - kept..old, new - kept);
        self.start = new - kept;
    }

    #[inline(always)]
    pub fn byte(&mut self, byte: u8) {
        self.room(1)[0] = byte;
    }

    #[inline(always)]
    pub fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.room(N).copy_from_slice(&bytes);
    }

    #[inline(always)]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }

    /// The last `size` bytes of `tail`. Short ones are copied in a chunk of a fixed size, which is quicker: what comes along
    /// from before them goes where the next write goes.
    #[inline(always)]
    pub fn tail(&mut self, tail: &[u8], size: usize) {
        if size <= CHUNK {
            let room = self.buf[..self.start].last_chunk_mut::<CHUNK>();
            if let (Some(room), Some(chunk)) = (room, tail.last_chunk::<CHUNK>()) {
                *room = *chunk;
                self.start -= size;
                return;
            }
        }
        self.bytes(&tail[tail.len() - size..]);
    }

    /// The place in front of what is written, and how much of it there is, for a loop to write into; `continue_at` tells
    /// where it ended.
    #[inline(always)]
    pub fn front(&mut self) -> (&mut [u8], usize) {
        (&mut self.buf, self.start)
    }

    #[inline(always)]
    pub fn continue_at(&mut self, start: usize) {
        self.start = start;
    }

    #[inline(always)]
    pub fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.byte(value as u8);
        } else if value < 0x4000 {
            self.array([value as u8 | 0x80, (value >> 7) as u8]);
        } else {
            self.long_varint(value);
        }
    }

    #[inline(never)]
    fn long_varint(&mut self, mut value: u64) {
        let size = crate::wire::varint_len(value);
        let room = self.room(size);
        for place in room.iter_mut() {
            *place = value as u8 | 0x80;
            value >>= 7;
        }
        room[size - 1] &= 0x7f;
    }

    /// Put length and tag before what was written since `mark`.
    #[inline(always)]
    pub fn close(&mut self, mark: usize, tag: u8) {
        let size = self.mark() - mark;
        if size < 0x80 {
            self.array([tag, size as u8]);
        } else {
            self.varint(size as u64);
            self.byte(tag);
        }
    }

    /// A length-delimited field.
    #[inline(always)]
    pub fn delimited(&mut self, tag: u8, content: &[u8]) {
        let mark = self.mark();
        self.bytes(content);
        self.close(mark, tag);
    }

    /// A string or bytes field, left out when empty.
    #[inline(always)]
    pub fn text(&mut self, tag: u8, content: &[u8]) {
        if !content.is_empty() {
            self.delimited(tag, content);
        }
    }

    /// A string field from a column that has a value in few rows, if in any.
    #[inline(always)]
    pub fn rare_text(&mut self, tag: u8, column: &Option<Texts<'_>>, row: usize) {
        if let Some(column) = column {
            self.text(tag, column.get(row));
        }
    }

    /// A varint field from such a column.
    #[inline(always)]
    pub fn rare_number(&mut self, tag: u8, column: &Option<Numbers<'_, UInt32Type>>, row: usize) {
        if let Some(column) = column {
            self.number(tag, u64::from(column.get(row)));
        }
    }

    /// A string field, left out when empty, of which `tail` and `size` tell as for `tail`.
    #[inline(always)]
    pub fn text_tail(&mut self, tag: u8, (tail, size): (&[u8], usize)) {
        if size != 0 {
            let mark = self.mark();
            self.tail(tail, size);
            self.close(mark, tag);
        }
    }

    /// An identifier, left out when there is none.
    #[inline(always)]
    pub fn id<const W: usize>(&mut self, tag: u8, id: Option<&[u8; W]>) {
        if let Some(id) = id {
            self.array(*id);
            self.array([tag, W as u8]);
        }
    }

    /// A varint field, left out when 0. 32-bit signed types are widened by their caller.
    #[inline(always)]
    pub fn number(&mut self, tag: u8, value: u64) {
        if value != 0 {
            self.varint(value);
            self.byte(tag);
        }
    }

    /// A field of eight bytes, whatever its value.
    #[inline(always)]
    pub fn eight(&mut self, tag: u8, value: [u8; 8]) {
        let [a, b, c, d, e, f, g, h] = value;
        self.array([tag, a, b, c, d, e, f, g, h]);
    }

    /// A field of eight bytes, left out when all are 0: so does the official library, which writes -0.0.
    #[inline(always)]
    pub fn fixed64(&mut self, tag: u8, value: u64) {
        if value != 0 {
            self.eight(tag, value.to_le_bytes());
        }
    }

    /// A protobuf message of 2 GiB or more is read by nobody.
    pub fn check(&self) -> Result<(), Failure> {
        if self.mark() > i32::MAX as usize {
            return Err(Failure::new(format!(
                "request of {} bytes, the limit is {}",
                self.mark(),
                i32::MAX
            )));
        }
        Ok(())
    }
}
