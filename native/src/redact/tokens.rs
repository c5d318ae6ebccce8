//! Addresses of the internet, and what tokens decode to.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::shapes::{ends_with_escape, is_word, Found};

/// The longest text form of an address, and some punctuation behind it.
const MAX_IPV6: usize = 48;

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
            let mut text = &value[start..end];
            let mut start = start;
            // "peer:2001:db8::1": the first colon belongs to the name in front.
            if text.starts_with(b":") && !text.starts_with(b"::") {
                text = &text[1..];
                start += 1;
            }
            let before = value[..start].last().is_some_and(|b| is_word(*b));
            let after = value.get(end).is_some_and(|b| is_word(*b));
            if before || after || text.len() > MAX_IPV6 {
                return;
            }
            while !parse::<Ipv6Addr>(text) {
                match text.split_last() {
                    // A sentence may end behind it: "from 2001:db8::1: refused".
                    Some((b'.' | b':', shorter)) => text = shorter,
                    _ => return,
                }
            }
            // "::1" says nothing about anybody, and "a::b" is a name in C++ or Rust.
            if text.iter().filter(|b| b.is_ascii_hexdigit()).count() > 2 {
                f((start, start + text.len()));
            }
        },
    );
}

/// The password of `scheme://user:password@host` (RFC 3986, 3.2.1) for the first at sign in it.
///
/// At signs that should have been escaped count to the password: it ends at the last one before the path.
pub fn url_password(value: &[u8], at: usize) -> Option<Found> {
    let ends = |b: &u8| b.is_ascii_whitespace() || *b == b'/';
    let start = value[..at]
        .iter()
        .rposition(|b| ends(b) || *b == b'@')
        .map_or(0, |p| p + 1);
    if !value[..start].ends_with(b"://") {
        return None;
    }
    let colon = start + memchr::memchr(b':', &value[start..at])?;
    if value[start..colon].iter().any(|b| matches!(b, b'?' | b'#')) {
        return None;
    }
    let stop = at + value[at..].iter().take_while(|b| !ends(b)).count();
    let end = at + memchr::memrchr(b'@', &value[at..stop])?;
    (colon + 1 < end).then_some((colon + 1, end))
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
