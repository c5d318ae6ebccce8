//! Parts of Arrow arrays under construction: offsets and bits.

use arrow_buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

use crate::column::{broken, Run};

/// Offsets of a list, text or binary array under construction.
pub struct Offsets(Vec<i32>);

impl Offsets {
    pub fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self(offsets)
    }

    pub fn last(&self) -> usize {
        self.0.last().map_or(0, |last| *last as usize)
    }

    /// Append one value of `len`.
    #[inline]
    pub fn push(&mut self, len: usize) -> Result<(), ArrowError> {
        let end = i32::try_from(self.last() + len).map_err(|_| too_large())?;
        self.0.push(end);
        Ok(())
    }

    /// Append the lengths of a run; returns where its values start and end in the source.
    #[inline]
    pub fn extend(&mut self, from: &[i32], run: &Run) -> Result<(usize, usize), ArrowError> {
        let first = run.start as usize;
        let found = from
            .get(first..=first + run.len as usize)
            .ok_or_else(|| broken("a row beyond the end of its column"))?;
        let (start, end) = (found[0], found[found.len() - 1]);
        if start < 0 || end < start {
            return Err(broken("offsets that do not increase"));
        }
        let shift = self.last() as i64 - i64::from(start);
        if i64::from(end) + shift > i64::from(i32::MAX) {
            return Err(too_large());
        }
        // All offsets lie between the two just checked, or `finish` refuses them.
        self.0.extend(
            found[1..]
                .iter()
                .map(|offset| offset.wrapping_add(shift as i32)),
        );
        Ok((start as usize, end as usize))
    }

    pub fn finish(self) -> Result<OffsetBuffer<i32>, ArrowError> {
        if self.0.windows(2).any(|pair| pair[0] > pair[1]) {
            return Err(broken("offsets that do not increase"));
        }
        Ok(OffsetBuffer::new(ScalarBuffer::from(self.0)))
    }
}

#[cold]
pub fn too_large() -> ArrowError {
    ArrowError::InvalidArgumentError(
        "one column would hold more than 2 GiB: use smaller batches".into(),
    )
}

/// Bits appended up to 64 at a time, from any bit offset.
pub struct BitWriter {
    words: Vec<u64>,
    word: u64,
    filled: u32,
}

impl BitWriter {
    pub fn new(bits: usize) -> Self {
        Self {
            words: Vec::with_capacity(bits.div_ceil(64)),
            word: 0,
            filled: 0,
        }
    }

    /// Append the lowest `count` bits of `bits`; the others are zero, and `count` is at most 64.
    #[inline]
    pub fn push(&mut self, bits: u64, count: u32) {
        self.word |= bits << self.filled;
        let filled = self.filled + count;
        if filled < 64 {
            self.filled = filled;
            return;
        }
        self.words.push(self.word);
        let used = 64 - self.filled;
        self.word = if used < 64 { bits >> used } else { 0 };
        self.filled = filled - 64;
    }

    pub fn extend(
        &mut self,
        bits: &BooleanBuffer,
        start: usize,
        len: usize,
    ) -> Result<(), ArrowError> {
        if start + len > bits.len() {
            return Err(broken("a row beyond the end of its bitmap"));
        }
        let bytes = bits.values();
        let (mut at, mut left) = (bits.offset() + start, len);
        while left > 0 {
            let count = left.min(56) as u32;
            let byte = at / 8;
            let word = match bytes.get(byte..).and_then(|rest| rest.first_chunk::<8>()) {
                Some(chunk) => u64::from_le_bytes(*chunk),
                None => {
                    let rest = bytes.get(byte..).unwrap_or_default();
                    rest.iter()
                        .rev()
                        .fold(0, |word, byte| word << 8 | u64::from(*byte))
                }
            };
            self.push(word >> (at % 8) & ((1 << count) - 1), count);
            at += count as usize;
            left -= count as usize;
        }
        Ok(())
    }

    pub fn extend_ones(&mut self, len: usize) {
        let mut left = len;
        while left > 0 {
            let count = left.min(56) as u32;
            self.push((1 << count) - 1, count);
            left -= count as usize;
        }
    }

    pub fn finish(mut self) -> Buffer {
        if self.filled > 0 {
            self.words.push(self.word);
        }
        Buffer::from_vec(self.words)
    }
}
