//! Payment card numbers (ISO/IEC 7812) and IBANs (ISO 13616).

use super::shapes::{ends_with_escape, is_word, Found, Shapes};

pub const MIN_CARD_DIGITS: usize = 12;
const MAX_CARD_DIGITS: usize = 19;

/// Sizes of digit groups besides the usual fours.
const CARD_GROUPS: [&[usize]; 4] = [&[4, 6, 5], &[4, 6, 4], &[4, 5, 6], &[6, 13]];

pub struct Issuer {
    pub first: u64,
    pub last: u64,
    pub prefix_digits: usize,
    pub lengths: Vec<usize>,
}

impl Shapes {
    /// Digits alone, a known issuer, a length it uses, and the check digit (ISO/IEC 7812).
    pub fn is_card_number(&self, digits: &[u8]) -> bool {
        (MIN_CARD_DIGITS..=MAX_CARD_DIGITS).contains(&digits.len())
            && digits.iter().all(u8::is_ascii_digit)
            && self.issuers.iter().any(|i| i.issued(digits))
            && luhn(digits)
    }

    /// Call `f` with each card number in the run of digits, spaces and dashes around `at`, written in one piece or in
    /// groups parted by single spaces or dashes. What lies before `floor` has been looked at. Returns the run's end.
    pub fn cards(&self, value: &[u8], at: usize, floor: usize, mut f: impl FnMut(Found)) -> usize {
        let is_part = |b: &u8| b.is_ascii_digit() || *b == b' ' || *b == b'-';
        let before = value[floor..at].iter().rev().take_while(|b| is_part(b));
        let start = at - before.count();
        let end = at + value[at..].iter().take_while(|b| is_part(b)).count();
        self.cards_in_run(value, start, end, &mut f);
        end
    }

    fn cards_in_run(&self, value: &[u8], start: usize, end: usize, f: &mut impl FnMut(Found)) {
        let mut next = start;
        while next < end {
            if !value[next].is_ascii_digit() {
                next += 1;
                continue;
            }
            match self.card_at(value, next, end) {
                Some(stop) => {
                    f((next, stop));
                    next = stop;
                }
                None => {
                    // "%20" or "%B0" before a number: these digits belong to the escape.
                    let escaped = match &value[..next] {
                        [.., b'%'] => 2,
                        [.., b'%', a] if a.is_ascii_hexdigit() => 1,
                        _ => 0,
                    };
                    if escaped > 0
                        && value[next..end]
                            .iter()
                            .take(escaped)
                            .all(u8::is_ascii_digit)
                    {
                        next += escaped;
                        continue;
                    }
                    while next < end && value[next].is_ascii_digit() {
                        next += 1;
                    }
                }
            }
        }
    }

    /// The end of the longest card number that starts with the digit group at `start`.
    fn card_at(&self, value: &[u8], start: usize, end: usize) -> Option<usize> {
        let mut digits = [0_u8; MAX_CARD_DIGITS];
        let mut total = 0;
        let mut groups = [0_usize; 6];
        let mut count = 0;
        let mut at = start;
        let mut best = None;
        loop {
            let from = at;
            while at < end && value[at].is_ascii_digit() {
                if total == MAX_CARD_DIGITS {
                    return best;
                }
                digits[total] = value[at];
                total += 1;
                at += 1;
            }
            groups[count] = at - from;
            count += 1;
            let shaped =
                count == 1 || (total > MIN_CARD_DIGITS && is_card_grouping(&groups[..count]));
            if shaped && self.is_card_number(&digits[..total]) && is_apart(value, start, at) {
                best = Some(at);
            }
            let goes_on =
                at + 1 < end && !value[at].is_ascii_digit() && value[at + 1].is_ascii_digit();
            if !goes_on || count == groups.len() {
                return best;
            }
            at += 1;
        }
    }

    // IBAN

    #[inline]
    pub fn is_iban_country(&self, a: u8, b: u8) -> bool {
        country_slot(a, b).is_some_and(|slot| !self.ibans[slot].is_empty())
    }

    /// The IBAN (ISO 13616) at `start`: in one piece, or upper case in fours parted by spaces or dashes.
    pub fn iban(&self, value: &[u8], start: usize) -> Option<Found> {
        if start > 0 && is_word(value[start - 1]) && !ends_with_escape(&value[..start]) {
            return None;
        }
        let kinds = &self.ibans[country_slot(*value.get(start)?, *value.get(start + 1)?)?];
        let length = kinds.len() + 4;
        let lower = value[start].is_ascii_lowercase();
        let mut text = [0_u8; 40];
        let mut at = start;
        let mut separator = None;
        for index in 0..length {
            if index > 0 && index % 4 == 0 {
                let here = *value.get(at)?;
                if index == 4 && !lower && (here == b' ' || here == b'-') {
                    separator = Some(here);
                }
                if let Some(expected) = separator {
                    if here != expected {
                        return None;
                    }
                    at += 1;
                }
            }
            let here = *value.get(at)?;
            let fits = match index {
                0 | 1 => here.is_ascii_alphabetic(),
                2 | 3 => here.is_ascii_digit(),
                _ => match kinds[index - 4] {
                    b'n' => here.is_ascii_digit(),
                    b'a' => here.is_ascii_alphabetic(),
                    _ => here.is_ascii_alphanumeric(),
                },
            };
            if !fits || (here.is_ascii_alphabetic() && here.is_ascii_lowercase() != lower) {
                return None;
            }
            text[index] = here;
            at += 1;
        }
        let goes_on = value.get(at).is_some_and(|b| is_word(*b));
        (!goes_on && mod_97(&text[..length]) == 1).then_some((start, at))
    }
}

impl Issuer {
    fn issued(&self, digits: &[u8]) -> bool {
        let prefix = digits[..self.prefix_digits]
            .iter()
            .fold(0, |n, d| n * 10 + u64::from(d - b'0'));
        (self.first..=self.last).contains(&prefix) && self.lengths.contains(&digits.len())
    }
}

pub fn luhn(digits: &[u8]) -> bool {
    let mut sum = 0_u32;
    let mut double = false;
    for b in digits.iter().rev().filter(|b| b.is_ascii_digit()) {
        let digit = u32::from(b - b'0');
        sum += match digit * (1 + u32::from(double)) {
            d if d > 9 => d - 9,
            d => d,
        };
        double = !double;
    }
    sum.is_multiple_of(10)
}

#[inline]
pub fn has_card_length(value: i64) -> bool {
    value.unsigned_abs() >= 100_000_000_000
}

fn is_card_grouping(groups: &[usize]) -> bool {
    let (last, others) = match groups.split_last() {
        Some(parts) => parts,
        None => return false,
    };
    (others.iter().all(|g| *g == 4) && *last <= 4) || CARD_GROUPS.contains(&groups)
}

/// The digits in `start..end` are a number of their own: not a fraction, not part of a hexadecimal id.
fn is_apart(value: &[u8], start: usize, end: usize) -> bool {
    if let [.., whole, b'.'] = &value[..start] {
        if whole.is_ascii_digit() {
            return false;
        }
    }
    let mut left = start;
    while left > 0
        && is_word(value[left - 1])
        && !ends_with_escape(&value[..left])
        && start - left < 64
    {
        left -= 1;
    }
    if ends_with_escape(&value[..start]) {
        left = start;
    }
    let mut right = end;
    while right < value.len() && is_word(value[right]) && right - end < 64 {
        right += 1;
    }
    let around = value[left..start].iter().chain(&value[end..right]);
    let mut letters = around.filter(|b| b.is_ascii_alphabetic()).peekable();
    if letters.peek().is_none() {
        return true;
    }
    if value[left..start].ends_with(b"0x") || value[left..start].ends_with(b"0X") {
        return false;
    }
    letters.any(|b| !b.is_ascii_hexdigit())
}

pub fn country_slot(a: u8, b: u8) -> Option<usize> {
    let (a, b) = (a.to_ascii_uppercase(), b.to_ascii_uppercase());
    (a.is_ascii_uppercase() && b.is_ascii_uppercase())
        .then(|| usize::from(a - b'A') * 26 + usize::from(b - b'A'))
}

/// "a4n14" -> one kind per character.
pub fn account_kinds(structure: &str) -> Option<Vec<u8>> {
    let mut kinds = Vec::new();
    let mut rest = structure;
    while let Some(kind) = rest.bytes().next() {
        let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
        let count: usize = rest.get(1..=digits)?.parse().ok()?;
        if !matches!(kind, b'a' | b'c' | b'n') || kinds.len() + count > 30 {
            return None;
        }
        kinds.extend(std::iter::repeat_n(kind, count));
        rest = &rest[1 + digits..];
    }
    (!kinds.is_empty()).then_some(kinds)
}

fn mod_97(iban: &[u8]) -> u32 {
    let (head, account) = iban.split_at(4);
    account.iter().chain(head).fold(0, |rest, b| match b {
        b'0'..=b'9' => (rest * 10 + u32::from(b - b'0')) % 97,
        _ => (rest * 100 + u32::from(b.to_ascii_uppercase() - b'A') + 10) % 97,
    })
}

/// Call `pair` with each position where two letters and two digits stand, as every IBAN begins, and `digits` with each
/// where twelve digits stand, or four, a separator and four more: one is in every card number.
pub fn candidates(
    buffer: &[u8],
    from: usize,
    to: usize,
    mut pair: impl FnMut(usize),
    mut digits: impl FnMut(usize),
) {
    // The last eleven bytes of a window have too few behind them: the next one starts there.
    const STEP: usize = 53;
    const STARTS: u64 = (1 << STEP) - 1;
    let mut at = from;
    while at + 4 <= to {
        let mut window = [0_u8; 64];
        let source: &[u8; 64] = match buffer[at..to].first_chunk() {
            Some(chunk) => chunk,
            None => {
                window[..to - at].copy_from_slice(&buffer[at..to]);
                &window
            }
        };
        let d = digit_bits(source);
        // Two letters, then the first of two digits or more: where a run of digits starts.
        let starts = !d & !(d >> 1) & (d >> 2) & (d >> 3);
        each(starts & STARTS, |bit| {
            let at = at + bit;
            if buffer[at].is_ascii_alphabetic() && buffer[at + 1].is_ascii_alphabetic() {
                pair(at);
            }
        });
        let four = d & (d >> 1) & (d >> 2) & (d >> 3);
        if four != 0 {
            let alone = four & !(d >> 4) & (four >> 5);
            let twelve = four & (four >> 4) & (four >> 8);
            each((alone | twelve) & STARTS, |bit| {
                let at = at + bit;
                if matches!(buffer[at + 4], b' ' | b'-' | b'0'..=b'9') {
                    digits(at);
                }
            });
        }
        at += STEP;
    }
}

#[inline]
fn each(mut bits: u64, mut f: impl FnMut(usize)) {
    while bits != 0 {
        f(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// One bit per byte that is a digit; eight bytes at a time in one word.
#[inline]
fn digit_bits(window: &[u8; 64]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let mut found = [0_u64; 8];
    for (found, bytes) in found.iter_mut().zip(window.as_chunks().0) {
        // Digits become 0 to 9, the only ones that stay below 0x80 when 0x76 is added.
        let word = u64::from_le_bytes(*bytes) ^ (0x30 * ONES);
        *found = !(((word & !HIGH) + (0x76 * ONES)) | word) & HIGH;
    }
    // The product brings the high bits of the eight bytes together in its highest byte.
    let gather = |mask: u64| (mask >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    found
        .iter()
        .enumerate()
        .fold(0, |bits, (index, mask)| bits | gather(*mask) << (8 * index))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte at every position, beside every other.
    #[test]
    fn digit_bits_are_the_digits() {
        for first in 0..=255_u8 {
            let mut window = [0_u8; 64];
            for (index, byte) in window.iter_mut().enumerate() {
                *byte = first.wrapping_add((index as u8).wrapping_mul(37));
            }
            let bit = |(index, b): (usize, &u8)| u64::from(b.is_ascii_digit()) << index;
            let expected: u64 = window.iter().enumerate().map(bit).sum();
            assert_eq!(digit_bits(&window), expected);
        }
    }
}
