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
/// Keys of up to so many bytes are all in their `Ends`.
const ENDS_BYTES: usize = 32;

/// Length and both ends of a key, which overlap in a short one: two comparisons instead of a call for one of any length.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ends {
    len: usize,
    first: u128,
    last: u128,
}

impl Ends {
    #[inline(always)]
    fn of(key: &[u8]) -> Self {
        let (first, last) = if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk())
        {
            (u128::from_le_bytes(*first), u128::from_le_bytes(*last))
        } else if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
            let word = |bytes: &[u8; 8]| u128::from(u64::from_le_bytes(*bytes));
            (word(first), word(last))
        } else {
            let word = |word: u128, byte: &u8| word << 8 | u128::from(*byte);
            (key.iter().fold(0, word), 0)
        };
        Self {
            len: key.len(),
            first,
            last,
        }
    }

    #[inline(always)]
    fn slot(&self) -> usize {
        let mixed = (self.first as u64).rotate_left(29)
            ^ (self.last >> 64) as u64
            ^ self.last as u64
            ^ self.len as u64;
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
    }
}

#[derive(Clone)]
struct Known {
    ends: Ends,
    verdict: Verdict,
    /// The key, when it is not all in `ends`.
    key: Box<[u8]>,
}

/// A direct-mapped cache: bounded, one comparison per look-up.
pub struct KeyCache {
    slots: Vec<Option<Known>>,
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
        let ends = Ends::of(key);
        if let Some(known) = &self.slots[ends.slot() % SLOTS] {
            if known.ends == ends && (key.len() <= ENDS_BYTES || *known.key == *key) {
                return known.verdict;
            }
        }
        self.find_out(engine, key, ends)
    }

    #[cold]
    fn find_out(&mut self, engine: &Engine, key: &[u8], ends: Ends) -> Verdict {
        engine.scan_one(key, &mut self.found);
        let verdict = Verdict {
            rule: engine.key_rule(key),
            sensitive: !self.found.is_empty(),
        };
        // A sensitive key is judged anew each time rather than kept in memory.
        if key.len() <= MAX_KEY_BYTES && !verdict.sensitive {
            let rest = if key.len() > ENDS_BYTES { key } else { &[] };
            self.slots[ends.slot() % SLOTS] = Some(Known {
                ends,
                verdict,
                key: rest.into(),
            });
        }
        verdict
    }
}
