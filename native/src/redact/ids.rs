//! Identifiers: bytes that ought to be chance, and may be text all the same.

use std::sync::Arc;

use arrow_array::{Array, BinaryArray, FixedSizeBinaryArray};
use arrow_buffer::{MutableBuffer, NullBuffer};

use super::columns::{replaced, Pass, Walked, SAME};
use super::nested;

impl Pass<'_> {
    /// Identifiers of the regular width: judged only when they are text, which chance bytes are not. Emptied when found.
    pub fn regular_ids(
        &mut self,
        array: &FixedSizeBinaryArray,
        place: &str,
    ) -> Result<Walked, String> {
        if self.engine.is_skipped(place) || array.is_empty() {
            return Ok(SAME);
        }
        let width = usize::try_from(array.value_length()).unwrap_or(0);
        let content = &array.value_data()[..width * array.len()];
        if width == 0 {
            return Ok(SAME);
        }
        let texts: Vec<(usize, usize)> = content
            .chunks_exact(width)
            .enumerate()
            .filter(|(_, id)| is_printable(id))
            .map(|(row, _)| (row * width, (row + 1) * width))
            .collect();
        let hits = self.hits(content, &texts, place, |segment| {
            array.is_valid(texts[segment].0 / width)
        });
        if hits.is_empty() {
            return Ok(SAME);
        }
        let mut content = content.to_vec();
        let mut valid: Vec<bool> = (0..array.len()).map(|row| array.is_valid(row)).collect();
        for segment in hits {
            let (start, end) = texts[segment];
            content[start..end].fill(0);
            valid[start / width] = false;
        }
        let ids = FixedSizeBinaryArray::try_new(
            array.value_length(),
            MutableBuffer::from(content).into(),
            Some(NullBuffer::from(valid)),
        )
        .map_err(|_| format!("{place}: the redacted identifiers do not fit"))?;
        Ok(Walked {
            array: Some(Arc::new(ids)),
            failed: Vec::new(),
        })
    }

    /// Identifiers of any width, in links and exemplars. Emptied when found.
    pub fn ids(&mut self, array: &BinaryArray, place: &str) -> Result<Walked, String> {
        if self.engine.is_skipped(place) {
            return Ok(SAME);
        }
        let offsets = array.value_offsets();
        let content = array.value_data();
        let mut rows = Vec::new();
        let mut texts = Vec::new();
        for (row, bounds) in offsets.windows(2).enumerate() {
            let (start, end) = (bounds[0] as usize, bounds[1] as usize);
            let regular = matches!(end - start, 8 | 16);
            if start < end && (!regular || is_printable(&content[start..end])) {
                rows.push(row);
                texts.push((start, end));
            }
        }
        let hits = self.hits(content, &texts, place, |segment| {
            array.is_valid(rows[segment])
        });
        let edits: Vec<(usize, Option<Vec<u8>>)> = hits
            .iter()
            .map(|segment| {
                let row = rows[*segment];
                (row, array.is_valid(row).then(Vec::new))
            })
            .collect();
        replaced(array, &edits)
    }

    /// Protobuf fields that hold identifiers: those found in are left out.
    pub fn irregular_ids(&mut self, array: &BinaryArray, place: &str) -> Result<Walked, String> {
        let offsets = array.value_offsets();
        if self.engine.is_skipped(place) || offsets[0] == offsets[array.len()] {
            return Ok(SAME);
        }
        let content = array.value_data();
        let mut failed = Vec::new();
        let mut edits = Vec::new();
        for (row, bounds) in offsets.windows(2).enumerate() {
            let message = &content[bounds[0] as usize..bounds[1] as usize];
            if message.is_empty() {
                continue;
            }
            let Ok(all) = nested::identifiers(message) else {
                failed.push(row as u32);
                continue;
            };
            let texts: Vec<(usize, usize)> = all.iter().map(|(_, s, e)| (*s, *e)).collect();
            let valid = array.is_valid(row);
            let hits = self.hits(message, &texts, place, |_| valid);
            if !hits.is_empty() {
                let rest = nested::without_identifiers(message, &all, &hits);
                edits.push((row, (valid && !rest.is_empty()).then_some(rest)));
            }
        }
        let mut walked = replaced(array, &edits)?;
        walked.failed = failed;
        Ok(walked)
    }

    /// Which of the texts hold something, each counted once by its first match if `is_live`.
    fn hits(
        &mut self,
        buffer: &[u8],
        texts: &[(usize, usize)],
        place: &str,
        is_live: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let mut found = self.take_scratch();
        self.engine.scan(buffer, texts, &mut found);
        let mut hits = Vec::new();
        for group in found.chunk_by(|a, b| a.segment == b.segment) {
            let segment = group[0].segment as usize;
            hits.push(segment);
            if is_live(segment) {
                let place = self.place(place);
                self.count(group[0].rule, place);
            }
        }
        self.return_scratch(found);
        hits
    }
}

fn is_printable(id: &[u8]) -> bool {
    id.iter().all(|b| (0x20..0x7f).contains(b))
}
