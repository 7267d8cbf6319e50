//! Patterns that values are compared with: text with `*` for any characters.

use std::borrow::Cow;

use super::fold::fold;

/// Pattern of a whole value. `k*` consists of the piece `k` and an empty one; a value without `*` is one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    pieces: Vec<String>,
    ignore_case: bool,
}

impl Pattern {
    pub(super) fn exactly(text: String) -> Self {
        Self { pieces: vec![text], ignore_case: false }
    }

    /// Creates a pattern from `pieces`, the texts before, between and after the stars.
    pub(super) fn new(pieces: Vec<String>, ignore_case: bool) -> Self {
        let pieces = without_double_stars(pieces);
        let pieces = if ignore_case { pieces.iter().map(|piece| fold(piece)).collect() } else { pieces };
        Self { pieces, ignore_case }
    }

    pub(super) fn pieces(&self) -> &[String] {
        &self.pieces
    }

    pub(super) fn ignores_case(&self) -> bool {
        self.ignore_case
    }

    /// Returns the only value that the pattern matches, if there is just one.
    pub(super) fn literal(&self) -> Option<&str> {
        match &self.pieces[..] {
            [one] if !self.ignore_case => Some(one),
            _ => None,
        }
    }

    /// Returns the prefix of a pattern of the form `text*`.
    pub(super) fn prefix(&self) -> Option<&str> {
        match &self.pieces[..] {
            [prefix, end] if end.is_empty() && !self.ignore_case => Some(prefix),
            _ => None,
        }
    }

    /// Whether the pattern matches every value.
    pub(super) fn is_anything(&self) -> bool {
        self.pieces.len() == 2 && self.pieces.iter().all(String::is_empty)
    }

    pub(super) fn matches(&self, have: &str) -> bool {
        let have = if self.ignore_case { Cow::Owned(fold(have)) } else { Cow::Borrowed(have) };
        let (Some(first), Some(last)) = (self.pieces.first(), self.pieces.last()) else { return false };
        if self.pieces.len() == 1 {
            return have == first.as_str();
        }
        let Some(rest) = have.strip_prefix(first.as_str()) else { return false };
        let Some(rest) = rest.strip_suffix(last.as_str()) else { return false };
        contains_in_order(rest, &self.pieces[1..self.pieces.len() - 1])
    }
}

fn without_double_stars(pieces: Vec<String>) -> Vec<String> {
    let last = pieces.len().saturating_sub(1);
    let kept = pieces.into_iter().enumerate().filter(|(at, piece)| *at == 0 || *at == last || !piece.is_empty());
    kept.map(|(_, piece)| piece).collect()
}

/// Whether the text contains the pieces in order. Finding each piece at its earliest position leaves the most room for the pieces
/// after it.
fn contains_in_order(text: &str, pieces: &[String]) -> bool {
    let mut rest = text;
    for piece in pieces {
        let Some(at) = rest.find(piece.as_str()) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// Text to find anywhere in a longer text, ignoring case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextPattern {
    /// The texts between the stars, as typed. `a*b` is found if a `b` occurs anywhere after an `a`.
    pub(super) pieces: Vec<String>,
    lower: Vec<String>,
    /// Whether JSON is searched only in its stored form, escapes included, as in version 1 of the language.
    pub(super) stored_form_only: bool,
}

impl TextPattern {
    pub(super) fn new(pieces: Vec<String>) -> Self {
        let mut pieces: Vec<String> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        if pieces.is_empty() {
            // `*` alone: any text.
            pieces.push(String::new());
        }
        let lower = pieces.iter().map(|piece| fold(piece)).collect();
        Self { pieces, lower, stored_form_only: false }
    }

    pub(super) fn of_version_1(text: String) -> Self {
        Self { stored_form_only: true, ..Self::new(vec![text]) }
    }

    pub(super) fn lower(&self) -> &[String] {
        &self.lower
    }

    pub(super) fn is_in(&self, text: &str) -> bool {
        self.is_in_folded(&fold(text))
    }

    /// Like [`Self::is_in`], for text that is already folded.
    pub(super) fn is_in_folded(&self, folded: &str) -> bool {
        contains_in_order(folded, &self.lower)
    }
}

/// Whether a pattern of a filter matches a text: `*` matches any characters, and nothing else is special.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern.split('*').map(str::to_owned).collect(), false).matches(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reference implementation: tries every way to split the text, regardless of running time.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skipped| naive(rest, &text[skipped..])),
            Some((c, rest)) => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]
        #[test]
        fn a_pattern_matches_what_trying_everything_matches(pattern in "[ab*]{0,7}", text in "[ab]{0,8}") {
            let pieces = pattern.split('*').map(str::to_owned).collect();
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Pattern::new(pieces, false).matches(&text), naive(&chars(&pattern), &chars(&text)));
            let needle = TextPattern::new(pattern.split('*').map(str::to_owned).collect());
            prop_assert_eq!(needle.is_in(&text), naive(&chars(&format!("*{pattern}*")), &chars(&text)));
        }
    }

    #[test]
    fn case_is_ignored_where_that_was_asked_for() {
        let pattern = |text: &str, ignore_case| Pattern::new(vec![text.to_owned()], ignore_case);
        assert!(pattern("M.Keller", true).matches("m.keller") && pattern("m.keller", true).matches("M.KELLER"));
        assert!(!pattern("M.Keller", false).matches("m.keller"));
    }
}
