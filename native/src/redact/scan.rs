//! One pass over many values that lie in one buffer.
//!
//! Cheap searches run over the whole buffer (one byte for e-mail, a vectorised multi-literal search for everything that
//! starts with a known text, classes of 64 bytes at once for runs of digits); only what they hit is judged, inside its own
//! value.

use aho_corasick::packed::{self, Searcher};
use aho_corasick::{AhoCorasick, MatchKind};
use memchr::memchr_iter;

use super::patterns::TRIES;
use super::rules::{Rule, Shape};
use super::shapes::{self, Shapes};
use super::{numbers, tokens};

/// Where the values lie in a buffer: ascending, not overlapping.
pub trait Segments {
    fn len(&self) -> usize;
    fn get(&self, index: usize) -> (usize, usize);
}

/// The offsets of an Arrow string or binary array.
pub struct Offsets<'a>(pub &'a [i32]);

impl Segments for Offsets<'_> {
    fn len(&self) -> usize {
        self.0.len().saturating_sub(1)
    }
    #[inline]
    fn get(&self, index: usize) -> (usize, usize) {
        (self.0[index] as usize, self.0[index + 1] as usize)
    }
}

impl Segments for [(usize, usize)] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }
    #[inline]
    fn get(&self, index: usize) -> (usize, usize) {
        self[index]
    }
}

/// Found text: byte range inside value number `segment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub segment: u32,
    pub start: u32,
    pub end: u32,
    pub rule: u16,
}

/// Finds the value a buffer position belongs to; positions must ascend.
struct Cursor<'a, S: Segments + ?Sized> {
    segments: &'a S,
    at: usize,
}

impl<'a, S: Segments + ?Sized> Cursor<'a, S> {
    fn new(segments: &'a S) -> Self {
        Self { segments, at: 0 }
    }

    fn find(&mut self, position: usize) -> Option<(u32, usize, usize)> {
        let total = self.segments.len();
        let mut step = 1;
        let mut low = self.at;
        let mut high = self.at;
        while high < total && self.segments.get(high).1 <= position {
            low = high + 1;
            high += step;
            step *= 2;
        }
        high = high.min(total);
        while low < high {
            let middle = (low + high) / 2;
            if self.segments.get(middle).1 <= position {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.at = low;
        if low == total {
            return None;
        }
        let (start, end) = self.segments.get(low);
        (start <= position).then_some((low as u32, start, end))
    }
}

/// A text whose presence calls for a closer look.
struct Literal {
    text: Vec<u8>,
    rule: u16,
    /// The literal stands for `@` in an address; otherwise a match of the rule's pattern begins here.
    is_at_sign: bool,
}

enum Prefilter {
    Packed(Searcher),
    Automaton(AhoCorasick),
}

impl Prefilter {
    fn new(texts: &[Vec<u8>]) -> Result<Self, String> {
        if let Some(searcher) = packed::Config::new().builder().extend(texts).build() {
            return Ok(Self::Packed(searcher));
        }
        AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(texts)
            .map(Self::Automaton)
            .map_err(|e| e.to_string())
    }

    #[inline]
    fn find(&self, buffer: &[u8], from: usize, to: usize) -> Option<(usize, usize)> {
        match self {
            Self::Packed(searcher) => searcher
                .find_in(buffer, (from..to).into())
                .map(|m| (m.start(), m.pattern().as_usize())),
            Self::Automaton(automaton) => automaton
                .find(aho_corasick::Input::new(buffer).range(from..to))
                .map(|m| (m.start(), m.pattern().as_usize())),
        }
    }
}

pub struct Scanner {
    email: Option<u16>,
    card: Option<u16>,
    iban: Option<u16>,
    ipv4: Option<u16>,
    ipv6: Option<u16>,
    url_password: Option<u16>,
    /// Searches for prefix-free texts, and for each text the literals that begin with it.
    prefilters: Vec<(Prefilter, Vec<Vec<Literal>>)>,
    keywords: Option<(AhoCorasick, Vec<u16>)>,
    /// Patterns nothing is known of: tried on every value.
    everywhere: Vec<u16>,
}

/// Shortest literal that is worth a vectorised search: of one or two bytes too many occur by chance.
const MIN_LITERAL: usize = 3;
/// Texts in one vectorised search: with twice as many it takes several times as long.
const PACK: usize = 32;
/// Literals are searched by their first bytes alone rather than in more packs than this.
const FEW_PACKS: usize = 2;
/// Beyond this many searches one automaton is quicker.
const MAX_PACKS: usize = 4;

impl Scanner {
    pub fn new(rules: &[Rule]) -> Result<Self, String> {
        let mut scanner = Self {
            email: None,
            card: None,
            iban: None,
            ipv4: None,
            ipv6: None,
            url_password: None,
            prefilters: Vec::new(),
            keywords: None,
            everywhere: Vec::new(),
        };
        let mut literals: Vec<Literal> = Vec::new();
        let mut keywords: Vec<(&str, u16)> = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            let number = number as u16;
            match &rule.shape {
                Shape::Email => {
                    scanner.email = Some(number);
                    literals.extend(shapes::AT_SIGNS.iter().map(|text| Literal {
                        text: text.to_vec(),
                        rule: number,
                        is_at_sign: true,
                    }));
                }
                Shape::Card => scanner.card = Some(number),
                Shape::Iban => scanner.iban = Some(number),
                Shape::Ipv4 => scanner.ipv4 = Some(number),
                Shape::Ipv6 => scanner.ipv6 = Some(number),
                Shape::UrlPassword => scanner.url_password = Some(number),
                Shape::Pattern(pattern) => {
                    if !pattern.keywords.is_empty() {
                        keywords.extend(pattern.keywords.iter().map(|k| (k.as_str(), number)));
                    } else if let Some(texts) = pattern.prefixes(MIN_LITERAL) {
                        literals.extend(texts.into_iter().map(|text| Literal {
                            text,
                            rule: number,
                            is_at_sign: false,
                        }));
                    } else {
                        scanner.everywhere.push(number);
                    }
                }
            }
        }
        // The search compares as many bytes as the shortest of its texts has: three would spoil it for the others.
        let (short, long): (Vec<_>, Vec<_>) = grouped(literals)
            .into_iter()
            .partition(|(text, _)| text.len() == MIN_LITERAL);
        let many = short.len() + long.len() > MAX_PACKS * PACK;
        for mut family in [short, long] {
            while !family.is_empty() {
                let pack = if many {
                    family.len()
                } else {
                    PACK.min(family.len())
                };
                let rest = family.split_off(pack);
                let (texts, groups): (Vec<_>, Vec<_>) = family.into_iter().unzip();
                scanner.prefilters.push((Prefilter::new(&texts)?, groups));
                family = rest;
            }
        }
        if !keywords.is_empty() {
            let automaton = AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .build(keywords.iter().map(|(text, _)| text))
                .map_err(|e| e.to_string())?;
            scanner.keywords = Some((automaton, keywords.iter().map(|(_, rule)| *rule).collect()));
        }
        Ok(scanner)
    }

    /// Append to `out`, ordered by value and position, everything the rules find in the values.
    pub fn scan<S: Segments + ?Sized>(
        &self,
        rules: &[Rule],
        shapes: &Shapes,
        buffer: &[u8],
        segments: &S,
        out: &mut Vec<Match>,
    ) {
        out.clear();
        if segments.len() == 0 {
            return;
        }
        let (from, to) = (segments.get(0).0, segments.get(segments.len() - 1).1);
        if from == to {
            return;
        }
        self.at_signs(shapes, buffer, from, to, segments, out);
        for (prefilter, groups) in &self.prefilters {
            let find = |at| prefilter.find(buffer, at, to);
            self.literals(rules, shapes, (buffer, from), groups, find, segments, out);
        }
        self.numbers(shapes, buffer, from, to, segments, out);
        self.keywords(rules, buffer, from, to, segments, out);
        for &rule in &self.everywhere {
            for index in 0..segments.len() {
                let (start, end) = segments.get(index);
                search_whole(rules, rule, index as u32, &buffer[start..end], out);
            }
        }
        if out.len() > 1 {
            out.sort_unstable_by_key(|m| (m.segment, m.start, std::cmp::Reverse(m.end), m.rule));
        }
    }

    /// What an at sign leads to: addresses, and passwords in URLs.
    fn at_signs<S: Segments + ?Sized>(
        &self,
        shapes: &Shapes,
        buffer: &[u8],
        from: usize,
        to: usize,
        segments: &S,
        out: &mut Vec<Match>,
    ) {
        if self.email.is_none() && self.url_password.is_none() {
            return;
        }
        let mut cursor = Cursor::new(segments);
        let mut password_end = from;
        for hit in memchr_iter(b'@', &buffer[from..to]) {
            let at = from + hit;
            let Some((segment, start, end)) = cursor.find(at) else {
                continue;
            };
            let value = &buffer[start..end];
            if let Some(rule) = self.email {
                if let Some(range) = shapes.email(value, at - start, 1) {
                    out.push(found(segment, range, rule));
                }
            }
            if let Some(rule) = self.url_password.filter(|_| at >= password_end) {
                if let Some(range) = tokens::url_password(value, at - start) {
                    password_end = start + range.1 + 1;
                    out.push(found(segment, range, rule));
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn literals<S: Segments + ?Sized>(
        &self,
        rules: &[Rule],
        shapes: &Shapes,
        (buffer, from): (&[u8], usize),
        groups: &[Vec<Literal>],
        find: impl Fn(usize) -> Option<(usize, usize)>,
        segments: &S,
        out: &mut Vec<Match>,
    ) {
        let mut cursor = Cursor::new(segments);
        let mut next = from;
        // Per rule, where its last match ended: a rule's own matches do not overlap.
        let mut ends = vec![0_usize; rules.len()];
        // Per rule, how often it failed in which value: see `Pattern::each`.
        let mut failed = vec![(u32::MAX, 0_usize); rules.len()];
        while let Some((at, group)) = find(next) {
            next = at + 1;
            let Some((segment, start, end)) = cursor.find(at) else {
                continue;
            };
            let value = &buffer[start..end];
            let position = at - start;
            for literal in &groups[group] {
                let number = literal.rule as usize;
                if !value[position..].starts_with(&literal.text) || at < ends[number] {
                    continue;
                }
                if literal.is_at_sign {
                    if let Some(range) = shapes.email(value, position, literal.text.len()) {
                        out.push(found(segment, range, literal.rule));
                    }
                } else if let Shape::Pattern(pattern) = &rules[number].shape {
                    if let Some((range, whole_end)) = pattern.at(value, position) {
                        ends[number] = start + whole_end;
                        out.push(found(segment, range, literal.rule));
                        continue;
                    }
                    let (last, failures) = &mut failed[number];
                    *failures = if *last == segment { *failures + 1 } else { 1 };
                    *last = segment;
                    if *failures == TRIES {
                        ends[number] = end;
                        pattern.each(value, position, 0, |range| {
                            out.push(found(segment, range, literal.rule));
                        });
                    }
                }
            }
        }
    }

    fn numbers<S: Segments + ?Sized>(
        &self,
        shapes: &Shapes,
        buffer: &[u8],
        from: usize,
        to: usize,
        segments: &S,
        out: &mut Vec<Match>,
    ) {
        if self.card.is_some() || self.iban.is_some() {
            let mut ibans = Vec::new();
            let mut pairs = Cursor::new(segments);
            let mut runs = Cursor::new(segments);
            let mut looked_at = from;
            numbers::candidates(
                buffer,
                from,
                to,
                |at| {
                    let Some(rule) = self.iban else { return };
                    if !shapes.is_iban_country(buffer[at], buffer[at + 1]) {
                        return;
                    }
                    if let Some((segment, start, end)) = pairs.find(at) {
                        if let Some(range) = shapes.iban(&buffer[start..end], at - start) {
                            ibans.push(found(segment, range, rule));
                        }
                    }
                },
                |at| {
                    let Some(rule) = self.card.filter(|_| at >= looked_at) else {
                        return;
                    };
                    if let Some((segment, start, end)) = runs.find(at) {
                        let floor = looked_at.saturating_sub(start);
                        let value = &buffer[start..end];
                        let run_end = shapes.cards(value, at - start, floor, |range| {
                            out.push(found(segment, range, rule));
                        });
                        looked_at = start + run_end;
                    }
                },
            );
            out.append(&mut ibans);
        }
        if self.ipv4.is_some() || self.ipv6.is_some() {
            for index in 0..segments.len() {
                let (start, end) = segments.get(index);
                let value = &buffer[start..end];
                if let Some(rule) = self.ipv4 {
                    tokens::ipv4(value, |range| out.push(found(index as u32, range, rule)));
                }
                if let Some(rule) = self.ipv6 {
                    tokens::ipv6(value, |range| out.push(found(index as u32, range, rule)));
                }
            }
        }
    }

    fn keywords<S: Segments + ?Sized>(
        &self,
        rules: &[Rule],
        buffer: &[u8],
        from: usize,
        to: usize,
        segments: &S,
        out: &mut Vec<Match>,
    ) {
        let Some((automaton, owners)) = &self.keywords else {
            return;
        };
        let mut cursor = Cursor::new(segments);
        let mut judged = vec![None; rules.len()];
        // Overlapping: a keyword may lie inside another one, or across the border of two values.
        for hit in automaton.find_overlapping_iter(&buffer[from..to]) {
            let rule = owners[hit.pattern().as_usize()];
            // Ends ascend in an overlapping search, starts need not.
            let last = from + hit.end() - 1;
            let Some((segment, start, end)) = cursor.find(last) else {
                continue;
            };
            if from + hit.start() >= start && judged[rule as usize] != Some(segment) {
                judged[rule as usize] = Some(segment);
                search_whole(rules, rule, segment, &buffer[start..end], out);
            }
        }
    }
}

/// Texts to search for, none the beginning of another, and for each the literals that begin with it.
///
/// A vectorised search takes few texts, so the largest families that share their first bytes are searched by these.
fn grouped(mut literals: Vec<Literal>) -> Vec<(Vec<u8>, Vec<Literal>)> {
    literals.sort_by(|a, b| a.text.cmp(&b.text));
    let mut texts: Vec<Vec<u8>> = literals.iter().map(|l| l.text.clone()).collect();
    without_longer(&mut texts);
    while texts.len() > FEW_PACKS * PACK {
        let families = texts.chunk_by(|a, b| a[..MIN_LITERAL] == b[..MIN_LITERAL]);
        match families.max_by_key(|family| family.len()) {
            Some(family) if family.len() > 1 => {
                let shared = family[0][..MIN_LITERAL].to_vec();
                texts.push(shared);
                texts.sort();
                without_longer(&mut texts);
            }
            _ => break,
        }
    }
    let mut groups: Vec<Vec<Literal>> = texts.iter().map(|_| Vec::new()).collect();
    for literal in literals {
        let group = texts.partition_point(|text| *text <= literal.text) - 1;
        groups[group].push(literal);
    }
    texts.into_iter().zip(groups).collect()
}

/// Of sorted texts drop those that begin with another one.
fn without_longer(texts: &mut Vec<Vec<u8>>) {
    texts.dedup_by(|later, earlier| later.starts_with(earlier));
}

fn found(segment: u32, range: (usize, usize), rule: u16) -> Match {
    Match {
        segment,
        start: range.0 as u32,
        end: range.1 as u32,
        rule,
    }
}

fn search_whole(rules: &[Rule], rule: u16, segment: u32, value: &[u8], out: &mut Vec<Match>) {
    let Shape::Pattern(pattern) = &rules[rule as usize].shape else {
        return;
    };
    pattern.each(value, 0, TRIES, |range| {
        out.push(found(segment, range, rule))
    });
}
