//! What an e-mail address, a card number, an IBAN, an address of the internet or a token is: exact, in linear time.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::rules::Tables;

pub const MIN_CARD_DIGITS: usize = 12;
const MAX_CARD_DIGITS: usize = 19;

/// How `@` is written in URLs, JSON and HTML.
pub const AT_SIGNS: [&[u8]; 5] = [b"%40", b"\\u0040", b"&#64;", b"&#x40;", b"\\x40"];

/// Sizes of digit groups besides the usual fours.
const CARD_GROUPS: [&[usize]; 4] = [&[4, 6, 5], &[4, 6, 4], &[4, 5, 6], &[6, 13]];

struct Issuer {
    first: u64,
    last: u64,
    prefix_digits: usize,
    lengths: Vec<usize>,
}

/// The tables behind the shapes.
pub struct Shapes {
    issuers: Vec<Issuer>,
    /// Per country (26 × 26): kinds of the characters after the check digits; empty: no IBAN country.
    ibans: Vec<Vec<u8>>,
    not_domains: Vec<Vec<u8>>,
}

type Found = (usize, usize);

impl Shapes {
    pub fn new(tables: &Tables) -> Result<Self, String> {
        let mut issuers = Vec::with_capacity(tables.issuers.len());
        for (first, last, lengths) in &tables.issuers {
            let number = |text: &str| {
                text.parse()
                    .map_err(|_| format!("issuer {text}: expected digits"))
            };
            if first.len() != last.len() || first.len() > MIN_CARD_DIGITS {
                return Err(format!(
                    "issuers {first}-{last}: expected prefixes of one length"
                ));
            }
            issuers.push(Issuer {
                first: number(first)?,
                last: number(last)?,
                prefix_digits: first.len(),
                lengths: lengths.clone(),
            });
        }
        let mut ibans = vec![Vec::new(); 26 * 26];
        for (country, structure) in &tables.ibans {
            let slot = match country.as_bytes() {
                &[a, b] => country_slot(a, b),
                _ => None,
            };
            let slot =
                slot.ok_or_else(|| format!("IBAN country {country}: expected two letters"))?;
            ibans[slot] = account_kinds(structure).ok_or_else(|| {
                format!("IBAN {country}: structure {structure}: expected such as a4n14")
            })?;
        }
        let not_domains = tables
            .not_domains
            .iter()
            .map(|d| d.to_ascii_lowercase().into_bytes())
            .collect();
        Ok(Self {
            issuers,
            ibans,
            not_domains,
        })
    }

    // E-mail

    /// The address around an at sign of `width` bytes at `at`.
    ///
    /// Local part: letters, digits, `.`, `_`, `%`, `+`, `-`, an apostrophe between letters, anything beyond ASCII (RFC
    /// 6531) and what of these is percent-encoded. The rarer characters of RFC 5322 (`/`, `=`, `?` …) are delimiters in
    /// telemetry more often than parts of names. Domain: at least two labels, the last of two letters or more.
    pub fn email(&self, value: &[u8], at: usize, width: usize) -> Option<Found> {
        let found = self.email_among(value, at, width, true)?;
        if value[found.0..found.1].is_ascii() || std::str::from_utf8(value).is_ok() {
            return Some(found);
        }
        // Not text: bytes beyond ASCII are no letters here.
        self.email_among(value, at, width, false)
    }

    fn email_among(&self, value: &[u8], at: usize, width: usize, wide: bool) -> Option<Found> {
        let start = local_part(&value[..at], wide)?;
        let end = self.domain(value, at + width, wide)?;
        Some((start, end))
    }

    fn domain(&self, value: &[u8], start: usize, wide: bool) -> Option<usize> {
        let is_label =
            |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || (wide && b >= 0x80);
        let mut labels: Vec<Range<usize>> = Vec::new();
        let mut from = start;
        loop {
            let mut to = from;
            while to < value.len() && is_label(value[to]) {
                to += 1;
            }
            if to == from {
                break;
            }
            labels.push(from..to);
            if to < value.len() && value[to] == b'.' {
                from = to + 1;
            } else {
                break;
            }
        }
        let is_number = |r: &Range<usize>| value[r.clone()].iter().all(u8::is_ascii_digit);
        if labels.len() > 2 && is_number(&labels[0]) && is_number(&labels[1]) {
            return None; // a version: package@1.2.3-beta.x
        }
        if labels.first().is_some_and(|r| value[r.start] == b'-') {
            return None;
        }
        while labels.len() > 1 {
            let last = labels.pop()?;
            let label = &value[last.clone()];
            if self
                .not_domains
                .iter()
                .any(|d| label.eq_ignore_ascii_case(d))
            {
                continue;
            }
            if label.len() > 4 && label[..4].eq_ignore_ascii_case(b"xn--") {
                return Some(last.end);
            }
            let letters = label
                .iter()
                .take_while(|b| b.is_ascii_alphabetic() || **b >= 0x80)
                .count();
            if letters >= 2 {
                return Some(last.start + letters);
            }
        }
        None
    }

    // Payment cards

    /// Digits alone, a known issuer, a length it uses, and the check digit (ISO/IEC 7812).
    pub fn is_card_number(&self, digits: &[u8]) -> bool {
        (MIN_CARD_DIGITS..=MAX_CARD_DIGITS).contains(&digits.len())
            && digits.iter().all(u8::is_ascii_digit)
            && self.issuers.iter().any(|i| i.issued(digits))
            && luhn(digits)
    }

    /// Call `f` with each card number, written in one piece or in groups parted by single spaces or dashes.
    pub fn cards(&self, value: &[u8], mut f: impl FnMut(Found)) {
        let is_part = |b: u8| b.is_ascii_digit() || b == b' ' || b == b'-';
        // A run of n parts covers a multiple of every stride up to n: looking at one byte in twelve misses none.
        let mut probe = MIN_CARD_DIGITS - 1;
        let mut floor = 0;
        while probe < value.len() {
            if !is_part(value[probe]) {
                probe += MIN_CARD_DIGITS;
                continue;
            }
            let mut start = probe;
            while start > floor && is_part(value[start - 1]) {
                start -= 1;
            }
            let mut end = probe + 1;
            while end < value.len() && is_part(value[end]) {
                end += 1;
            }
            if end - start >= MIN_CARD_DIGITS {
                self.cards_in_run(value, start, end, &mut f);
            }
            floor = end;
            probe = end + MIN_CARD_DIGITS;
        }
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

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

/// The text ends with `%XX`, or with a backslash and a letter such as `\n`: what follows begins anew.
fn ends_with_escape(text: &[u8]) -> bool {
    match text {
        [.., b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => true,
        [.., b'\\', b'b' | b'f' | b'n' | b'r' | b't'] => true,
        _ => false,
    }
}

fn local_part(before: &[u8], wide: bool) -> Option<usize> {
    let mut start = before.len();
    while start > 0 {
        let b = before[start - 1];
        let escape = start >= 3
            && before[start - 3] == b'%'
            && before[start - 2].is_ascii_hexdigit()
            && b.is_ascii_hexdigit();
        if escape {
            // Percent-encoded: part of the name only when the encoded character would be.
            if !matches!(
                &before[start - 2..start],
                b"2B" | b"2b" | b"2E" | b"2e" | b"2D" | b"2d" | b"5F" | b"5f"
            ) {
                break;
            }
            start -= 3;
            continue;
        }
        let part = b.is_ascii_alphanumeric()
            || matches!(b, b'.' | b'_' | b'%' | b'+' | b'-')
            || (wide && b >= 0x80)
            || (b == b'\''
                && start >= 2
                && start < before.len()
                && before[start - 2].is_ascii_alphanumeric());
        if !part {
            break;
        }
        start -= 1;
    }
    while start < before.len() && matches!(before[start], b'.' | b'-' | b'\'') {
        start += 1;
    }
    (start < before.len()).then_some(start)
}

/// An address that does not depend on how it was written, so that its hash does not either.
pub fn canonical_email(text: &[u8]) -> Vec<u8> {
    for at in AT_SIGNS {
        if let Some(position) = memchr::memmem::find(text, at) {
            let mut out = text[..position].to_ascii_lowercase();
            out.push(b'@');
            out.extend(text[position + at.len()..].to_ascii_lowercase());
            return out;
        }
    }
    text.to_ascii_lowercase()
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

fn country_slot(a: u8, b: u8) -> Option<usize> {
    let (a, b) = (a.to_ascii_uppercase(), b.to_ascii_uppercase());
    (a.is_ascii_uppercase() && b.is_ascii_uppercase())
        .then(|| usize::from(a - b'A') * 26 + usize::from(b - b'A'))
}

/// "a4n14" -> one kind per character.
fn account_kinds(structure: &str) -> Option<Vec<u8>> {
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

const ONES: u64 = 0x0101_0101_0101_0101;

/// One bit per byte of the word: (letters, digits).
#[inline]
fn classes(word: u64) -> (u64, u64) {
    const HIGH: u64 = 0x80 * ONES;
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let digit = word ^ (0x30 * ONES);
    let digits = !((digit & !HIGH) + (0x76 * ONES)) & !digit & HIGH;
    let letter = (word | (0x20 * ONES)) ^ (0x60 * ONES);
    let low = letter & !HIGH;
    let letters = (low + (0x7f * ONES)) & !(low + (0x65 * ONES)) & !letter & HIGH;
    let bits = |mask: u64| (mask >> 7).wrapping_mul(GATHER) >> 56;
    (bits(letters), bits(digits))
}

/// Call `f` with each position where two letters and two digits stand, as every IBAN begins.
pub fn letter_pairs_before_digits(buffer: &[u8], from: usize, to: usize, mut f: impl FnMut(usize)) {
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
        let (mut letters, mut digits) = (0_u64, 0_u64);
        for (index, chunk) in source.chunks_exact(8).enumerate() {
            let mut word = [0_u8; 8];
            word.copy_from_slice(chunk);
            let (l, d) = classes(u64::from_le_bytes(word));
            letters |= l << (8 * index);
            digits |= d << (8 * index);
        }
        let mut hits = letters & (letters >> 1) & (digits >> 2) & (digits >> 3);
        while hits != 0 {
            f(at + hits.trailing_zeros() as usize);
            hits &= hits - 1;
        }
        // Three bytes again: a start there had no room for its digits.
        at += 61;
    }
}

/// Call `f` with each dotted quad that is not part of a longer dotted number.
pub fn ipv4(value: &[u8], mut f: impl FnMut(Found)) {
    runs(
        value,
        |b| b.is_ascii_digit() || b == b'.',
        b'.',
        |start, end| {
            let before = value[..start]
                .last()
                .is_some_and(|b| is_word(*b) || *b == b'_');
            let before = before && !ends_with_escape(&value[..start]);
            let after = value.get(end).is_some_and(|b| is_word(*b) || *b == b'_');
            let text = value[start..end]
                .strip_suffix(b".")
                .unwrap_or(&value[start..end]);
            if !before && !after && parse::<Ipv4Addr>(text) {
                f((start, start + text.len()));
            }
        },
    );
}

/// Call `f` with each IPv6 address (RFC 4291), an embedded IPv4 address included.
pub fn ipv6(value: &[u8], mut f: impl FnMut(Found)) {
    runs(
        value,
        |b| b.is_ascii_hexdigit() || b == b':' || b == b'.',
        b':',
        |start, end| {
            let before = value[..start].last().is_some_and(|b| is_word(*b));
            let after = value.get(end).is_some_and(|b| is_word(*b));
            if before || after || end - start < 3 {
                return;
            }
            let mut text = &value[start..end];
            while !parse::<Ipv6Addr>(text) {
                match text.split_last() {
                    // A sentence may end behind it: "from 2001:db8::1: refused".
                    Some((b'.' | b':', shorter)) => text = shorter,
                    _ => return,
                }
            }
            // "::" alone and times such as "::1" in C++ names say nothing about anybody.
            if text.iter().filter(|b| b.is_ascii_hexdigit()).count() > 1 {
                f((start, start + text.len()));
            }
        },
    );
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|t| t.parse::<T>().is_ok())
}

/// Maximal runs of the class that hold the byte `inside`.
fn runs(value: &[u8], class: impl Fn(u8) -> bool, inside: u8, mut f: impl FnMut(usize, usize)) {
    let mut next = 0;
    while let Some(hit) = memchr::memchr(inside, &value[next..]) {
        let at = next + hit;
        let mut start = at;
        while start > next && class(value[start - 1]) {
            start -= 1;
        }
        let mut end = at + 1;
        while end < value.len() && class(value[end]) {
            end += 1;
        }
        f(start, end);
        next = end;
    }
}

/// Base64 in either alphabet, padding optional; None when it is neither.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text
        .strip_suffix(b"==")
        .or(text.strip_suffix(b"="))
        .unwrap_or(text);
    if text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for b in text {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

/// The part before the first dot is a JSON object that names an algorithm (RFC 7515, 4.1.1).
pub fn is_jwt(text: &[u8]) -> bool {
    let Some(header) = text.split(|b| *b == b'.').next().and_then(base64) else {
        return false;
    };
    let header = header.trim_ascii();
    let Some(name) = memchr::memmem::find(header, b"\"alg\"") else {
        return false;
    };
    header.first() == Some(&b'{')
        && header.last() == Some(&b'}')
        && std::str::from_utf8(header).is_ok()
        && header[name + 5..].trim_ascii_start().first() == Some(&b':')
}

/// Base64 of printable `user:password` (RFC 7617).
pub fn is_basic_credentials(text: &[u8]) -> bool {
    base64(text).is_some_and(|plain| {
        plain.contains(&b':')
            && std::str::from_utf8(&plain).is_ok_and(|t| !t.chars().any(char::is_control))
    })
}

/// An opaque token rather than a word: twelve characters with letters and digits, or at least twenty.
pub fn is_token(text: &[u8]) -> bool {
    let digits = text.iter().any(u8::is_ascii_digit);
    let letters = text.iter().any(u8::is_ascii_alphabetic);
    (text.len() >= 12 && digits && letters) || text.len() >= 20
}
