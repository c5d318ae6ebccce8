//! Attribute keys repeat: what was found out about one is remembered.

use super::rules::Engine;
use super::scan::Match;

/// What is to be done about an attribute because of its key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The key rule that decides about the value.
    pub rule: Option<u16>,
    /// The key itself holds sensitive text.
    pub sensitive: bool,
}

const SLOTS: usize = 1024;
const MAX_KEY_BYTES: usize = 256;

/// A direct-mapped cache: bounded, one comparison per look-up.
pub struct KeyCache {
    slots: Vec<Option<(Box<[u8]>, Verdict)>>,
    found: Vec<Match>,
}

impl KeyCache {
    pub fn new() -> Self {
        Self {
            slots: vec![None; SLOTS],
            found: Vec::new(),
        }
    }

    #[inline]
    pub fn verdict(&mut self, engine: &Engine, key: &[u8]) -> Verdict {
        let slot = slot(key);
        if let Some((known, verdict)) = &self.slots[slot] {
            if **known == *key {
                return *verdict;
            }
        }
        engine.scan_one(key, &mut self.found);
        let verdict = Verdict {
            rule: engine.key_rule(key),
            sensitive: !self.found.is_empty(),
        };
        // A sensitive key is judged anew each time rather than kept in memory.
        if key.len() <= MAX_KEY_BYTES && !verdict.sensitive {
            self.slots[slot] = Some((key.into(), verdict));
        }
        verdict
    }
}

/// Mixes the length with the first and the last eight bytes: enough to tell attribute keys apart.
#[inline]
fn slot(key: &[u8]) -> usize {
    let word = |chunk: Option<&[u8; 8]>| match chunk {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => key
            .iter()
            .fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    };
    let mixed = word(key.first_chunk()).rotate_left(29) ^ word(key.last_chunk()) ^ key.len() as u64;
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
}
