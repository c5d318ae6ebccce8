//! Regular expressions, their known beginnings, and what a match must pass besides.

use regex_automata::meta::{self, Regex};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::literal::{ExtractKind, Extractor};

use super::{numbers, tokens};

#[derive(Clone, Copy)]
enum Check {
    None,
    Jwt,
    Basic,
    Token,
    Luhn,
}

/// The sensitive range, and the end of the whole match.
type Found = ((usize, usize), usize);

/// How often a search in one value may fail before it is cut short.
pub const TRIES: usize = 64;

pub struct Pattern {
    regex: Regex,
    source: String,
    /// The pattern has a group: only what it captured is sensitive.
    group: bool,
    check: Check,
    pub keywords: Vec<String>,
}

impl Pattern {
    pub fn new(source: String, check: &str, keywords: Vec<String>) -> Result<Self, String> {
        let check = match check {
            "" => Check::None,
            "jwt" => Check::Jwt,
            "basic" => Check::Basic,
            "token" => Check::Token,
            "luhn" => Check::Luhn,
            _ => return Err(format!("unknown check {check}")),
        };
        let regex = meta::Builder::new()
            .syntax(syntax::Config::new().utf8(true))
            .configure(
                meta::Config::new()
                    .utf8_empty(false)
                    .nfa_size_limit(Some(10 << 20)),
            )
            .build(&source)
            .map_err(|e| match e.syntax_error() {
                Some(syntax) => syntax.to_string(),
                None => e.to_string(),
            })?;
        if regex.is_match("") {
            return Err("the pattern matches the empty text".into());
        }
        let group = regex.captures_len() > 1;
        Ok(Self {
            regex,
            source,
            group,
            check,
            keywords,
        })
    }

    /// Texts of at least `min` bytes of which every match begins with one; None when there is no such set.
    pub fn prefixes(&self, min: usize) -> Option<Vec<Vec<u8>>> {
        let hir = regex_syntax::parse(&self.source).ok()?;
        let sequence = Extractor::new()
            .kind(ExtractKind::Prefix)
            .limit_total(128)
            .extract(&hir);
        let literals = sequence.literals()?;
        if literals.is_empty() || literals.iter().any(|l| l.len() < min) {
            return None;
        }
        Some(literals.iter().map(|l| l.as_bytes().to_vec()).collect())
    }

    /// Whether the decimal form of a number can match: not when each keyword or beginning has another character.
    pub fn may_match_number(&self) -> bool {
        let numeric = |text: &[u8]| {
            text.iter()
                .all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        };
        if !self.keywords.is_empty() {
            return self.keywords.iter().any(|k| numeric(k.as_bytes()));
        }
        match self.prefixes(1) {
            Some(texts) => texts.iter().any(|t| numeric(t)),
            None => true,
        }
    }

    /// The match that starts at `position`: the sensitive range, and the end of the whole.
    pub fn at(&self, value: &[u8], position: usize) -> Option<Found> {
        self.find(value, position, true)
    }

    /// Call `f` with the sensitive range of every match at or after `from`, from left to right.
    ///
    /// A match that fails the check does not hide another one inside it, but only so often: a text made to be searched
    /// again and again would take time that grows with its square. Then what merely looks sensitive counts as such.
    pub fn each(&self, value: &[u8], from: usize, tries: usize, mut f: impl FnMut((usize, usize))) {
        let mut next = from;
        let mut failures = 0;
        while next <= value.len() {
            let Some(whole) = self.regex.search(&Input::new(value).range(next..)) else {
                return;
            };
            next = match self.find(value, whole.start(), failures < tries) {
                Some((range, end)) => {
                    f(range);
                    end.max(whole.start() + 1)
                }
                None if failures < tries => {
                    failures += 1;
                    whole.start() + 1
                }
                None => whole.end().max(whole.start() + 1),
            };
        }
    }

    fn find(&self, value: &[u8], position: usize, checked: bool) -> Option<Found> {
        let input = Input::new(value).range(position..).anchored(Anchored::Yes);
        let whole = self.regex.search(&input)?;
        let mut range = (whole.start(), whole.end());
        if self.group {
            let mut captures = self.regex.create_captures();
            self.regex.search_captures(&input, &mut captures);
            if let Some(part) = (1..captures.group_len()).find_map(|i| captures.get_group(i)) {
                range = (part.start, part.end);
            }
        }
        let text = &value[range.0..range.1];
        let passed = !checked
            || match self.check {
                Check::None => true,
                Check::Jwt => tokens::is_jwt(text),
                Check::Basic => tokens::is_basic_credentials(text),
                Check::Token => tokens::is_token(text),
                Check::Luhn => numbers::luhn(text),
            };
        (passed && range.0 < range.1).then_some((range, whole.end()))
    }
}
