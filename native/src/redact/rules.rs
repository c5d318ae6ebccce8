//! What to look for and what to write instead, compiled once from the settings.

use std::collections::HashSet;

use hmac_sha256::HMAC;
use regex_automata::meta::Regex;

use super::numbers;
use super::patterns::{Pattern, TRIES};
use super::scan::{Match, Scanner};
use super::shapes::{self, Shapes};

/// (name, label, action, keep_last, shape, pattern, check, keywords)
pub type RuleSpec = (
    String,
    String,
    String,
    usize,
    String,
    String,
    String,
    Vec<String>,
);
/// (name, glob, label, action)
pub type KeySpec = (String, String, String, String);

pub struct Tables {
    /// (first number, last number, lengths in digits) of card issuers.
    pub issuers: Vec<(String, String, Vec<usize>)>,
    /// (country, structure of the account number) such as ("GB", "a4n14").
    pub ibans: Vec<(String, String)>,
    /// Last labels that make `name@host.label` something else than an address.
    pub not_domains: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Mask,
    Hash,
    Delete,
    /// Key rules only: leave the value alone.
    Keep,
}

impl Action {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "mask" => Ok(Self::Mask),
            "hash" => Ok(Self::Hash),
            "delete" => Ok(Self::Delete),
            "keep" => Ok(Self::Keep),
            _ => Err(format!("unknown action {text}")),
        }
    }
}

pub enum Shape {
    Email,
    Card,
    Iban,
    Ipv4,
    Ipv6,
    UrlPassword,
    Pattern(Pattern),
}

pub struct Rule {
    name: String,
    label: String,
    action: Action,
    keep_last: usize,
    pub shape: Shape,
}

pub struct KeyRule {
    name: String,
    label: String,
    pub action: Action,
}

/// What becomes of a value.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Removed,
    Replaced(Vec<u8>),
}

pub struct Engine {
    pub rules: Vec<Rule>,
    pub key_rules: Vec<KeyRule>,
    key_globs: Option<Regex>,
    scanner: Scanner,
    shapes: Shapes,
    hash_key: Vec<u8>,
    hash_digits: usize,
    skipped_places: HashSet<String>,
    /// Pattern rules that the decimal form of a number can match.
    number_patterns: Vec<u16>,
    card: Option<u16>,
}

impl Engine {
    pub fn new(
        rules: Vec<RuleSpec>,
        keys: Vec<KeySpec>,
        hash_key: Vec<u8>,
        hash_digits: usize,
        tables: Tables,
        skipped_places: Vec<String>,
    ) -> Result<Self, String> {
        if rules.len() + keys.len() >= u16::MAX as usize {
            return Err("too many rules".into());
        }
        let mut compiled = Vec::with_capacity(rules.len());
        for (name, label, action, keep_last, shape, pattern, check, keywords) in rules {
            let shape = match shape.as_str() {
                "email" => Shape::Email,
                "card" => Shape::Card,
                "iban" => Shape::Iban,
                "ipv4" => Shape::Ipv4,
                "ipv6" => Shape::Ipv6,
                "url_password" => Shape::UrlPassword,
                "pattern" => Shape::Pattern(
                    Pattern::new(pattern, &check, keywords).map_err(|e| format!("{name}: {e}"))?,
                ),
                _ => return Err(format!("{name}: unknown shape {shape}")),
            };
            compiled.push(Rule {
                name,
                label,
                action: Action::parse(&action)?,
                keep_last,
                shape,
            });
        }
        let mut key_rules = Vec::with_capacity(keys.len());
        let mut globs = Vec::with_capacity(keys.len());
        for (name, glob, label, action) in keys {
            globs.push(glob_to_regex(&glob));
            key_rules.push(KeyRule {
                name,
                label,
                action: Action::parse(&action)?,
            });
        }
        let needs_key = compiled.iter().any(|r| r.action == Action::Hash)
            || key_rules.iter().any(|r| r.action == Action::Hash);
        if needs_key && hash_key.is_empty() {
            return Err("the action hash needs a key".into());
        }
        let key_globs = if globs.is_empty() {
            None
        } else {
            Some(Regex::new_many(&globs).map_err(|e| e.to_string())?)
        };
        let number_patterns = (0_u16..)
            .zip(&compiled)
            .filter(|(_, r)| matches!(&r.shape, Shape::Pattern(p) if p.may_match_number()))
            .map(|(i, _)| i)
            .collect();
        let card = compiled
            .iter()
            .position(|r| matches!(r.shape, Shape::Card))
            .map(|i| i as u16);
        Ok(Self {
            scanner: Scanner::new(&compiled)?,
            shapes: Shapes::new(&tables)?,
            rules: compiled,
            key_rules,
            key_globs,
            hash_key,
            hash_digits: hash_digits.clamp(8, 64),
            skipped_places: skipped_places.into_iter().collect(),
            number_patterns,
            card,
        })
    }

    pub fn is_skipped(&self, place: &str) -> bool {
        self.skipped_places.contains(place)
    }

    /// Name of a rule; key rules are numbered after the others.
    pub fn name(&self, rule: u16) -> &str {
        let rule = rule as usize;
        match self.rules.get(rule) {
            Some(found) => &found.name,
            None => &self.key_rules[rule - self.rules.len()].name,
        }
    }

    pub fn key_rule(&self, key: &[u8]) -> Option<u16> {
        let found = self.key_globs.as_ref()?.find(key)?;
        Some(found.pattern().as_usize() as u16)
    }

    pub fn scan<S: super::scan::Segments + ?Sized>(
        &self,
        buffer: &[u8],
        segments: &S,
        out: &mut Vec<Match>,
    ) {
        self.scanner
            .scan(&self.rules, &self.shapes, buffer, segments, out);
    }

    pub fn scan_one(&self, value: &[u8], out: &mut Vec<Match>) {
        let segments: &[(usize, usize)] = &[(0, value.len())];
        self.scan(value, segments, out);
    }

    /// Whether whole numbers other than card numbers must be looked at as text.
    #[inline]
    pub fn is_plain_int(&self, value: i64) -> bool {
        self.number_patterns.is_empty() && (self.card.is_none() || !numbers::has_card_length(value))
    }

    #[inline]
    pub fn is_plain_double(&self, value: f64) -> bool {
        self.number_patterns.is_empty() && (self.card.is_none() || value.abs() < 1e11)
    }

    /// What a whole number becomes, and the rule that says so; None when it may stay.
    pub fn number(&self, text: &str) -> Option<(Outcome, u16)> {
        let bytes = text.as_bytes();
        if let Some(rule) = self.card {
            let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
            if self.shapes.is_card_number(digits) {
                return Some((self.whole(rule, digits), rule));
            }
        }
        self.number_patterns.iter().find_map(|&rule| {
            let Shape::Pattern(pattern) = &self.rules[rule as usize].shape else {
                return None;
            };
            let mut hit = false;
            pattern.each(bytes, 0, TRIES, |_| hit = true);
            hit.then(|| (self.whole(rule, bytes), rule))
        })
    }

    fn whole(&self, rule: u16, text: &[u8]) -> Outcome {
        if self.rules[rule as usize].action == Action::Delete {
            return Outcome::Removed;
        }
        let mut out = Vec::new();
        self.write_replacement(rule, text, true, &mut out);
        Outcome::Replaced(out)
    }

    /// Build what a value with these matches becomes; `count` is told each rule that acted.
    pub fn apply(&self, value: &[u8], matches: &[Match], mut count: impl FnMut(u16)) -> Outcome {
        let deleting = |m: &&Match| self.rules[m.rule as usize].action == Action::Delete;
        if let Some(first) = matches.iter().find(deleting) {
            count(first.rule);
            return Outcome::Removed;
        }
        let mut out = Vec::with_capacity(value.len() + 16);
        let mut copied = 0;
        let mut next = 0;
        while next < matches.len() {
            // Overlapping matches become one: the first, longest one names it, its end is the furthest of all.
            let first = matches[next];
            let mut end = first.end;
            next += 1;
            while next < matches.len() && matches[next].start < end {
                end = end.max(matches[next].end);
                next += 1;
            }
            let (start, stop) = (first.start as usize, end as usize);
            out.extend_from_slice(&value[copied..start]);
            self.write_replacement(first.rule, &value[start..stop], end == first.end, &mut out);
            count(first.rule);
            copied = stop;
        }
        out.extend_from_slice(&value[copied..]);
        Outcome::Replaced(out)
    }

    fn write_replacement(&self, rule: u16, text: &[u8], exact: bool, out: &mut Vec<u8>) {
        let rule = &self.rules[rule as usize];
        let canonical = match rule.shape {
            Shape::Email => shapes::canonical_email(text),
            Shape::Card if exact => text.iter().copied().filter(u8::is_ascii_digit).collect(),
            Shape::Iban if exact => text
                .iter()
                .filter(|b| b.is_ascii_alphanumeric())
                .map(u8::to_ascii_uppercase)
                .collect(),
            _ => text.to_vec(),
        };
        if rule.action == Action::Hash {
            self.write_hash(&canonical, out);
            return;
        }
        let kept = if exact {
            last_characters(&canonical, rule.keep_last)
        } else {
            &[]
        };
        out.push(b'[');
        out.extend_from_slice(rule.label.as_bytes());
        if !kept.is_empty() {
            out.push(b':');
            out.extend_from_slice(kept);
        }
        out.push(b']');
    }

    fn write_hash(&self, text: &[u8], out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digest = HMAC::mac(text, &self.hash_key);
        let digits = digest
            .iter()
            .flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        out.extend(digits.take(self.hash_digits));
    }

    pub fn deletes(&self, key_rule: u16) -> bool {
        self.key_rules[key_rule as usize].action == Action::Delete
    }

    /// What a key rule makes of a whole value; None when it keeps it.
    pub fn apply_key_rule(&self, rule: u16, content: impl FnOnce() -> Vec<u8>) -> Option<Outcome> {
        let rule = &self.key_rules[rule as usize];
        let mut out = Vec::new();
        match rule.action {
            Action::Keep => return None,
            Action::Delete => return Some(Outcome::Removed),
            Action::Hash => self.write_hash(&content(), &mut out),
            Action::Mask => {
                out.push(b'[');
                out.extend_from_slice(rule.label.as_bytes());
                out.push(b']');
            }
        }
        Some(Outcome::Replaced(out))
    }

    pub fn find(&self, text: &[u8]) -> Vec<(usize, usize, String)> {
        let mut matches = Vec::new();
        self.scan_one(text, &mut matches);
        matches
            .iter()
            .map(|m| {
                (
                    m.start as usize,
                    m.end as usize,
                    self.name(m.rule).to_owned(),
                )
            })
            .collect()
    }

    pub fn replace(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut matches = Vec::new();
        self.scan_one(text, &mut matches);
        match self.apply(text, &matches, |_| ()) {
            Outcome::Removed => None,
            Outcome::Replaced(clean) => Some(clean),
        }
    }
}

/// The last characters to show, none when that would be half of the text or more.
fn last_characters(text: &[u8], count: usize) -> &[u8] {
    let Ok(text) = std::str::from_utf8(text) else {
        return &[];
    };
    if count == 0 || text.chars().count() < 2 * count + 1 {
        return &[];
    }
    match text.char_indices().rev().nth(count - 1) {
        Some((start, _)) => &text.as_bytes()[start..],
        None => &[],
    }
}

fn glob_to_regex(glob: &str) -> String {
    let mut out = String::from(r"(?is)\A");
    for c in glob.chars() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            _ => out.push_str(&regex_syntax::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out + r"\z"
}
