//! What an e-mail address is, and the tables behind it and behind card numbers and IBANs.

use std::ops::Range;

use super::numbers::{account_kinds, country_slot, Issuer, MIN_CARD_DIGITS};
use super::rules::Tables;

/// How `@` is written in URLs, JSON and HTML.
pub const AT_SIGNS: [&[u8]; 5] = [b"%40", b"\\u0040", b"&#64;", b"&#x40;", b"\\x40"];

/// The tables behind the shapes.
pub struct Shapes {
    pub issuers: Vec<Issuer>,
    /// Per country (26 × 26): kinds of the characters after the check digits; empty: no IBAN country.
    pub ibans: Vec<Vec<u8>>,
    not_domains: Vec<Vec<u8>>,
}

/// A byte range.
pub type Found = (usize, usize);

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
}

pub fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

/// The text ends with `%XX`, or with a backslash and a letter such as `\n`: what follows begins anew.
pub fn ends_with_escape(text: &[u8]) -> bool {
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
