//! Input and output of the contexts in `contexts.rs`: `Examined`, the text to examine, and `Parts`, the byte ranges of the secrets
//! found in it.

use std::cell::Cell;
use std::ops::Range;

use regex::Regex;

use crate::names::{Class, Names};
use crate::values::{is_spared, is_state};

/// Compiles a constant pattern. Panics if the pattern is invalid, so any test that uses the pattern detects the mistake.
pub(super) fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

/// Text that a context examines, and facts about it.
pub(super) struct Examined<'t> {
    pub(super) names: &'t Names,
    pub(super) text: &'t str,
    /// Whether the text has several lines, and whether it contains "fail". Both are computed once per text, because testing them
    /// at every name would read the whole text once for each name.
    pub(super) has_lines: bool,
    pub(super) says_fail: bool,
    /// Ranges of JSON in the text that was already examined as JSON, in ascending order.
    pub(super) json: &'t [Range<usize>],
    /// Start and end of the most recent range that `line_end` searched.
    pub(super) line: Cell<(usize, usize)>,
}

impl Examined<'_> {
    /// Returns the end of the line that contains byte `at`. The result is cached, so that each byte is read only once even if the
    /// same line is queried repeatedly.
    pub(super) fn line_end(&self, at: usize) -> usize {
        let (from, to) = self.line.get();
        if from <= at && at <= to {
            return to;
        }
        let to = at + self.text[at..].find(['\r', '\n']).unwrap_or(self.text.len() - at);
        self.line.set((at, to));
        to
    }

    pub(super) fn is_in_json(&self, at: usize) -> bool {
        let behind = self.json.partition_point(|range| range.start <= at);
        behind > 0 && at < self.json[behind - 1].end
    }
}

/// Byte ranges of the secrets in a text.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<(usize, usize)>);

impl Parts {
    pub(super) fn add(&mut self, from: usize, to: usize) {
        if from < to {
            self.0.push((from, to));
        }
    }

    /// Returns the ranges in ascending order; ranges that overlap or touch are merged.
    pub(super) fn merged(mut self) -> Vec<(usize, usize)> {
        self.0.sort_unstable();
        let mut merged: Vec<(usize, usize)> = Vec::with_capacity(self.0.len());
        for (from, to) in self.0 {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        merged
    }
}

/// Authentication schemes of RFC 9110 section 11.6.2 and others in use, in lower case.
pub(super) const SCHEMES: [&str; 20] = [
    "bearer",
    "basic",
    "digest",
    "token",
    "negotiate",
    "ntlm",
    "apikey",
    "api-key",
    "aws4-hmac-sha256",
    "oauth",
    "hawk",
    "signature",
    "hmac",
    "hmac-sha256",
    "sharedkey",
    "sharedaccesssignature",
    "splunk",
    "jwt",
    "key",
    "scram-sha-256",
];

/// Returns whether the text after the name of a credentials header is a sentence: `authorization: denied by policy`.
pub(crate) fn is_prose_header(value: &str) -> bool {
    // A longer value is not a sentence.
    const VALUE_BYTES_MAX: usize = 512;
    if value.len() > VALUE_BYTES_MAX {
        return false;
    }
    let mut words = value.split_whitespace();
    let Some(first) = words.next() else { return true };
    let plain = |word: &str| {
        word.bytes().all(|b| b.is_ascii_alphabetic() || b"'-.,;:!?()".contains(&b))
            || word.bytes().all(|b| b.is_ascii_digit())
    };
    if is_state(first) {
        return true;
    }
    let is_scheme = SCHEMES.iter().any(|scheme| first.eq_ignore_ascii_case(scheme));
    let mut more = words.peekable();
    if is_scheme {
        if more.clone().count() > 0
            && more
                .clone()
                .all(|word| word.trim_end_matches(['"', '\'', ',']).bytes().all(|b| matches!(b, b'*' | b'.')))
        {
            return true;
        }
        // `Bearer token required`
        return more.peek().is_some_and(|second| is_state(second)) || more.clone().count() >= 2 && more.all(plain);
    }
    more.peek().is_some() && plain(first) && more.all(plain)
}

/// Returns whether a value in a text is not a secret, regardless of its name.
pub(super) fn is_no_secret(examined: &Examined<'_>, value: &str) -> bool {
    is_spared(examined.names, Class::Token, value)
}
